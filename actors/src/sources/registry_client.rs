//! Announces at the registry where this node can be dialled, and asks it for peers.
//!
//! The registry is the bootstrap node of last resort: it is asked at the start, then less and less
//! often, and with each announcement. Its absence is reported and changes nothing else.

mod announcements;

use crate::store::Store;
use crate::{
    messages::{LeasesRead, PeerSource, PeersReported, RegistryContacted, VersionsReported, offer},
    store::{AppliedVersions, SharedCandidates},
};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use membership::{
    documents::PrivateEndpoints,
    peer_api::{PeerReport, SharedNodeDocument},
    registry_api::{RegistryApiClient, RegistryApiError},
};
use os::randomness::Randomness;
use os::{clock::Clock, kernel::Kernel};
use policies::{
    names::{Endpoint, Prefix, Transport},
    observation::Candidate,
    units::Uptime,
};
use reqwest::Method;
use std::{collections::BTreeSet, net::SocketAddr, time::Duration};
use wire::errors::Chain;
use wire::{
    endpoints::dialable,
    overlay::Network,
    peer::NodeDocument,
    registry::{Announced, Announcement, Bootstrap, Node, VERSION},
};

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_millis(250);

/// The first wait between two questions, ± 50 %; it doubles.
const FIRST: Duration = Duration::from_secs(1);

/// The longest wait.
const LAST: Duration = Duration::from_secs(60);

/// Peers asked for at once.
const COUNT: usize = 16;

/// Renewed at a third of the life that the registry gave; this long where it gave none yet.
const ANNOUNCE: Duration = Duration::from_secs(300);

/// A registry that stays away is logged this often.
const COMPLAIN: Duration = Duration::from_secs(600);

/// New versions that we hold are announced within this.
const SPREAD: Duration = Duration::from_secs(3);

/// Number of failed dials in a row after which a peer is reported to the registry.
const UNDIALLED_FAILURES: u32 = 3;

/// Failed dials before this span do not count.
const UNDIALLED_LATELY: Duration = Duration::from_secs(600);

/// Our uplinks' addresses are read again this often.
const ADDRESSES: Duration = Duration::from_secs(30);

/// The settings of the registry client.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// Who we are: never a peer of our own.
    pub me: Prefix,
    /// Endpoints inside it are never taken.
    pub network: Network,
    /// Endpoints that the operator knows better.
    pub endpoints: Vec<Endpoint>,
    /// The transports and ports of our servers.
    pub servers: Vec<(Transport, u16)>,
    /// Announce and believe private addresses.
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
}

/// The actor that talks to the registry.
pub struct RegistryClient {
    settings: RegistrySettings,
    registry: RegistryApiClient,
    clock: Clock,
    random: Randomness,
    kernel: Kernel,
    /// The document about this node, which the peer API shows; this actor keeps its endpoints
    /// current.
    node: SharedNodeDocument,
    peer_readers: Vec<Recipient<PeersReported>>,
    asked: Vec<Recipient<RegistryContacted>>,
    versions: Recipient<VersionsReported>,
    applied: AppliedVersions,
    peers: SharedCandidates,
    leases: Vec<Endpoint>,
    uplinks: Vec<Endpoint>,
    looked: Option<Uptime>,
    announced: Option<Announcement>,
    announce_at: Uptime,
    ask_at: Uptime,
    wait: Duration,
    busy: bool,
    /// The time at which the log last reported that the registry is away.
    complained: Option<Uptime>,
    /// An announcement for the sake of what we hold is near.
    hurries: bool,
}

impl RegistryClient {
    /// Asks `registry` as soon as it starts.
    pub fn new(deps: RegistryClientDeps) -> Self {
        let RegistryClientDeps {
            settings,
            store,
            registry,
            kernel,
            peers_to,
            contacts_to,
            versions_to: versions,
        } = deps;
        let (peer_readers, asked) = (vec![peers_to], vec![contacts_to]);
        let Store {
            clock,
            random,
            node_document: node,
            applied,
            candidates: peers,
            ..
        } = store;

        let now = clock.now();
        Self {
            settings,
            registry,
            clock,
            random,
            kernel,
            node,
            peer_readers,
            asked,
            versions,
            applied,
            peers,
            leases: Vec::new(),
            uplinks: Vec::new(),
            looked: None,
            announced: None,
            announce_at: now,
            ask_at: now,
            wait: FIRST,
            busy: false,
            complained: None,
            hurries: false,
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        if self
            .looked
            .is_none_or(|looked| now.since(looked) >= ADDRESSES)
        {
            self.looked = Some(now);
            return self.look(ctx);
        }
        if self.busy {
            return;
        }
        let announcement = self.announcement();
        if let Some(announced) = &self.announced {
            if announced.endpoints != announcement.endpoints {
                self.announce_at = now;
            } else if *announced != announcement && !self.hurries {
                // All nodes get a new document at once, so they spread their announcements.
                self.hurries = true;
                self.announce_at = self
                    .announce_at
                    .min(now + SPREAD.mul_f64(self.random.fraction()));
            }
        }
        if self.announce_at <= now {
            self.announce(announcement, ctx);
        } else if self.ask_at <= now {
            self.ask(ctx);
        }
    }

    /// Reads the addresses of our uplinks.
    fn look(&self, ctx: &mut Context<Self>) {
        let kernel = self.kernel.clone();
        let read = async move { kernel.addresses().await };
        ctx.spawn(read.into_actor(self).map(|read, client, _| match read {
            Ok(addresses) => {
                let servers = client.settings.servers.clone();
                let each = addresses.iter().flat_map(|found| {
                    servers.iter().map(|(transport, port)| Endpoint {
                        address: SocketAddr::new(found.address, *port),
                        transport: *transport,
                    })
                });
                client.uplinks = each.collect();
            }
            Err(error) => tracing::warn!(error = %Chain(&error), "uplinks not read"),
        }));
    }

    fn ask(&mut self, ctx: &mut Context<Self>) {
        self.busy = true;
        let registry = self.registry.clone();
        let call = async move {
            registry
                .get::<Bootstrap>(&format!("/v1/bootstrap?count={COUNT}"))
                .await
        };
        ctx.spawn(
            call.into_actor(self)
                .map(|answer, client, _| client.answered(answer)),
        );
    }

    fn answered(&mut self, answer: Result<Bootstrap, RegistryApiError>) {
        self.busy = false;
        let at = self.clock.now();
        self.ask_at = at + self.next_wait();
        match answer {
            Ok(bootstrap) => {
                let RegistrySettings {
                    me,
                    network,
                    private,
                    ..
                } = &self.settings;
                let peers = named(bootstrap.nodes, *me, *network, private.allowed());
                let reported = PeersReported {
                    at,
                    source: PeerSource::Registry,
                    peers,
                };
                self.peer_readers
                    .iter()
                    .for_each(|to| to.do_send(reported.clone()));
                self.versions(bootstrap.network_version, bootstrap.revocations_version);
                self.report_contact(None);
            }
            Err(error) => self.report_contact(Some(Chain(&error).to_string())),
        }
    }

    fn versions(&self, network: u64, revocations: u64) {
        offer(
            &self.versions,
            VersionsReported {
                network,
                revocations,
            },
        );
    }

    /// This wait ± 50 %; the next one is twice as long.
    fn next_wait(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(LAST);
        self.random.around(wait)
    }

    fn report_contact(&mut self, failure: Option<String>) {
        let at = self.clock.now();
        match &failure {
            Some(failure)
                if self
                    .complained
                    .is_none_or(|last| at.since(last) >= COMPLAIN) =>
            {
                self.complained = Some(at);
                tracing::warn!(failure, "the registry is away; the node goes on without");
            }
            Some(failure) => tracing::debug!(failure, "the registry is still away"),
            None if self.complained.take().is_some() => {
                tracing::info!("the registry answers again")
            }
            None => tracing::debug!("registry answered"),
        }
        let asked = RegistryContacted { at, failure };
        self.asked.iter().for_each(|to| offer(to, asked.clone()));
    }
}

/// Returns the peers of an answer with their endpoints: no more than were asked for.
fn named(nodes: Vec<Node>, me: Prefix, network: Network, private: bool) -> Vec<PeerReport> {
    let good = |endpoint: &Endpoint| dialable(*endpoint, network, private).is_ok();
    let others = nodes.into_iter().filter(|node| node.prefix != me);
    let peers = others.map(|node| PeerReport {
        peer: node.prefix,
        endpoints: node.endpoints.into_iter().filter(good).collect(),
        transit_cost: None,
    });
    peers
        .filter(|peer| !peer.endpoints.is_empty())
        .take(COUNT)
        .collect()
}

/// Returns peers of which every endpoint was tried in vain lately, several times. Returns none if
/// that holds for most peers, since then this node itself is unreachable.
fn undialled(candidates: &[Candidate], now: Uptime) -> Vec<Prefix> {
    let lately = |failed: Uptime| now.since(failed) < UNDIALLED_LATELY;
    let failing = candidates
        .iter()
        .filter(|candidate| candidate.failures >= UNDIALLED_FAILURES);
    let lately: Vec<_> = failing
        .filter(|candidate| candidate.failed_at.is_some_and(lately))
        .collect();
    if lately.len().saturating_mul(2) > candidates.len() {
        return Vec::new();
    }
    lately
        .iter()
        .map(|candidate| candidate.peer)
        .take(wire::text::FEW)
        .collect()
}

impl Actor for RegistryClient {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK, Self::tick);
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

    /// Returns how many of `all` peers, with these (failures, seconds since the last), are
    /// reported.
    #[track_caller]
    fn check(all: u32, failing: &[(u32, u64)], reported: usize) {
        let candidate = |number: u32| {
            let failing = failing.get(usize::try_from(number).unwrap());
            Candidate {
                peer: Prefix::new(number, 16).unwrap(),
                endpoints: Vec::new(),
                confirmed_at: None,
                failed_at: failing.map(|(_, ago)| Uptime::from_secs(10_000 - ago)),
                failures: failing.map_or(0, |(failures, _)| *failures),
                transit_cost: 0,
            }
        };
        let candidates: Vec<_> = (0..all).map(candidate).collect();
        assert_eq!(
            undialled(&candidates, Uptime::from_secs(10_000)).len(),
            reported
        );
    }

    #[test]
    fn an_answer_brings_no_more_than_was_asked_for_and_nobody_who_cannot_be_dialled() {
        let node = |number: u32, endpoint: &str| Node {
            prefix: Prefix::new(number, 16).unwrap(),
            endpoints: vec![endpoint.parse().unwrap()],
        };
        let mut nodes = vec![node(1, "udp:45.67.0.1:1194"), node(2, "udp:127.0.0.1:1194")];
        nodes.extend((3..100).map(|number| node(number, "udp:45.67.0.2:1194")));
        let network = Network::new("2001:db8:42::/48".parse().unwrap()).unwrap();
        let peers = named(nodes, Prefix::new(1, 16).unwrap(), network, false);
        let numbers: Vec<_> = peers.iter().map(|named| named.peer.number()).collect();
        assert_eq!(numbers, (3..19).collect::<Vec<_>>());
    }

    #[test]
    fn a_peer_that_could_not_be_dialled_repeatedly_is_reported() {
        check(4, &[(2, 10)], 0);
        check(4, &[(3, 10)], 1);
        check(4, &[(3, 600)], 0);
    }

    #[test]
    fn a_node_that_can_dial_hardly_any_peer_reports_none() {
        check(4, &[(3, 10), (3, 10)], 2);
        check(4, &[(3, 10), (3, 10), (3, 10)], 0);
    }

    #[test]
    fn no_more_are_reported_than_an_announcement_takes() {
        check(1000, &[(3, 10); 400], wire::text::FEW);
    }
}
