//! Carries out what an operator asks for: dials, closes and pins.
//!
//! A request is an order to the planner, which keeps its rules: a close is a drain that is given up if the tunnel turns out to be the
//! only route to some node, and waits while another tunnel closes.

use super::{Plan, Planner, snapshot::Snapshot};
use crate::{
    names::{Prefix, Role, Slot},
    observation::Phase,
    orders::{CloseReason, Decision, Order},
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A request that could not be carried out for this long is dropped.
const REQUEST_LIFETIME: Duration = Duration::from_secs(120);

/// Number of refreshes for which a peer is passed over whose tunnel an operator closed.
const PASSED_OVER_REFRESHES: u32 = 4;

/// Most requests of one kind that wait at a time; further ones are dropped.
pub const MAX_REQUESTS: usize = 64;

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A dial of this peer now, whatever the limit and the failures before.
    Dial(Prefix),
    /// The close of the tunnel that this node dialled, by a drain.
    Close(Slot, Prefix),
}

/// The requests that wait, and when each came.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    dials: BTreeMap<Prefix, Uptime>,
    closes: BTreeMap<(Slot, Prefix), Uptime>,
    /// Peers whose tunnels an operator wants to be kept.
    pub(super) pins: BTreeSet<Prefix>,
}

impl Planner {
    /// Adds a request of an operator, which came at `now`.
    pub fn request(&mut self, request: Request, now: Uptime) {
        let requests = &mut self.requests;
        match request {
            Request::Dial(peer) if requests.dials.len() < MAX_REQUESTS => {
                requests.dials.insert(peer, now);
            }
            Request::Close(slot, peer) if requests.closes.len() < MAX_REQUESTS => {
                requests.closes.insert((slot, peer), now);
            }
            Request::Dial(_) | Request::Close(..) => {}
        }
    }

    /// Replaces the peers whose tunnels an operator wants to be kept, from the next plan on.
    pub fn set_pins(&mut self, pins: BTreeSet<Prefix>) {
        self.requests.pins = pins;
    }

    /// Peers whose tunnels are kept, since the configuration or an operator pins them.
    pub(super) fn pinned(&self) -> BTreeSet<Prefix> {
        &self.settings.pinned | &self.requests.pins
    }

    /// Orders the dials and at most one close that an operator asked for.
    pub(super) fn carry_out_requests(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) {
        let now = snapshot.at;
        let is_young = |at: &Uptime| now.since(*at) < REQUEST_LIFETIME;
        self.requests.dials.retain(|_, at| is_young(at));
        self.requests.closes.retain(|_, at| is_young(at));
        // The snapshot may be older than the request, and then show a tunnel that has closed since.
        let is_done = |peer: Prefix, at: Uptime| at <= now && snapshot.has_lasting_tunnel_to(peer);
        self.requests.dials.retain(|peer, at| !is_done(*peer, *at));
        for peer in self.requests.dials.keys() {
            if !snapshot.has_tunnel_to(*peer) && !self.dialling.is_pending(*peer) {
                let dial = self.dialling.dial_requested(snapshot, *peer);
                plan.decisions.extend(dial);
            }
        }
        for (slot, peer) in self.requests.closes.keys().copied().collect::<Vec<_>>() {
            if self.close_requested(snapshot, (slot, peer), plan) {
                self.requests.closes.remove(&(slot, peer));
            }
        }
    }

    /// Begins to close a tunnel, unless another one closes; returns whether nothing is left to do.
    fn close_requested(
        &mut self,
        snapshot: &Snapshot<'_>,
        (slot, peer): (Slot, Prefix),
        plan: &mut Plan,
    ) -> bool {
        let link = snapshot.tunnels.get(&slot);
        let link = link.filter(|link| link.tunnel.peer == peer && slot.role() == Role::Dialled);
        let Some(link) = link else {
            return true;
        };
        let (reason, terms) = (CloseReason::Operator, "warren close".to_owned());
        match link.tunnel.phase {
            Phase::Draining { .. } | Phase::Closing => true,
            Phase::Connecting => {
                let order = Order::Close { slot, reason };
                plan.decisions.push(Decision { order, terms });
                true
            }
            Phase::Up => {
                let can_begin = self.can_begin_closing(snapshot);
                if can_begin {
                    let passed_over = self.refreshes(PASSED_OVER_REFRESHES);
                    self.dialling.pass_over(peer, snapshot.at + passed_over);
                    self.begin_closing(snapshot, (slot, peer), reason, terms, plan);
                }
                can_begin
            }
        }
    }
}
