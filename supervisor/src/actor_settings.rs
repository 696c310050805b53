//! Builds the settings of each actor from the configuration, the identity and the host.

use crate::{host::Host, identity::NodeIdentity};
use actors::{
    deciders::prober::{ASSUMED_ROUTES, ProberSettings},
    effects::tunnels,
    live_settings::{LiveSettings, LocalLimits, Mode},
    sinks::{
        health,
        next_hop::next_hop,
        telemetry::{Published, TelemetryDeps},
    },
    sources::{
        babeld,
        candidate_prober::CandidateProberSettings,
        credentials::CredentialSettings,
        documents::DocumentSettings,
        hole_punching::PunchSettings,
        lan_discovery::LanSettings,
        peer_api::FindNextHop,
        peer_cache::CacheSettings,
        pinholes::keeper::{PinholeKeeper, PinholeSettings},
        port_mapping::{
            default_gateway::DefaultGateway,
            keeper::{Keeper, LeaseSettings},
            ledger::FileLedger,
        },
        process_monitor::OpenvpnSockets,
        registry_client::RegistrySettings,
    },
    store::Store,
};
use config::{Settings, paths::Paths};
use membership::{
    credentials::SharedServerTls,
    documents::{DocumentFiles, PrivateEndpoints},
    peer_api::PeerApiClient,
    registry_api::RegistryApiClient,
};
use os::{
    babel_socket::BabelSocket,
    kernel::{Kernel, has_ipv6},
    route_check::has_route,
};
use policies::{names::Transport, probe::ProbePace};
use std::{net::SocketAddrV6, rc::Rc, sync::Arc};
use wire::{
    babel::{BabelConfig, MacKey},
    peer::MAX_DISTANCES,
};

/// Everything that the actors of a node are built from.
pub struct Environment<'a> {
    /// The configuration of the node.
    pub settings: &'a Settings,
    /// This node, as its certificate and the network document describe it.
    pub identity: &'a NodeIdentity,
    /// The programs, users and ports that were found on the host.
    pub host: &'a Host,
    /// The paths of all files.
    pub paths: &'a Paths,
    /// The shared state that outlives every actor.
    pub store: Store,
    /// The network namespace that the node uses.
    pub kernel: Kernel,
    /// Where telemetry publishes its snapshots.
    pub published: Published,
    /// The socket for Babel packets to neighbours.
    pub babel_socket: BabelSocket,
    /// The TLS configuration of the peer API's server.
    pub server_tls: SharedServerTls,
    /// The client of other nodes' peer API.
    pub peers: PeerApiClient,
    /// The client of the registry.
    pub registry: RegistryApiClient,
    /// Decides which private endpoints are announced and dialled.
    pub private: PrivateEndpoints,
}

pub(crate) fn telemetry(environment: &Environment<'_>) -> TelemetryDeps {
    TelemetryDeps {
        clock: environment.store.clock.clone(),
        published: environment.published.clone(),
        names: environment.store.names.clone(),
        pins: environment.store.pins.clone(),
        find: health::present_findings,
    }
}

pub(crate) fn documents(environment: &Environment<'_>) -> DocumentSettings {
    DocumentSettings {
        serial: environment.identity.serial.clone(),
        files: document_files(environment.paths),
        is_metered: environment.settings.metered,
    }
}

pub(crate) fn credentials(environment: &Environment<'_>) -> CredentialSettings {
    let Environment {
        paths,
        host,
        identity,
        ..
    } = environment;
    CredentialSettings {
        ca: paths.ca(),
        certificate: paths.certificate(),
        key: paths.key(),
        tls_crypt: paths.tls_crypt(),
        tls_crypt_other: paths.tls_crypt_other(),
        reader: (host.openvpn_rights.uid, host.openvpn_rights.gid),
        request: identity.request.clone(),
    }
}

/// Returns the settings that can change while the daemon runs.
pub(crate) fn live_settings(settings: &Settings, host: &Host, mode: Mode) -> LiveSettings {
    let limit = |configured: Option<u16>, slots: u16| configured.unwrap_or(u16::MAX).min(slots);
    LiveSettings {
        mode: if settings.dry_run { Mode::Watch } else { mode },
        pinned: settings.neighbours.iter().copied().collect(),
        rule: settings.policy,
        endpoints: settings.endpoints.clone(),
        limits: LocalLimits {
            tunnels_to_dial: limit(settings.dialled_limit(), host.tunnels_to_dial),
            max_accepted: limit(settings.accepted_limit(), host.max_accepted),
            max_distances: if settings.transit_cost() == 0 {
                MAX_DISTANCES
            } else {
                0
            },
        },
        pending_restart: Vec::new(),
    }
}

/// Returns the paths of the signed documents.
pub(crate) fn document_files(paths: &Paths) -> DocumentFiles {
    DocumentFiles {
        network: paths.network(),
        revocations: paths.revocations(),
        revoked: paths.revoked(),
    }
}

pub(crate) fn tunnels(environment: &Environment<'_>) -> tunnels::TunnelSettings {
    let Environment {
        paths,
        host,
        identity,
        ..
    } = environment;
    tunnels::TunnelSettings {
        me: identity.me,
        network: identity.network,
        openvpn: host.openvpn.clone(),
        rights: host.openvpn_rights,
        files: tunnels::OpenvpnFiles {
            ca: paths.ca(),
            certificate: paths.certificate(),
            key: paths.key(),
            tls_crypt: paths.tls_crypt(),
            tls_crypt_other: paths.tls_crypt_other(),
            revoked: paths.revoked(),
            tun_node: host.tun_node.clone(),
            ipv6: has_ipv6(),
        },
        servers: host.servers.clone(),
        max_dialling_slots: host.max_dialling_slots(),
        max_accepted: host.max_accepted,
        children: paths.run().join("child"),
    }
}

pub(crate) fn openvpn_sockets(environment: &Environment<'_>) -> OpenvpnSockets {
    OpenvpnSockets {
        uid: environment.host.openvpn_rights.uid,
        server_port: udp_port(environment.host),
    }
}

/// Returns the port of the UDP server.
fn udp_port(host: &Host) -> Option<u16> {
    let mut servers = host.servers.iter();
    let server = servers.find(|(transport, _)| *transport == Transport::Udp);
    server.map(|(_, port)| *port)
}

pub(crate) fn hole_punching(environment: &Environment<'_>) -> PunchSettings {
    PunchSettings {
        me: environment.identity.me,
        network: environment.identity.network,
        server_port: udp_port(environment.host),
        openvpn_uid: environment.host.openvpn_rights.uid,
    }
}

pub(crate) fn candidate_prober(environment: &Environment<'_>) -> CandidateProberSettings {
    let identity = environment.identity;
    CandidateProberSettings {
        is_metered: environment.settings.metered,
        ..CandidateProberSettings::from_network(identity.me, &identity.document)
    }
}

pub(crate) fn prober(environment: &Environment<'_>) -> ProberSettings {
    let identity = environment.identity;
    ProberSettings {
        me: identity.me,
        network: identity.network,
        pace: ProbePace::new(&identity.document.parameters(), ASSUMED_ROUTES),
        is_metered: environment.settings.metered,
        openvpn_uid: environment.host.openvpn_rights.uid,
    }
}

pub(crate) fn peer_cache(environment: &Environment<'_>) -> CacheSettings {
    CacheSettings {
        path: environment.paths.peer_cache(),
        me: environment.identity.me,
        network: environment.identity.network,
        private: environment.private.clone(),
        documents: environment.store.documents.clone(),
        has_route,
        openvpn_uid: environment.host.openvpn_rights.uid,
    }
}

/// Returns the address of this node's peer API.
/// Looks tunnels up in the published snapshot.
pub(crate) fn find_next_hop(environment: &Environment<'_>) -> FindNextHop {
    let published = environment.published.clone();
    Arc::new(move |to| next_hop(&published.load(), to))
}

pub(crate) fn peer_api_address(environment: &Environment<'_>) -> SocketAddrV6 {
    let identity = environment.identity;
    let address = identity.network.node_address(identity.me);
    SocketAddrV6::new(address, wire::peer::PORT, 0, 0)
}

/// Returns the settings of LAN discovery; `None` if it is turned off.
pub(crate) fn lan_discovery(environment: &Environment<'_>) -> Option<LanSettings> {
    let settings = LanSettings {
        me: environment.identity.me,
        network: environment.identity.network,
        servers: environment.host.servers.clone(),
    };
    environment.settings.lan_discovery.then_some(settings)
}

pub(crate) fn registry_client(environment: &Environment<'_>) -> RegistrySettings {
    RegistrySettings {
        me: environment.identity.me,
        network: environment.identity.network,
        ports: environment.host.ports(),
        private: environment.private.clone(),
    }
}

/// The keeper of port mappings on the host's own gateway.
pub(crate) type LeaseKeeper = Keeper<DefaultGateway>;

/// Builds the keeper of port mappings; returns `None` if they are turned off, or if there is no server.
pub(crate) fn lease_keeper(environment: &Environment<'_>) -> Option<Rc<LeaseKeeper>> {
    let is_wanted = environment.settings.upnp && !environment.host.servers.is_empty();
    let ledger = FileLedger::new(environment.paths.leases());
    is_wanted.then(|| {
        Rc::new(Keeper::new(
            DefaultGateway,
            ledger,
            lease_settings(environment),
        ))
    })
}

/// Builds the keeper of pinholes; returns `None` if requests to the router are turned off, or if there is no server.
pub(crate) fn pinhole_keeper(environment: &Environment<'_>) -> Option<Rc<PinholeKeeper>> {
    let is_wanted = environment.settings.upnp && !environment.host.servers.is_empty();
    let settings = PinholeSettings {
        network: environment.identity.network,
        wanted: environment.host.ports(),
        random: environment.store.random.clone(),
        kernel: environment.kernel.clone(),
    };
    let ledger = FileLedger::new(environment.paths.pinholes());
    is_wanted.then(|| Rc::new(PinholeKeeper::new(ledger, settings)))
}

fn lease_settings(environment: &Environment<'_>) -> LeaseSettings {
    LeaseSettings {
        me: environment.identity.me,
        network: environment.identity.network,
        wanted: environment.host.servers.clone(),
        further: environment.host.further(),
        private: environment.private.clone(),
        random: environment.store.random.clone(),
    }
}

pub(crate) fn babeld(environment: &Environment<'_>) -> babeld::BabeldSettings {
    let Environment {
        paths,
        host,
        identity,
        settings,
        ..
    } = environment;
    let parameters = identity.document.parameters();
    let folder = paths.child("babeld");
    babeld::BabeldSettings {
        babeld: host.babeld.clone(),
        rights: host.babeld_rights,
        config_file: paths.run().join("child/babeld.conf"),
        seqno: paths.state().join("babel-seqno"),
        pid_file: paths.run().join("child/babeld.pid"),
        openvpn_uid: host.openvpn_rights.uid,
        config: BabelConfig {
            network: identity.network,
            own: identity.me,
            prefix_lengths: identity.document.prefix_lengths.iter().copied().collect(),
            ipv4: identity.document.payload4(),
            slots: host.slots(),
            interfaces: settings.interfaces.clone(),
            is_metered: settings.metered,
            hello_interval: parameters.hello_interval,
            update_interval: parameters.update_interval,
            socket: folder.join("babeld.sock"),
            state_file: folder.join(babeld::BabeldSettings::STATE_FILE),
            key: MacKey::from_hex(&identity.document.babel_key),
            lenient: false,
            transit_cost: settings.transit_cost(),
            gateways: identity.document.gateways.iter().copied().collect(),
            gateway: settings.gateway,
        },
        folder,
    }
}
