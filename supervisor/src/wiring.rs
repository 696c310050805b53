//! Wires the actors: one function, read from top to bottom.
//!
//! Four ranks: source -> decider -> effect -> sink. What is last in the flow starts first, and is
//! handed to those before it; so a loop of addresses cannot be written.

use crate::parts::{
    Parts, babel_settings, credential_settings, document_settings, lease_settings, lower,
    planner_settings, private_endpoints, scout_settings, tunnel_settings,
};
use actix::Recipient;
use actors::{
    deciders::{
        policy::{Outlets, Policy},
        prober::{FEW_ROUTES, Prober, ProberSettings},
    },
    effects::{
        fallback_routes::FallbackRoutes,
        link_orders::Links,
        tunnels::{Connections, DrainAll, EndAll, Facts, Tunnels},
    },
    guardian::guard,
    messages::{ActorRestarted, Ordered},
    restart_lock::SharedTurn,
    sinks::telemetry::Telemetry,
    sources::{
        babeld::{Babeld, EndBabeld, RoutingProcess},
        candidate_prober::CandidateProber,
        credentials::Credentials,
        documents::Documents,
        peer_api::PeerApi,
        peer_cache::{CacheSettings, PeerCache},
        peer_discovery::PeerDiscovery,
        port_mapping::{PortMapping, gateway::DefaultGateway, keeper::Keeper},
        process_monitor::ProcessMonitor,
        registry_client::{RegistryClient, RegistrySettings},
        sampler::Sampler,
    },
    store::{AppliedVersions, SharedRouteView, TunnelTable},
};
use os::process::ChildEvents;
use policies::{planner::Planner, probe::Pace};
use std::{cell::RefCell, net::SocketAddrV6, rc::Rc, time::Duration};
use wire::errors::Chain;

/// Names of all guarded actors.
pub const ACTORS: [&str; 16] = [
    "telemetry",
    "tunnels",
    "policy",
    "prober",
    "peer_cache",
    "credentials",
    "documents",
    "peer_discovery",
    "candidate_prober",
    "peer_api",
    "registry_client",
    "port_mapping",
    "fallback_routes",
    "babeld",
    "process_monitor",
    "sampler",
];

/// A gateway that has not let go of our mappings by then is left alone; the leases are finite.
const RELEASE: Duration = Duration::from_secs(4);

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
    let Parts {
        settings,
        identity,
        host,
        paths,
        clock,
        kernel,
        sender,
        published,
        ..
    } = parts;
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
    let applied = AppliedVersions::default();
    let turn = SharedTurn::new(clock.clone());
    let links = Links::new(kernel.clone(), sender.clone(), identity.me);

    // Sinks.
    let telemetry = {
        let (clock, published) = (clock.clone(), published.clone());
        guard("telemetry", None, move || {
            Telemetry::new(clock.clone(), published.clone())
        })
    };
    let remade: Option<Recipient<ActorRestarted>> = Some(telemetry.clone().recipient());

    // Effects.
    let tunnels = {
        let facts = Facts {
            opened: telemetry.clone().recipient(),
            came_up: telemetry.clone().recipient(),
            closed: telemetry.clone().recipient(),
        };
        let (told, clock, table, connections, links) = (
            tunnel_settings(parts),
            clock.clone(),
            table.clone(),
            connections.clone(),
            links.clone(),
        );
        let (events, seed) = (ChildEvents::default(), fastrand::u64(..));
        let (held, applied) = (parts.held.clone(), applied.clone());
        let (turn, asker) = (turn.clone(), parts.asker.clone());
        guard("tunnels", remade.clone(), move || {
            Tunnels::new(
                told.clone(),
                clock.clone(),
                table.clone(),
                connections.clone(),
                links.clone(),
                facts.clone(),
                events.clone(),
                held.clone(),
                applied.clone(),
                turn.clone(),
                asker.clone(),
                seed,
            )
        })
    };

    // Deciders and what they are told by.
    let outlook = SharedRouteView::default();
    let policy = {
        let out = Outlets {
            orders: tunnels.clone().recipient(),
            drains: tunnels.clone().recipient(),
            decided: vec![telemetry.clone().recipient()],
        };
        let (told, me) = (planner_settings(parts), identity.me);
        let (lower, held, mode, outlook) = (
            lower(parts),
            parts.held.clone(),
            parts.mode,
            outlook.clone(),
        );
        guard("policy", remade.clone(), move || {
            let planner = Planner::new(me, told.clone());
            Policy::new(
                planner,
                lower,
                &held.load(),
                mode,
                outlook.clone(),
                out.clone(),
            )
        })
    };
    let prober = {
        let told = ProberSettings {
            me: identity.me,
            network: identity.network,
            pace: Pace::of(&identity.document.parameters(), FEW_ROUTES),
        };
        let (clock, orders) = (clock.clone(), tunnels.clone().recipient());
        let (losses, links) = (table.borrow().losses.clone(), links.clone());
        let readers = vec![policy.clone().recipient(), telemetry.clone().recipient()];
        guard("prober", remade.clone(), move || {
            let (links, orders) = (links.clone(), orders.clone());
            Prober::new(
                told,
                clock.clone(),
                losses.clone(),
                links,
                orders,
                readers.clone(),
            )
        })
    };
    let peers = parts.peers.clone();
    let peer_cache = {
        let told = CacheSettings {
            path: paths.peer_cache(),
            me: identity.me,
            network: identity.network,
            private: private_endpoints(parts),
            held: parts.held.clone(),
            lower: lower(parts),
        };
        let readers = vec![policy.clone().recipient(), telemetry.clone().recipient()];
        let (clock, table, peers) = (clock.clone(), table.clone(), peers.clone());
        guard("peer_cache", remade.clone(), move || {
            PeerCache::new(
                told.clone(),
                clock.clone(),
                table.clone(),
                peers.clone(),
                readers.clone(),
            )
        })
    };

    let credentials = {
        let changed = vec![tunnels.clone().recipient(), telemetry.clone().recipient()];
        let (told, clock, registry, asker, tls, held) = (
            credential_settings(parts),
            clock.clone(),
            parts.registry.clone(),
            parts.asker.clone(),
            parts.peer_tls.clone(),
            parts.held.clone(),
        );
        guard("credentials", remade.clone(), move || {
            Credentials::new(
                told.clone(),
                clock.clone(),
                registry.clone(),
                asker.clone(),
                tls.clone(),
                held.clone(),
                changed.clone(),
            )
        })
    };
    let scout = {
        let (told, held) = (scout_settings(parts), parts.held.clone());
        let (asker, clock, peers) = (parts.asker.clone(), clock.clone(), peers.clone());
        let (readers, sounded) = (
            vec![policy.clone().recipient()],
            telemetry.clone().recipient(),
        );
        guard("candidate_prober", remade.clone(), move || {
            let (clock, peers, asker, readers) =
                (clock.clone(), peers.clone(), asker.clone(), readers.clone());
            CandidateProber::new(
                told.clone(),
                &held.load(),
                clock,
                peers,
                asker,
                readers,
                sounded.clone(),
            )
        })
    };
    let documents = {
        let changed = vec![
            tunnels.clone().recipient(),
            credentials.recipient(),
            policy.clone().recipient(),
            prober.clone().recipient(),
            peer_cache.clone().recipient(),
            scout.clone().recipient(),
            telemetry.clone().recipient(),
        ];
        let (told, clock, registry, asker, held, node) = (
            document_settings(parts),
            clock.clone(),
            parts.registry.clone(),
            parts.asker.clone(),
            parts.held.clone(),
            parts.node.clone(),
        );
        guard("documents", remade.clone(), move || {
            Documents::new(
                told.clone(),
                clock.clone(),
                registry.clone(),
                asker.clone(),
                held.clone(),
                node.clone(),
                changed.clone(),
            )
        })
    };
    let peer_client = {
        let (asker, me, clock, peers) = (
            parts.asker.clone(),
            identity.me,
            clock.clone(),
            peers.clone(),
        );
        let heard = vec![peer_cache.clone().recipient()];
        guard("peer_discovery", remade.clone(), move || {
            PeerDiscovery::new(
                me,
                asker.clone(),
                clock.clone(),
                peers.clone(),
                heard.clone(),
            )
        })
    };
    {
        let address = SocketAddrV6::new(
            identity.network.node_address(identity.me),
            wire::peer::PORT,
            0,
            0,
        );
        let (tls, node, held) = (
            parts.peer_tls.clone(),
            parts.node.clone(),
            parts.held.clone(),
        );
        let api = PeerApi::new(
            address,
            tls,
            node,
            peers,
            held,
            documents.clone().recipient(),
            outlook,
            turn,
        );
        guard("peer_api", remade.clone(), move || api.clone());
    }

    // Sources.
    let registry_client = {
        let told = RegistrySettings {
            me: identity.me,
            network: identity.network,
            endpoints: settings.endpoints.clone(),
            servers: host.servers.clone(),
            private: private_endpoints(parts),
        };
        let (heard, asked) = (
            vec![peer_cache.clone().recipient()],
            vec![telemetry.clone().recipient()],
        );
        let (versions, applied) = (documents.clone().recipient(), applied.clone());
        let (registry, clock, kernel, node, peers) = (
            parts.registry.clone(),
            clock.clone(),
            kernel.clone(),
            parts.node.clone(),
            parts.peers.clone(),
        );
        guard("registry_client", remade.clone(), move || {
            RegistryClient::new(
                told.clone(),
                registry.clone(),
                clock.clone(),
                kernel.clone(),
                node.clone(),
                heard.clone(),
                asked.clone(),
                versions.clone(),
                applied.clone(),
                peers.clone(),
            )
        })
    };
    let wanted = settings.upnp && !host.servers.is_empty();
    let leases = wanted.then(|| Rc::new(Keeper::new(DefaultGateway, lease_settings(parts))));
    if let Some(keeper) = &leases {
        let readers = vec![
            registry_client.clone().recipient(),
            telemetry.clone().recipient(),
        ];
        let (keeper, clock) = (keeper.clone(), clock.clone());
        guard("port_mapping", remade.clone(), move || {
            PortMapping::new(keeper.clone(), clock.clone(), readers.clone())
        });
    }
    {
        let (range, kernel, sender, table) = (
            identity.network.range(),
            kernel.clone(),
            sender.clone(),
            table.clone(),
        );
        guard("fallback_routes", remade.clone(), move || {
            FallbackRoutes::new(range, kernel.clone(), sender.clone(), table.clone())
        });
    }
    let babeld = {
        let readers = vec![
            policy.clone().recipient(),
            tunnels.clone().recipient(),
            peer_cache.recipient(),
            peer_client.recipient(),
            documents.recipient(),
            telemetry.clone().recipient(),
        ];
        let (told, clock, kernel, links, table, routing) = (
            babel_settings(parts),
            clock.clone(),
            kernel.clone(),
            links.clone(),
            table.clone(),
            routing.clone(),
        );
        let (events, held, applied) = (ChildEvents::default(), parts.held.clone(), applied.clone());
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
                held.clone(),
                applied.clone(),
            )
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
        guard("process_monitor", remade.clone(), move || {
            ProcessMonitor::new(clock.clone(), call.clone(), to.clone())
        });
    }
    {
        let readers = vec![
            policy.recipient(),
            prober.recipient(),
            scout.recipient(),
            telemetry.recipient(),
        ];
        let (kernel, clock, table) = (kernel.clone(), clock.clone(), table.clone());
        guard("sampler", remade, move || {
            Sampler::new(
                kernel.clone(),
                clock.clone(),
                table.clone(),
                readers.clone(),
            )
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
        self.routing
            .reading()
            .is_none_or(|babeld| babeld.pid.is_none())
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
