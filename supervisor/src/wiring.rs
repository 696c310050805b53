//! Starts all actors and connects them, rank by rank: sinks first, sources last.
//! Messages flow from source to decider to effect to sink. An actor gets the addresses of its receivers when it is built, so the receivers are started before it, and no cycle can arise.

mod host;
mod peers;

use crate::actor_settings::{self as settings_of, Environment};
use crate::graph::Graph;
use actix::{Actor, Addr, Context, Handler, Message, Recipient, dev::ToEnvelope};
use actors::{
    deciders::{
        policy::{Outlets, Policy, PolicyDeps},
        prober::{Prober, ProberDeps},
    },
    effects::{
        link_orders::{LinkOrderDeps, LinkOrderQueue},
        tunnels::{Connections, Facts, Tunnels, TunnelsDeps},
    },
    guardian::{Guardian, guard},
    messages::ActorRestarted,
    sinks::telemetry::Telemetry,
    sources::{
        babeld::{Babeld, BabeldDeps, BabeldProcess},
        candidate_prober::{CandidateProber, CandidateProberDeps},
        credentials::{Credentials, CredentialsDeps},
        documents::{Documents, DocumentsDeps},
        hole_punching::HolePunching,
        peer_api::{PeerApi, PeerApiDeps},
        peer_cache::PeerCache,
        peer_discovery::{PeerDiscovery, PeerDiscoveryDeps},
        port_mapping::{PortMapping, PortMappingDeps},
        process_monitor::{ProcessMonitor, ProcessMonitorDeps},
        registry_client::{RegistryClient, RegistryClientDeps},
        sampler::{Sampler, SamplerDeps},
    },
    store::Store,
};
use host::HostActors;
use os::process::ChildEvents;
use std::rc::Rc;

/// The names of all guarded actors.
pub const ACTORS: [&str; 22] = [
    "telemetry",
    "tunnels",
    "policy",
    "prober",
    "peer_cache",
    "credentials",
    "candidate_prober",
    "documents",
    "peer_discovery",
    "lan_discovery",
    "endpoint_checks",
    "hole_punching",
    "peer_api",
    "registry_client",
    "port_mapping",
    "pinholes",
    "fallback_routes",
    "babeld_flusher",
    "host_reconciler",
    "babeld",
    "process_monitor",
    "sampler",
];

/// The address of an actor under its guardian.
type Guarded<A> = Addr<Guardian<A>>;

/// What the actors of one node are built from while they are being started.
struct Wiring<'a> {
    environment: &'a Environment<'a>,
    store: Store,
    connections: Connections,
    babeld_process: BabeldProcess,
    links: LinkOrderQueue,
    events: [ChildEvents; 2],
    telemetry: Guarded<Telemetry>,
}

/// Returns the address of an actor as a receiver of one kind of message.
fn to<A, M>(actor: &Guarded<A>) -> Recipient<M>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message<Result = ()> + Send + 'static,
{
    actor.clone().recipient()
}

/// Starts all actors, which go on with the processes that were handed over.
pub fn wire(environment: &Environment<'_>, processes: (Connections, BabeldProcess)) -> Graph {
    let wiring = Wiring::new(environment, processes);
    let tunnels = wiring.start_tunnels();
    let (policy, prober) = wiring.start_deciders(&tunnels);
    let sources = wiring.start_membership_sources(&tunnels, &policy, &prober);
    let (registry_client, leases) = wiring.start_endpoint_sources(&sources);
    let pinholes = wiring.start_pinholes();
    wiring.start_samplers(&policy, &prober, &sources.candidate_prober);
    let host = wiring.start_host_actors(&tunnels, &registry_client);
    let stop_babeld = to(&wiring.start_babeld(&tunnels, &host, &policy, &sources));
    let settings_readers = vec![to(&policy), to(&sources.peer_cache), to(&wiring.telemetry)];
    Graph {
        store: wiring.store,
        connections: wiring.connections,
        babeld_process: wiring.babeld_process,
        links: wiring.links,
        events: wiring.events,
        leases,
        pinholes,
        drain_all: to(&tunnels),
        stop_all: to(&tunnels),
        stop_babeld,
        settings_readers,
        operator_reader: to(&policy),
    }
}

/// Those of the membership sources to which other sources send messages.
struct MembershipSources {
    peer_cache: Guarded<PeerCache>,
    candidate_prober: Guarded<CandidateProber>,
    credentials: Guarded<Credentials>,
    documents: Guarded<Documents>,
    peer_discovery: Guarded<PeerDiscovery>,
    hole_punching: Guarded<HolePunching>,
}

impl<'a> Wiring<'a> {
    /// Prepares the store, and starts telemetry, to which all other actors report.
    fn new(
        environment: &'a Environment<'a>,
        (connections, babeld_process): (Connections, BabeldProcess),
    ) -> Self {
        let Environment { store, kernel, .. } = environment;
        store.tunnels.borrow_mut().dialling_slots = kernel.dialling_slots();
        let links = LinkOrderQueue::new(LinkOrderDeps {
            kernel: (*kernel).clone(),
            sender: environment.babel_socket.clone(),
            me: environment.identity.me,
            openvpn_uid: environment.host.openvpn_rights.uid,
            tunnels: store.tunnels.clone(),
        });
        let deps = settings_of::telemetry(environment);
        Self {
            environment,
            store: store.clone(),
            connections,
            babeld_process,
            links,
            events: Default::default(),
            telemetry: guard("telemetry", None, deps, Telemetry::new),
        }
    }

    fn guard<A, D>(&self, name: &'static str, deps: D, build: fn(D) -> A) -> Guarded<A>
    where
        A: Actor<Context = Context<A>>,
        D: Clone + 'static,
    {
        let restart_reader: Recipient<ActorRestarted> = to(&self.telemetry);
        guard(name, Some(restart_reader), deps, build)
    }

    fn start_tunnels(&self) -> Guarded<Tunnels> {
        let [openvpn, _] = &self.events;
        let deps = TunnelsDeps {
            settings: settings_of::tunnels(self.environment),
            store: self.store.clone(),
            connections: self.connections.clone(),
            links: self.links.clone(),
            facts: Facts {
                opened: to(&self.telemetry),
                came_up: to(&self.telemetry),
                closed: to(&self.telemetry),
                decided: to(&self.telemetry),
                overdue: to(&self.telemetry),
                key_shared: to(&self.telemetry),
            },
            events: openvpn.clone(),
            peers: self.environment.peers.clone(),
            seed: self.store.random.bits(),
        };
        self.guard("tunnels", deps, Tunnels::new)
    }

    fn start_deciders(&self, tunnels: &Guarded<Tunnels>) -> (Guarded<Policy>, Guarded<Prober>) {
        let deps = PolicyDeps {
            me: self.environment.identity.me,
            parameters: self.environment.identity.document.parameters(),
            seed: self.store.random.bits(),
            store: self.store.clone(),
            out: Outlets {
                orders: to(tunnels),
                drains: to(tunnels),
                decided: vec![to(&self.telemetry)],
                suspected: to(&self.telemetry),
            },
        };
        let policy = self.guard("policy", deps, Policy::new);
        let deps = ProberDeps {
            settings: settings_of::prober(self.environment),
            store: self.store.clone(),
            links: self.links.clone(),
            orders: to(tunnels),
            readers: vec![to(&policy), to(&self.telemetry)],
        };
        (policy, self.guard("prober", deps, Prober::new))
    }

    /// Starts the actors that keep peers, credentials and documents current, and the peer API.
    fn start_membership_sources(
        &self,
        tunnels: &Guarded<Tunnels>,
        policy: &Guarded<Policy>,
        prober: &Guarded<Prober>,
    ) -> MembershipSources {
        let peer_cache = self.start_peer_cache(policy);
        let credentials = self.start_credentials(tunnels);
        let candidate_prober = self.start_candidate_prober(policy);
        let deps = DocumentsDeps {
            settings: settings_of::documents(self.environment),
            store: self.store.clone(),
            registry: self.environment.registry.clone(),
            peers: self.environment.peers.clone(),
            readers: vec![
                to(tunnels),
                to(&credentials),
                to(policy),
                to(prober),
                to(&peer_cache),
                to(&candidate_prober),
                to(&self.telemetry),
            ],
        };
        let documents = self.guard("documents", deps, Documents::new);
        let deps = PeerDiscoveryDeps {
            me: self.environment.identity.me,
            store: self.store.clone(),
            peers: self.environment.peers.clone(),
            readers: vec![to(&peer_cache)],
        };
        let peer_discovery = self.guard("peer_discovery", deps, PeerDiscovery::new);
        self.start_lan_discovery(&peer_cache);
        let hole_punching = self.start_hole_punching();
        let deps = PeerApiDeps {
            address: settings_of::peer_api_address(self.environment),
            store: self.store.clone(),
            server_tls: self.environment.server_tls.clone(),
            offered: to(&documents),
            punch_settings: settings_of::hole_punching(self.environment),
            peers: self.environment.peers.clone(),
            find_next_hop: settings_of::find_next_hop(self.environment),
        };
        self.guard("peer_api", deps, PeerApi::new);
        MembershipSources {
            peer_cache,
            candidate_prober,
            credentials,
            documents,
            peer_discovery,
            hole_punching,
        }
    }

    fn start_credentials(&self, tunnels: &Guarded<Tunnels>) -> Guarded<Credentials> {
        let deps = CredentialsDeps {
            settings: settings_of::credentials(self.environment),
            store: self.store.clone(),
            server_tls: self.environment.server_tls.clone(),
            registry: self.environment.registry.clone(),
            peers: self.environment.peers.clone(),
            readers: vec![to(tunnels), to(&self.telemetry)],
        };
        self.guard("credentials", deps, Credentials::new)
    }

    fn start_candidate_prober(&self, policy: &Guarded<Policy>) -> Guarded<CandidateProber> {
        let deps = CandidateProberDeps {
            settings: settings_of::candidate_prober(self.environment),
            store: self.store.clone(),
            peers: self.environment.peers.clone(),
            readers: vec![to(policy)],
            outcomes: to(&self.telemetry),
        };
        self.guard("candidate_prober", deps, CandidateProber::new)
    }

    /// Starts the actors that make the node reachable: announcements at the registry, and port mappings.
    fn start_endpoint_sources(
        &self,
        sources: &MembershipSources,
    ) -> (
        Guarded<RegistryClient>,
        Option<Rc<settings_of::LeaseKeeper>>,
    ) {
        let deps = RegistryClientDeps {
            settings: settings_of::registry_client(self.environment),
            store: self.store.clone(),
            registry: self.environment.registry.clone(),
            kernel: self.environment.kernel.clone(),
            peers_to: to(&sources.peer_cache),
            contacts_to: to(&self.telemetry),
            versions_to: to(&sources.documents),
            renewals_to: to(&sources.credentials),
            endpoints_to: to(&self.telemetry),
        };
        let registry_client = self.guard("registry_client", deps, RegistryClient::new);
        self.start_endpoint_checks(&registry_client);
        let Some(keeper) = settings_of::lease_keeper(self.environment) else {
            return (registry_client, None);
        };
        let deps = PortMappingDeps {
            keeper: keeper.clone(),
            store: self.store.clone(),
            readers: vec![to(&registry_client), to(&self.telemetry)],
        };
        self.guard("port_mapping", deps, PortMapping::new);
        (registry_client, Some(keeper))
    }

    fn start_babeld(
        &self,
        tunnels: &Guarded<Tunnels>,
        host: &HostActors,
        policy: &Guarded<Policy>,
        sources: &MembershipSources,
    ) -> Guarded<Babeld> {
        let [_, babeld] = &self.events;
        let deps = BabeldDeps {
            settings: settings_of::babeld(self.environment),
            store: self.store.clone(),
            kernel: self.environment.kernel.clone(),
            links: self.links.clone(),
            process: self.babeld_process.clone(),
            events: babeld.clone(),
            claims_to: to(policy),
            readers: vec![
                to(policy),
                to(tunnels),
                to(&host.fallback_routes),
                to(&host.reconciler),
                to(&sources.peer_cache),
                to(&sources.peer_discovery),
                to(&sources.hole_punching),
                to(&sources.documents),
                to(&self.telemetry),
            ],
        };
        self.guard("babeld", deps, Babeld::new)
    }

    /// Starts the actors that read the counters of all links and the states of all processes.
    fn start_samplers(
        &self,
        policy: &Guarded<Policy>,
        prober: &Guarded<Prober>,
        candidate_prober: &Guarded<CandidateProber>,
    ) {
        let deps = ProcessMonitorDeps {
            store: self.store.clone(),
            babeld: self.babeld_process.clone(),
            connections: self.connections.clone(),
            sockets: settings_of::openvpn_sockets(self.environment),
            reader: to(&self.telemetry),
        };
        self.guard("process_monitor", deps, ProcessMonitor::new);
        let deps = SamplerDeps {
            links: self.environment.kernel.clone(),
            store: self.store.clone(),
            readers: vec![
                to(policy),
                to(prober),
                to(candidate_prober),
                to(&self.telemetry),
            ],
        };
        self.guard("sampler", deps, Sampler::new);
    }
}
