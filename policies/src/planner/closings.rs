//! Begins and continues planned closings, one at a time, and watches the drains of others.

use super::{
    Plan, Planner,
    closing::{Closing, Step, is_drained},
    snapshot::Snapshot,
};
use crate::{
    names::{Prefix, Role, Slot},
    observation::{LinkReading, Phase},
    orders::{CloseReason, Decision, Order},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Number of refreshes for which a tunnel is left alone after its closing was given up.
const GIVEN_UP_REFRESHES: u32 = 4;
/// The same for a tunnel by TCP whose peer answers by UDP. When UDP passes again, neighbours may leave TCP at the same time, so that
/// each is the only way around the other; the spans are random so that they do not meet again.
const MIN_TCP_SPAN: Duration = Duration::from_secs(30);
const MAX_TCP_SPAN: Duration = Duration::from_secs(120);

impl Planner {
    /// Tunnels whose drain another policy carries through, and whether each carries nothing any more: all that drain for a
    /// restart, and accepted ones.
    pub(super) fn drains_of_others(&self, snapshot: &Snapshot<'_>) -> BTreeMap<Slot, bool> {
        let drains = |slot: &Slot, link: &LinkReading| {
            let reason = link.tunnel.phase.drain_reason();
            let is_accepted = slot.role() == Role::Accepted;
            reason.is_some_and(|reason| is_accepted || reason == CloseReason::Renewed)
        };
        let carries_nothing = |slot: Slot, link: &LinkReading| {
            let parameters = &self.settings.parameters;
            let since = link.tunnel.since;
            is_drained(snapshot, slot, since, self.usage(slot), parameters)
        };
        let tunnels = snapshot.tunnels.iter();
        tunnels
            .filter(|(slot, link)| drains(slot, link))
            .map(|(slot, link)| (*slot, carries_nothing(*slot, link)))
            .collect()
    }

    /// Continues the present closing. A drain that another policy began is carried through for that policy's reason, unless it
    /// is for a restart.
    pub(super) fn continue_closing(
        &mut self,
        snapshot: &Snapshot<'_>,
        plan: &mut Plan,
        progress: &mut Option<String>,
    ) {
        if self.closing.is_none() {
            let mut dialled = snapshot.dialled();
            self.closing = dialled.find_map(|link| {
                let reason = link.tunnel.phase.drain_reason()?;
                if reason == CloseReason::Renewed {
                    return None;
                }
                let (slot, peer) = (link.tunnel.slot, link.tunnel.peer);
                Some(Closing::new(slot, peer, reason, snapshot))
            });
        }
        let Some(mut closing) = self.closing.take() else {
            return;
        };
        let usage = self.usage(closing.slot);
        match closing.step(snapshot, usage, &self.settings.parameters) {
            Step::Gone => return,
            Step::GivenUp => {
                let span = if closing.reason == CloseReason::UdpAnswers {
                    self.rng.span(MIN_TCP_SPAN, MAX_TCP_SPAN)
                } else {
                    self.refreshes(GIVEN_UP_REFRESHES)
                };
                let tunnel = (closing.slot, closing.peer);
                self.given_up.insert(tunnel, snapshot.at + span);
                return;
            }
            Step::Wait(text) => *progress = Some(text),
            Step::Order(decision) => {
                *progress = Some(decision.terms.clone());
                plan.decisions.push(decision);
            }
        }
        self.closing = Some(closing);
    }

    /// Of two nodes that dialled each other the one with the lower prefix closes its own tunnel.
    pub(super) fn close_duplicate(&mut self, snapshot: &Snapshot<'_>, plan: &mut Plan) {
        let is_accepted = |link: &&&LinkReading| {
            link.tunnel.role() == Role::Accepted && link.tunnel.phase == Phase::Up
        };
        let accepted = snapshot.tunnels.values().filter(is_accepted);
        let accepted: BTreeSet<Prefix> = accepted.map(|link| link.tunnel.peer).collect();
        let is_duplicate = |link: &&LinkReading| {
            let peer = link.tunnel.peer;
            self.me < peer && accepted.contains(&peer) && !self.requests.pins.contains(&peer)
        };
        let duplicates: Vec<_> = snapshot.dialled().filter(is_duplicate).collect();
        for link in duplicates {
            let (slot, peer) = (link.tunnel.slot, link.tunnel.peer);
            let reason = CloseReason::Duplicate;
            let terms = format!(
                "this node has the lower prefix, and closes its own tunnel; me={} peer={peer}",
                self.me
            );
            match link.tunnel.phase {
                Phase::Connecting if !self.closed_connecting.contains_key(&slot) => {
                    self.closed_connecting.insert(slot, snapshot.at);
                    let order = Order::Close { slot, reason };
                    plan.decisions.push(Decision { order, terms });
                }
                Phase::Up => {
                    let can_close = self.can_begin_closing(snapshot)
                        && snapshot.is_table_known
                        && !self.given_up.contains_key(&(slot, peer))
                        && snapshot.only_route(slot).is_none();
                    if can_close {
                        self.begin_closing(snapshot, (slot, peer), reason, terms, plan);
                    }
                }
                Phase::Connecting | Phase::Draining { .. } | Phase::Closing => {}
            }
        }
    }

    /// Returns whether no dialled tunnel drains, by this or by another policy.
    pub(super) fn can_begin_closing(&self, snapshot: &Snapshot<'_>) -> bool {
        let mut dialled = snapshot.dialled();
        self.closing.is_none() && !dialled.any(|link| link.tunnel.phase.is_draining())
    }

    /// Returns whether a tunnel may be closed in favour of a better path to its peer: not if some node is reached by it alone, its
    /// peer is pinned, a closing was given up, or as many closings as this began on its slot within 12 refreshes.
    pub(super) fn can_leave(
        &self,
        snapshot: &Snapshot<'_>,
        link: &LinkReading,
        max_closings: usize,
    ) -> bool {
        let (slot, peer) = (link.tunnel.slot, link.tunnel.peer);
        let closings = self.closings.get(&slot);
        snapshot.is_table_known
            && link.tunnel.phase == Phase::Up
            && !self.pinned().contains(&peer)
            && closings.is_none_or(|moments| moments.len() < max_closings)
            && !self.given_up.contains_key(&(slot, peer))
            && snapshot.only_route(slot).is_none()
    }

    /// Begins to close a tunnel by plan, with a drain.
    pub(super) fn begin_closing(
        &mut self,
        snapshot: &Snapshot<'_>,
        (slot, peer): (Slot, Prefix),
        reason: CloseReason,
        terms: String,
        plan: &mut Plan,
    ) {
        self.closing = Some(Closing::new(slot, peer, reason, snapshot));
        self.closings.entry(slot).or_default().push(snapshot.at);
        let order = Order::Drain { slot, reason };
        plan.decisions.push(Decision { order, terms });
    }
}
