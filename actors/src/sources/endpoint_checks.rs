//! Asks neighbours whether the endpoints that this node announces answer, seen from where they are.
//!
//! A neighbour on a LAN of this host, or behind the same public address, proves nothing: its packets do not come from outside. Only
//! public endpoints are checked.

use crate::{
    mailboxes::offer,
    messages::EndpointsChecked,
    store::{SharedCandidates, Store, TunnelTable},
};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Recipient, WrapFuture};
use membership::{
    documents::is_private,
    peer_api::{PeerApiClient, PeerApiError, SharedNodeDocument},
};
use os::{clock::Clock, randomness::Randomness};
use policies::{
    endpoint_checks::{CheckOutcome, EndpointChecks},
    names::{Endpoint, Prefix},
    observation::{Phase, TunnelReading},
    units::Uptime,
};
use reqwest::StatusCode;
use std::{cell::RefCell, collections::BTreeMap, net::IpAddr, rc::Rc, time::Duration};
use wire::{endpoints::class_of, errors::Chain, peer::MAX_CHECKED_ENDPOINTS};

/// Interval at which it is seen whether a check is due.
const TICK_INTERVAL: Duration = Duration::from_secs(2);
/// Time for which a neighbour is not asked again: a little more than the interval at which it answers.
const REST: Duration = Duration::from_secs(15);
/// The same after a rejected call, such as to a node whose software has no such call.
const REST_AFTER_REJECTION: Duration = Duration::from_secs(600);

/// The dependencies of the endpoint checks.
#[derive(Clone)]
pub struct EndpointCheckDeps {
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The client of the peer API.
    pub peers: PeerApiClient,
    /// The receivers of each reading.
    pub readers: Vec<Recipient<EndpointsChecked>>,
}

/// The actor that has endpoints checked.
pub struct EndpointChecker {
    clock: Clock,
    random: Randomness,
    node_document: SharedNodeDocument,
    candidates: SharedCandidates,
    tunnels: Rc<RefCell<TunnelTable>>,
    peers: PeerApiClient,
    readers: Vec<Recipient<EndpointsChecked>>,
    checks: EndpointChecks,
    /// Until when a neighbour is not asked again; at most one entry for each neighbour.
    resting: BTreeMap<Prefix, Uptime>,
    is_asking: bool,
    /// The neighbour that was asked last; another one is asked next if there is one.
    last_asked: Option<Prefix>,
}

impl EndpointChecker {
    /// Builds the actor.
    pub fn new(deps: EndpointCheckDeps) -> Self {
        let EndpointCheckDeps {
            store,
            peers,
            readers,
        } = deps;
        Self {
            clock: store.clock,
            random: store.random,
            node_document: store.node_document,
            candidates: store.candidates,
            tunnels: store.tunnels,
            peers,
            readers,
            checks: EndpointChecks::default(),
            resting: BTreeMap::new(),
            is_asking: false,
            last_asked: None,
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let node = self.node_document.load_full();
        let announced = node.endpoints.iter().copied();
        let announced: Vec<_> = announced
            .filter(|endpoint| !is_private(*endpoint))
            .collect();
        let mut due = self.checks.due(&announced, now);
        due.truncate(MAX_CHECKED_ENDPOINTS);
        self.report();
        if due.is_empty() || self.is_asking {
            return;
        }
        let Some(peer) = self.choose_neighbour(&announced, now) else {
            return;
        };
        self.is_asking = true;
        self.last_asked = Some(peer);
        let peers = self.peers.clone();
        let call = async move { (peers.check_endpoints(peer, &due).await, due) };
        ctx.spawn(call.into_actor(self).map(move |(outcomes, due), actor, _| {
            actor.handle_outcomes(peer, outcomes, &due);
        }));
    }

    fn handle_outcomes(
        &mut self,
        peer: Prefix,
        outcomes: Result<Vec<CheckOutcome>, PeerApiError>,
        due: &[Endpoint],
    ) {
        self.is_asking = false;
        let now = self.clock.now();
        let rest = match outcomes {
            Ok(outcomes) => {
                for (endpoint, outcome) in due.iter().zip(outcomes) {
                    tracing::debug!(%peer, %endpoint, ?outcome, "endpoint checked");
                    self.checks.note(*endpoint, peer, outcome, now);
                }
                REST
            }
            Err(error) => {
                tracing::debug!(%peer, error = %Chain(&error), "peer did not check endpoints");
                rest_after(error.status())
            }
        };
        self.resting.insert(peer, now + rest);
        self.report();
    }

    /// Chooses at random a neighbour whose packets come from outside.
    fn choose_neighbour(&mut self, announced: &[Endpoint], now: Uptime) -> Option<Prefix> {
        let own: Vec<_> = announced.iter().map(|own| own.address.ip()).collect();
        let candidates = self.candidates.load();
        let is_on_lan = |peer: Prefix| {
            let found = candidates.binary_search_by_key(&peer, |candidate| candidate.peer);
            let candidate = found.ok().and_then(|at| candidates.get(at));
            candidate.is_some_and(|candidate| candidate.is_on_lan())
        };
        let table = self.tunnels.borrow();
        let neighbours: Vec<_> = table
            .tunnels
            .values()
            .filter(|tunnel| is_elsewhere(tunnel, &own) && !is_on_lan(tunnel.peer))
            .map(|tunnel| tunnel.peer)
            .collect();
        self.resting
            .retain(|peer, until| *until > now && neighbours.contains(peer));
        let rested = neighbours.into_iter();
        let rested = rested.filter(|peer| !self.resting.contains_key(peer));
        let (last, others): (Vec<_>, Vec<_>) =
            rested.partition(|peer| self.last_asked == Some(*peer));
        let chosen = self.random.choose(&others).or(last.first());
        chosen.copied()
    }

    fn report(&self) {
        let reading = EndpointsChecked {
            endpoints: self.checks.reachability(),
        };
        self.readers
            .iter()
            .for_each(|reader| offer(reader, reading.clone()));
    }
}

/// Returns the time for which a neighbour that did not check the endpoints is not asked again. A node that was restarted may have asked it
/// a moment ago, and a connection may fail while routes change.
fn rest_after(status: Option<StatusCode>) -> Duration {
    match status {
        None | Some(StatusCode::TOO_MANY_REQUESTS) => REST,
        Some(_) => REST_AFTER_REJECTION,
    }
}

/// Returns whether the tunnel is up, and its far end has a public address that is none of `own`.
fn is_elsewhere(tunnel: &TunnelReading, own: &[IpAddr]) -> bool {
    let address = tunnel
        .endpoint
        .map(|endpoint| endpoint.address.ip().to_canonical());
    tunnel.phase == Phase::Up
        && address.is_some_and(|address| class_of(address).is_none() && !own.contains(&address))
}

impl Actor for EndpointChecker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK_INTERVAL, Self::tick);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_that_was_asked_too_soon_is_asked_again_and_one_without_the_call_much_later() {
        let check = |status, seconds| assert_eq!(rest_after(status), Duration::from_secs(seconds));
        check(None, 15);
        check(Some(StatusCode::TOO_MANY_REQUESTS), 15);
        check(Some(StatusCode::NOT_FOUND), 600);
    }
}
