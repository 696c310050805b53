//! What the wiring is made from, and what each actor is told of it.

use crate::{host::Host, identity::Identity};
use actors::{
    deciders::policy::Mode,
    effects::tunnels,
    sinks::telemetry::Published,
    sources::{
        candidate_prober::CandidateProberSettings, credentials::CredentialSettings,
        documents::DocumentSettings, port_mapping::keeper::LeaseSettings,
    },
    store::{LocalLimits, SharedCandidates},
};
use config::{Settings, paths::Paths};
use membership::{
    credentials::SharedServerTls,
    documents::{DocumentFiles, DocumentStore, PrivateEndpoints},
    peer_api::{PeerApiClient, SharedNodeDocument},
    registry_api::RegistryApiClient,
};
use os::{
    babel_socket::BabelSocket,
    clock::Clock,
    kernel::{Kernel, has_ipv6},
};
use policies::{parameters::Parameters, planner::PlannerSettings};
use wire::{
    babel::{BabelConfig, MacKey},
    peer::MOST_DISTANCES,
};

/// What the wiring is made from.
pub struct Parts<'a> {
    /// The configuration.
    pub settings: &'a Settings,
    /// Who we are.
    pub identity: &'a Identity,
    /// What the host offers.
    pub host: &'a Host,
    /// Where files lie.
    pub paths: &'a Paths,
    /// The one clock.
    pub clock: Clock,
    /// The one kernel.
    pub kernel: Kernel,
    /// Where telemetry publishes its picture.
    pub published: Published,
    /// Where the peer cache publishes its reading.
    pub peers: SharedCandidates,
    /// Asks neighbours for routes.
    pub sender: BabelSocket,
    /// Asks other nodes over the overlay.
    pub asker: PeerApiClient,
    /// The registry.
    pub registry: RegistryApiClient,
    /// Our own document, which the peer API shows.
    pub node: SharedNodeDocument,
    /// The signed documents that we hold.
    pub held: DocumentStore,
    /// Whether the policy's orders are carried out.
    pub mode: Mode,
    /// TLS by which other nodes are answered over the overlay.
    pub peer_tls: SharedServerTls,
}

pub(crate) fn document_settings(parts: &Parts<'_>) -> DocumentSettings {
    DocumentSettings {
        serial: parts.identity.serial.clone(),
        files: document_files(parts.paths),
    }
}

pub(crate) fn credential_settings(parts: &Parts<'_>) -> CredentialSettings {
    let Parts {
        paths,
        host,
        identity,
        ..
    } = parts;
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

/// What the configuration allows of the network's parameters, and what there are slots for.
pub(crate) fn lower(parts: &Parts<'_>) -> LocalLimits {
    let most = |own: Option<u16>, slots: u16| own.unwrap_or(u16::MAX).min(slots);
    LocalLimits {
        tunnels_to_dial: most(parts.settings.tunnels_to_dial, parts.host.tunnels_to_dial),
        max_accepted: most(parts.settings.max_accepted, parts.host.max_accepted),
        distances: if parts.settings.transit.price() == 0 {
            MOST_DISTANCES
        } else {
            0
        },
    }
}

/// Where the signed documents lie.
pub(crate) fn document_files(paths: &Paths) -> DocumentFiles {
    DocumentFiles {
        network: paths.network(),
        revocations: paths.revocations(),
        revoked: paths.revoked(),
    }
}

pub(crate) fn tunnel_settings(parts: &Parts<'_>) -> tunnels::Settings {
    let Parts {
        paths,
        host,
        identity,
        ..
    } = parts;
    tunnels::Settings {
        me: identity.me,
        network: identity.network,
        openvpn: host.openvpn.clone(),
        rights: host.openvpn_rights,
        identity: tunnels::Identity {
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
        max_accepted: host.max_accepted,
        children: paths.run().join("child"),
    }
}

pub(crate) fn planner_settings(parts: &Parts<'_>) -> PlannerSettings {
    PlannerSettings {
        parameters: Parameters {
            tunnels_to_dial: parts.host.tunnels_to_dial,
            max_accepted: parts.host.max_accepted,
            ..parts.identity.document.parameters()
        },
        pinned: parts.settings.neighbours.iter().copied().collect(),
        rule: parts.settings.policy,
        seed: fastrand::u64(..),
    }
}

pub(crate) fn scout_settings(parts: &Parts<'_>) -> CandidateProberSettings {
    CandidateProberSettings::of(parts.identity.me, &parts.identity.document)
}

/// Whether private endpoints are believed.
pub(crate) fn private_endpoints(parts: &Parts<'_>) -> PrivateEndpoints {
    PrivateEndpoints::new(parts.settings.private_endpoints, parts.held.clone())
}

pub(crate) fn lease_settings(parts: &Parts<'_>) -> LeaseSettings {
    LeaseSettings {
        me: parts.identity.me,
        network: parts.identity.network,
        wanted: parts.host.servers.clone(),
        ledger: parts.paths.leases(),
        private: private_endpoints(parts),
    }
}

pub(crate) fn babel_settings(parts: &Parts<'_>) -> actors::sources::babeld::Settings {
    let Parts {
        paths,
        host,
        identity,
        kernel,
        settings,
        ..
    } = parts;
    let parameters = identity.document.parameters();
    let folder = paths.child("babeld");
    actors::sources::babeld::Settings {
        babeld: host.babeld.clone(),
        rights: host.babeld_rights,
        state_folder: paths.babeld_state(),
        seqno: paths.state().join("babel-seqno"),
        pid_file: paths.run().join("child/babeld.pid"),
        openvpn_uid: host.openvpn_rights.uid,
        config: BabelConfig {
            network: identity.network,
            own: identity.me,
            ipv4: identity.document.payload4(),
            slots: kernel.slots(),
            interfaces: settings.interfaces.clone(),
            hello_interval: parameters.hello_interval,
            update_interval: parameters.update_interval,
            socket: folder.join("babeld.sock"),
            state_file: paths.babeld_state().join("state"),
            key: MacKey::from_hex(&identity.document.babel_key),
            lenient: false,
            transit_price: settings.transit.price(),
            gateways: identity.document.gateways.iter().copied().collect(),
            gateway: settings.gateway,
        },
        folder,
    }
}
