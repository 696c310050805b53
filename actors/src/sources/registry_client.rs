//! Announces this node's endpoints to the registry, and requests peers from it.
//!
//! The registry is the bootstrap node of last resort. It is asked for peers at the start and when the last tunnel is lost, then at
//! growing intervals, and after each announcement. If it does not answer, that is reported and changes nothing else.

mod announcements;
mod contacts;
mod delays;
mod endpoint_selection;
mod isolation;
mod uplinks;

use crate::store::Store;
use crate::{
    live_settings::SharedLiveSettings,
    mailboxes::offer,
    messages::{
        EndpointSource, LeasesRead, OwnEndpointsRead, PeerSource, PeersReported, RegistryContacted,
        RenewalRequested, UplinkRestored, VersionsReported,
    },
    store::{AppliedVersions, SharedCandidates, TunnelTable},
};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use delays::CallDelays;
use membership::{
    documents::PrivateEndpoints,
    peer_api::{PeerReport, SharedNodeDocument},
    registry_api::{RegistryApiClient, RegistryApiError},
};
use os::randomness::Randomness;
use os::{
    clock::Clock,
    kernel::{Kernel, UplinkAddress},
};
use policies::{endpoint_checks::Reachability, route_checks::Members};
use policies::{
    names::{Endpoint, Prefix, Transport},
    observation::Candidate,
    units::Uptime,
};
use reqwest::Method;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};
use wire::errors::Chain;
use wire::{
    endpoints::dialable,
    overlay::Network,
    peer::NodeDocument,
    registry::{Announced, Announcement, Bootstrap, Node, VERSION},
};

/// Interval between checks whether a call is due. After an answer this is checked at once.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Number of peers that a request asks for.
const REQUESTED_PEERS: usize = 16;

/// Maximum interval between two announcements; a third of the lifetime that the registry grants if that is shorter.
const MAX_ANNOUNCE_INTERVAL: Duration = Duration::from_secs(300);

/// Minimum interval between two warnings about a registry that does not answer.
const WARNING_INTERVAL: Duration = Duration::from_secs(600);

/// Span over which nodes spread at random the announcement of new document versions.
const EARLY_ANNOUNCE_WINDOW: Duration = Duration::from_secs(3);

/// Number of failed dials in a row after which a peer is reported to the registry.
const UNREACHABLE_FAILURES: u32 = 3;

/// Maximum age of the last failed dial of a peer that is reported to the registry.
const MAX_FAILURE_AGE: Duration = Duration::from_secs(600);

/// Interval at which the addresses of the host's uplinks are read.
const ADDRESS_READ_INTERVAL: Duration = Duration::from_secs(30);

/// The settings of the registry client.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// This node, which is never its own peer.
    pub me: Prefix,
    /// The network; endpoints inside its range are dropped.
    pub network: Network,
    /// The transports and ports at which this node accepts tunnels.
    pub ports: Vec<(Transport, u16)>,
    /// Decides whether endpoints with private addresses are announced; this actor keeps its view of the surroundings current.
    pub private: PrivateEndpoints,
}

/// The dependencies of the registry client.
#[derive(Clone)]
pub struct RegistryClientDeps {
    /// This node, its servers and configured endpoints.
    pub settings: RegistrySettings,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The client that makes the calls.
    pub registry: RegistryApiClient,
    /// The kernel, which lists the addresses of uplinks.
    pub kernel: Kernel,
    /// The receiver of bootstrap peers.
    pub peers_to: Recipient<PeersReported>,
    /// The receiver of the outcome of each call.
    pub contacts_to: Recipient<RegistryContacted>,
    /// The receiver of the document versions that the registry reports.
    pub versions_to: Recipient<VersionsReported>,
    /// The receiver of requests to renew the certificate.
    pub renewals_to: Recipient<RenewalRequested>,
    /// The receiver of the endpoints that this node announces.
    pub endpoints_to: Recipient<OwnEndpointsRead>,
}

/// The actor that talks to the registry.
pub struct RegistryClient {
    settings: RegistrySettings,
    registry: RegistryApiClient,
    clock: Clock,
    random: Randomness,
    kernel: Kernel,
    /// The document about this node, which the peer API serves; this actor keeps its endpoints current.
    node_document: SharedNodeDocument,
    peer_readers: Vec<Recipient<PeersReported>>,
    contact_readers: Vec<Recipient<RegistryContacted>>,
    version_reader: Recipient<VersionsReported>,
    renewal_reader: Recipient<RenewalRequested>,
    endpoints_to: Recipient<OwnEndpointsRead>,
    applied: AppliedVersions,
    members: Rc<Cell<Option<Members>>>,
    live_settings: SharedLiveSettings,
    peers: SharedCandidates,
    tunnels: Rc<RefCell<TunnelTable>>,
    /// Whether a tunnel of this node was up at the last check.
    had_tunnel: bool,
    leases: Vec<Endpoint>,
    /// What other nodes found of this node's endpoints.
    reachability: BTreeMap<Endpoint, Reachability>,
    /// The endpoints at the host's addresses, and whether each is on a main uplink.
    uplinks: BTreeMap<Endpoint, bool>,
    addresses_read_at: Option<Uptime>,
    /// The last announcement that the registry accepted, without unreachable peers.
    last_announcement: Option<Announcement>,
    /// The endpoints of the last announcement, unless the registry accepted it. They are sent again after a growing delay.
    failed_endpoints: Option<Vec<Endpoint>>,
    announce_at: Uptime,
    request_peers_at: Uptime,
    delays: CallDelays,
    /// The number of nodes whose private endpoints the registry does not show; `None` before its first answer.
    hidden_nodes: Option<u32>,
    /// The number of other nodes in the registry's last answer; `None` before its first one.
    listed_peers: Option<usize>,
    /// The address of another machine that announces itself with this node's certificate, by the registry's last answer.
    other_machine: Option<IpAddr>,
    /// The number by which the registry distinguishes this daemon from another one with the same certificate; never 0.
    instance: u64,
    is_calling: bool,
    /// The time of the last warning that the registry does not answer; `None` once it has answered.
    warned_at: Option<Uptime>,
    /// Whether the next announcement was moved forward because of new document versions.
    is_early_announcement_due: bool,
}

impl RegistryClient {
    /// Builds the actor; it calls the registry as soon as it starts.
    pub fn new(deps: RegistryClientDeps) -> Self {
        let RegistryClientDeps {
            settings,
            store,
            registry,
            kernel,
            peers_to,
            contacts_to,
            versions_to: version_reader,
            renewals_to: renewal_reader,
            endpoints_to,
        } = deps;
        let (peer_readers, contact_readers) = (vec![peers_to], vec![contacts_to]);
        let Store {
            clock,
            random,
            node_document,
            applied,
            members,
            candidates: peers,
            tunnels,
            settings: live_settings,
            ..
        } = store;

        let now = clock.now();
        // JSON numbers are exact up to 53 bits.
        let instance = (random.bits() >> 11).max(1);
        Self {
            settings,
            registry,
            clock,
            random,
            kernel,
            node_document,
            peer_readers,
            contact_readers,
            version_reader,
            renewal_reader,
            endpoints_to,
            applied,
            members,
            live_settings,
            peers,
            tunnels,
            had_tunnel: false,
            leases: Vec::new(),
            reachability: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            addresses_read_at: None,
            last_announcement: None,
            failed_endpoints: None,
            announce_at: now,
            request_peers_at: now,
            delays: CallDelays::default(),
            hidden_nodes: None,
            listed_peers: None,
            other_machine: None,
            instance,
            is_calling: false,
            warned_at: None,
            is_early_announcement_due: false,
        }
    }

    /// Starts the one call that is most due, if none is in flight.
    fn call_if_due(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        if self
            .addresses_read_at
            .is_none_or(|at| now.since(at) >= ADDRESS_READ_INTERVAL)
        {
            self.addresses_read_at = Some(now);
            return self.read_addresses(ctx);
        }
        if self.is_calling {
            return;
        }
        let announcement = self.build_announcement();
        if let Some(last) = &self.last_announcement {
            if last.endpoints != announcement.endpoints {
                if self.failed_endpoints.as_ref() != Some(&announcement.endpoints) {
                    self.announce_at = now;
                }
            } else if *last != announcement && !self.is_early_announcement_due {
                // All nodes get a new document at the same time, so they spread their announcements.
                self.is_early_announcement_due = true;
                self.announce_at = self
                    .announce_at
                    .min(now + EARLY_ANNOUNCE_WINDOW.mul_f64(self.random.fraction()));
            }
        }
        self.note_isolation(now);
        if self.announce_at <= now {
            self.send_announcement(announcement, ctx);
        } else if self.request_peers_at <= now {
            self.request_peers(ctx);
        }
    }

    fn request_peers(&mut self, ctx: &mut Context<Self>) {
        self.is_calling = true;
        let registry = self.registry.clone();
        let call = async move {
            registry
                .get::<Bootstrap>(&format!("/v1/bootstrap?count={REQUESTED_PEERS}"))
                .await
        };
        ctx.spawn(call.into_actor(self).map(|answer, client, ctx| {
            client.handle_peers(answer);
            client.call_if_due(ctx);
        }));
    }

    fn handle_peers(&mut self, answer: Result<Bootstrap, RegistryApiError>) {
        self.is_calling = false;
        let at = self.clock.now();
        let delay = match answer {
            Ok(_) => self.delays.after_answered_request(),
            Err(_) => self.delays.after_failure(),
        };
        self.request_peers_at = at + self.random.around(delay);
        match answer {
            Ok(bootstrap) => {
                let RegistrySettings { me, network, .. } = self.settings;
                let others = bootstrap.nodes.iter().filter(|node| node.prefix != me);
                let listed = others.count();
                let peers = peer_reports(bootstrap.nodes, me, network);
                let reported = PeersReported {
                    at,
                    source: PeerSource::Registry,
                    peers,
                };
                self.peer_readers
                    .iter()
                    .for_each(|reader| reader.do_send(reported.clone()));
                self.report_versions(bootstrap.network_version, bootstrap.revocations_version);
                self.listed_peers = Some(listed);
                self.log_hidden_nodes(bootstrap.hidden_nodes);
                self.report_contact(None);
            }
            Err(error) => self.report_contact(Some(&error)),
        }
    }
}

/// Returns the peers of an answer with the endpoints that some node could dial, at most as many as were requested.
fn peer_reports(nodes: Vec<Node>, me: Prefix, network: Network) -> Vec<PeerReport> {
    let is_dialable = |endpoint: &Endpoint| dialable(*endpoint, network, true).is_ok();
    let others = nodes.into_iter().filter(|node| node.prefix != me);
    let peers = others.map(|node| PeerReport {
        peer: node.prefix,
        endpoints: node.endpoints.into_iter().filter(is_dialable).collect(),
        transit_cost: None,
    });
    peers
        .filter(|peer| !peer.endpoints.is_empty())
        .take(REQUESTED_PEERS)
        .collect()
}

/// Returns peers that recently could not be dialled several times in a row. Returns none if these are more than half of all
/// peers, since then the fault is probably on this node's side.
fn unreachable_peers(candidates: &[Candidate], now: Uptime) -> Vec<Prefix> {
    let is_recent = |failed: Uptime| now.since(failed) < MAX_FAILURE_AGE;
    let failing = candidates
        .iter()
        .filter(|candidate| candidate.failures >= UNREACHABLE_FAILURES);
    let unreachable: Vec<_> = failing
        .filter(|candidate| candidate.failed_at.is_some_and(is_recent))
        .collect();
    if unreachable.len().saturating_mul(2) > candidates.len() {
        return Vec::new();
    }
    unreachable
        .iter()
        .map(|candidate| candidate.peer)
        .take(wire::text::FEW)
        .collect()
}

impl Actor for RegistryClient {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.call_if_due(ctx);
        ctx.run_interval(CHECK_INTERVAL, Self::call_if_due);
    }
}

impl Handler<LeasesRead> for RegistryClient {
    type Result = ();

    fn handle(&mut self, reading: LeasesRead, _: &mut Self::Context) {
        let endpoint = |lease: &crate::messages::Lease| Endpoint {
            address: lease.external,
            transport: lease.transport,
        };
        self.leases = reading.leases.iter().map(endpoint).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks how many of `peer_count` peers are reported as unreachable. `failing` holds the number of failures of the first
    /// peers, and the seconds since the last failure.
    #[track_caller]
    fn check(peer_count: u32, failing: &[(u32, u64)], reported: usize) {
        let candidate = |number: u32| {
            let failing = failing.get(usize::try_from(number).unwrap());
            Candidate {
                peer: Prefix::new(number, 16).unwrap(),
                endpoints: Vec::new(),
                on_lan: 0,
                confirmed_at: None,
                failed_at: failing.map(|(_, ago)| Uptime::from_secs(10_000 - ago)),
                failures: failing.map_or(0, |(failures, _)| *failures),
                transit_cost: 0,
            }
        };
        let candidates: Vec<_> = (0..peer_count).map(candidate).collect();
        assert_eq!(
            unreachable_peers(&candidates, Uptime::from_secs(10_000)).len(),
            reported
        );
    }

    #[test]
    fn at_most_the_requested_number_of_peers_is_taken_from_an_answer_and_only_dialable_ones() {
        let node = |number: u32, endpoint: &str| Node {
            prefix: Prefix::new(number, 16).unwrap(),
            endpoints: vec![endpoint.parse().unwrap()],
        };
        let mut nodes = vec![node(1, "udp:45.67.0.1:1194"), node(2, "udp:127.0.0.1:1194")];
        nodes.extend((3..100).map(|number| node(number, "udp:45.67.0.2:1194")));
        let network = Network::new("2001:db8:42::/48".parse().unwrap()).unwrap();
        let peers = peer_reports(nodes, Prefix::new(1, 16).unwrap(), network);
        let numbers: Vec<_> = peers.iter().map(|report| report.peer.number()).collect();
        assert_eq!(numbers, (3..19).collect::<Vec<_>>());
    }

    #[test]
    fn a_peer_is_reported_as_unreachable_after_three_recent_failures() {
        check(4, &[(2, 10)], 0);
        check(4, &[(3, 10)], 1);
        check(4, &[(3, 600)], 0);
    }

    #[test]
    fn a_node_that_fails_to_dial_most_peers_reports_none() {
        check(4, &[(3, 10), (3, 10)], 2);
        check(4, &[(3, 10), (3, 10), (3, 10)], 0);
    }

    #[test]
    fn the_number_of_reported_peers_is_limited() {
        check(1000, &[(3, 10); 400], wire::text::FEW);
    }
}
