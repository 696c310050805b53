//! Wires the actors: one function, read from top to bottom.
//!
//! Four ranks: source -> decider -> effect -> sink. What is last in the flow starts first, and is
//! handed to those before it; so a loop of addresses cannot be written.

use crate::{host::Host, identity::Identity};
use actix::{Actor, Recipient};
use actors::{
    babeld::{Babeld, EndBabeld, RoutingProcess},
    clock::Clock,
    errors::Chain,
    guardian::guard,
    kernel::{Kernel, has_ipv6},
    links::Links,
    messages::{ActorRemade, Ordered},
    openvpn::{self, Connections, DrainAll, EndAll, Facts, Tunnels},
    peer_api::{PeerApi, SharedNode},
    peer_cache::{CacheSettings, PeerCache, SharedPeers},
    peer_client::{Asker, PeerClient},
    policy::Policy,
    prober::{Prober, ProberSettings},
    process::Outlet,
    registry_client::{RegistryClient, RegistrySettings, call::Registry},
    roll::Roll,
    sampler::Sampler,
    store::TunnelTable,
    telemetry::{Published, Telemetry},
    upnp::{
        Upnp,
        gateway::DefaultGateway,
        keeper::{Keeper, LeaseSettings},
    },
};
use config::{Settings, paths::Paths};
use policies::{
    parameters::Parameters,
    planner::{Planner, PlannerSettings},
    usage::Floor,
};
use std::{cell::RefCell, rc::Rc, time::Duration};
use wire::babel::{BabelConfig, MacKey};

/// Names of all guarded actors.
pub const ACTORS: [&str; 12] = [
    "telemetry",
    "tunnels",
    "policy",
    "prober",
    "peer_cache",
    "peer_client",
    "peer_api",
    "registry_client",
    "upnp",
    "babeld",
    "roll",
    "sampler",
];

/// Routes announced over a link, for the floor below which traffic is Babel's own; each 30 more cost
/// one packet in an update interval.
const FEW_ROUTES: usize = 30;

/// A gateway that has not let go of our mappings by then is left alone; the leases are finite.
const RELEASE: Duration = Duration::from_secs(4);

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
    pub peers: SharedPeers,
    /// Asks other nodes over the overlay.
    pub asker: Asker,
    /// The registry.
    pub registry: Registry,
    /// Our own document, which the peer API shows.
    pub node: SharedNode,
    /// Answers other nodes over the overlay.
    pub peer_api: PeerApi,
}

/// The running graph, as the shutdown needs it.
pub struct Graph {
    table: Rc<RefCell<TunnelTable>>,
    connections: Connections,
    routing: RoutingProcess,
    drain_all: Recipient<DrainAll>,
    end_all: Recipient<EndAll>,
    end_babeld: Recipient<EndBabeld>,
    leases: Option<Rc<Keeper<DefaultGateway>>>,
    /// Where orders are given from outside the planner.
    pub orders: Recipient<Ordered>,
}

/// Starts all actors.
pub fn wire(parts: &Parts<'_>) -> Graph {
    let Parts { settings, identity, host, paths, clock, kernel, published, .. } = parts;
    // The store: what outlives every actor.
    let table = Rc::new(RefCell::new(TunnelTable {
        dialling_slots: kernel
            .slots()
            .into_iter()
            .filter(|slot| slot.role() == policies::names::Role::Dialled)
            .collect(),
        ..TunnelTable::default()
    }));
    let (connections, routing) = (Connections::default(), RoutingProcess::default());
    let links = Links::new(kernel.clone(), identity.me);

    // Sinks.
    let telemetry = {
        let (clock, published) = (clock.clone(), published.clone());
        guard("telemetry", None, move || Telemetry::new(clock.clone(), published.clone()).start())
    };
    let remade: Option<Recipient<ActorRemade>> = Some(telemetry.clone().recipient());

    // Effects.
    let tunnels = {
        let facts = Facts {
            opened: telemetry.clone().recipient(),
            came_up: telemetry.clone().recipient(),
            closed: telemetry.clone().recipient(),
        };
        let (told, clock, table, connections, links) =
            (tunnel_settings(parts), clock.clone(), table.clone(), connections.clone(), links.clone());
        let (events, seed) = (Outlet::default(), fastrand::u64(..));
        guard("tunnels", remade.clone(), move || {
            Tunnels::new(
                told.clone(),
                clock.clone(),
                table.clone(),
                connections.clone(),
                links.clone(),
                facts.clone(),
                events.clone(),
                seed,
            )
            .start()
        })
    };

    // Deciders and what they are told by.
    let policy = {
        let orders = tunnels.clone().recipient();
        let (told, me, decided) = (planner_settings(parts), identity.me, vec![telemetry.clone().recipient()]);
        guard("policy", remade.clone(), move || {
            Policy::new(Planner::new(me, told.clone()), orders.clone(), decided.clone()).start()
        })
    };
    let prober = {
        let told = ProberSettings {
            me: identity.me,
            network: identity.network,
            floor: Floor::of(&identity.document.parameters.parameters(), FEW_ROUTES),
        };
        let (clock, orders) = (clock.clone(), tunnels.clone().recipient());
        let losses = table.borrow().losses.clone();
        let readers = vec![policy.clone().recipient(), telemetry.clone().recipient()];
        guard("prober", remade.clone(), move || {
            Prober::new(told, clock.clone(), losses.clone(), orders.clone(), readers.clone()).start()
        })
    };
    let peers = parts.peers.clone();
    let peer_cache = {
        let told = CacheSettings {
            path: paths.peer_cache(),
            me: identity.me,
            network: identity.network,
            allow_private: settings.private_endpoints,
        };
        let readers = vec![policy.clone().recipient(), telemetry.clone().recipient()];
        let (clock, table, peers) = (clock.clone(), table.clone(), peers.clone());
        guard("peer_cache", remade.clone(), move || {
            PeerCache::new(told.clone(), clock.clone(), table.clone(), peers.clone(), readers.clone()).start()
        })
    };

    let peer_client = {
        let (asker, me, clock, peers) = (parts.asker.clone(), identity.me, clock.clone(), peers.clone());
        let heard = vec![peer_cache.clone().recipient()];
        guard("peer_client", remade.clone(), move || {
            PeerClient::new(me, asker.clone(), clock.clone(), peers.clone(), heard.clone()).start()
        })
    };
    {
        let api = parts.peer_api.clone();
        guard("peer_api", remade.clone(), move || api.clone().start());
    }

    // Sources.
    let registry_client = {
        let told = RegistrySettings {
            me: identity.me,
            network: identity.network,
            endpoints: settings.endpoints.clone(),
            servers: host.servers.clone(),
            allow_private: settings.private_endpoints,
        };
        let (heard, asked) = (vec![peer_cache.recipient()], vec![telemetry.clone().recipient()]);
        let (registry, clock, kernel, node) =
            (parts.registry.clone(), clock.clone(), kernel.clone(), parts.node.clone());
        guard("registry_client", remade.clone(), move || {
            RegistryClient::new(
                told.clone(),
                registry.clone(),
                clock.clone(),
                kernel.clone(),
                node.clone(),
                heard.clone(),
                asked.clone(),
            )
            .start()
        })
    };
    let wanted = settings.upnp && !host.servers.is_empty();
    let leases = wanted.then(|| Rc::new(Keeper::new(DefaultGateway, lease_settings(parts))));
    if let Some(keeper) = &leases {
        let readers = vec![registry_client.clone().recipient(), telemetry.clone().recipient()];
        let (keeper, clock) = (keeper.clone(), clock.clone());
        guard("upnp", remade.clone(), move || {
            Upnp::new(keeper.clone(), clock.clone(), readers.clone()).start()
        });
    }
    let babeld = {
        let readers =
            vec![policy.clone().recipient(), peer_client.recipient(), telemetry.clone().recipient()];
        let (told, clock, kernel, links, table, routing) = (
            babel_settings(parts),
            clock.clone(),
            kernel.clone(),
            links.clone(),
            table.clone(),
            routing.clone(),
        );
        let events = Outlet::default();
        guard("babeld", remade.clone(), move || {
            Babeld::new(
                told.clone(),
                clock.clone(),
                kernel.clone(),
                links.clone(),
                table.clone(),
                routing.clone(),
                events.clone(),
                readers.clone(),
            )
            .start()
        })
    };
    {
        let (connections, routing) = (connections.clone(), routing.clone());
        let call = Rc::new(move || {
            let mut all = connections.readings();
            all.splice(0..0, routing.reading());
            all
        });
        let (clock, to) = (clock.clone(), telemetry.clone().recipient());
        guard("roll", remade.clone(), move || Roll::new(clock.clone(), call.clone(), to.clone()).start());
    }
    {
        let readers = vec![policy.recipient(), prober.recipient(), telemetry.recipient()];
        let (kernel, clock, table) = (kernel.clone(), clock.clone(), table.clone());
        guard("sampler", remade, move || {
            Sampler::new(kernel.clone(), clock.clone(), table.clone(), readers.clone()).start()
        });
    }
    Graph {
        table,
        leases,
        connections,
        routing,
        drain_all: tunnels.clone().recipient(),
        end_all: tunnels.clone().recipient(),
        orders: tunnels.recipient(),
        end_babeld: babeld.recipient(),
    }
}

fn tunnel_settings(parts: &Parts<'_>) -> openvpn::Settings {
    let Parts { paths, host, identity, .. } = parts;
    openvpn::Settings {
        me: identity.me,
        openvpn: host.openvpn.clone(),
        rights: host.openvpn_rights,
        identity: openvpn::Identity {
            ca: paths.ca(),
            certificate: paths.certificate(),
            key: paths.key(),
            tls_crypt: paths.tls_crypt(),
            tun_node: host.tun_node.clone(),
            ipv6: has_ipv6(),
        },
        servers: host.servers.clone(),
        max_accepted: host.max_accepted,
        children: paths.run().join("child"),
    }
}

fn planner_settings(parts: &Parts<'_>) -> PlannerSettings {
    PlannerSettings {
        parameters: Parameters {
            tunnels_to_dial: parts.host.tunnels_to_dial,
            max_accepted: parts.host.max_accepted,
            ..parts.identity.document.parameters.parameters()
        },
        pinned: parts.settings.neighbours.iter().copied().collect(),
        seed: fastrand::u64(..),
    }
}

fn lease_settings(parts: &Parts<'_>) -> LeaseSettings {
    LeaseSettings {
        me: parts.identity.me,
        network: parts.identity.network,
        wanted: parts.host.servers.clone(),
        ledger: parts.paths.leases(),
        allow_private: parts.settings.private_endpoints,
    }
}

fn babel_settings(parts: &Parts<'_>) -> actors::babeld::Settings {
    let Parts { paths, host, identity, kernel, settings, .. } = parts;
    let parameters = identity.document.parameters.parameters();
    let folder = paths.child("babeld");
    let own = identity.me.length();
    actors::babeld::Settings {
        babeld: host.babeld.clone(),
        rights: host.babeld_rights,
        state_folder: paths.babeld_state(),
        seqno: paths.state().join("babel-seqno"),
        pid_file: paths.run().join("child/babeld.pid"),
        config: BabelConfig {
            network: identity.network,
            own: identity.me,
            lengths: own..=own,
            slots: kernel.slots(),
            interfaces: settings.interfaces.clone(),
            hello_interval: parameters.hello_interval,
            update_interval: parameters.update_interval,
            socket: folder.join("babeld.sock"),
            state_file: paths.babeld_state().join("state"),
            key: mac_key(&identity.document.babel_key),
        },
        folder,
    }
}

/// 64 hex digits, as the document was checked to have.
fn mac_key(hex: &str) -> Option<MacKey> {
    let digits: Option<Vec<u8>> = hex.chars().map(|c| u8::try_from(c.to_digit(16)?).ok()).collect();
    let pairs: Vec<u8> =
        digits?.chunks_exact(2).map(|pair| pair.iter().fold(0, |sum, digit| sum << 4 | digit)).collect();
    pairs.try_into().ok().map(MacKey)
}

impl Graph {
    /// Begins the end: nothing new, and Babel taken off all tunnels.
    pub fn drain_all(&self) {
        self.drain_all.do_send(DrainAll);
    }

    /// Whether any tunnel stands.
    pub fn has_tunnels(&self) -> bool {
        !self.table.borrow().tunnels.is_empty()
    }

    /// Ends babeld, which retracts its routes.
    pub fn end_babeld(&self) {
        self.end_babeld.do_send(EndBabeld);
    }

    /// Whether babeld is gone.
    pub fn babeld_ended(&self) -> bool {
        self.routing.reading().is_none_or(|babeld| babeld.pid.is_none())
    }

    /// Ends all OpenVPN processes.
    pub fn end_tunnels(&self) {
        self.end_all.do_send(EndAll);
    }

    /// Takes our port mappings off the gateway; gives up after a few seconds.
    pub async fn release_leases(&self) {
        let Some(keeper) = &self.leases else { return };
        match tokio::time::timeout(RELEASE, keeper.release()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %Chain(&error), "leases not released; they end by themselves")
            }
            Err(_) => tracing::warn!("the gateway did not answer; the leases end by themselves"),
        }
    }

    /// Whether all OpenVPN processes are gone.
    pub fn tunnels_ended(&self) -> bool {
        self.connections.all_ended()
    }
}
