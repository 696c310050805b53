//! Keeps what the planner remembers of tunnels up to date with the readings.

use super::{Planner, refresh::PASSED_OVER_REFRESHES, snapshot::Snapshot};
use crate::{
    names::{Prefix, Role, Slot},
    observation::{LinkReading, Observation},
    units::Uptime,
    usage::{Floor, ProbeFrames, Usage},
};
use std::collections::BTreeMap;

/// The window, in refreshes (an hour, at the default), in which the planned closings of a slot are counted; at most
/// [`MAX_CLOSINGS`](super::spare_reason::MAX_CLOSINGS) are allowed in it.
const CLOSINGS_REFRESHES: u32 = 12;

/// A tunnel of the latest readings, and its usage.
#[derive(Clone, Debug)]
pub(super) struct TrackedTunnel {
    peer: Prefix,
    up_since: Option<Uptime>,
    pub(super) usage: Usage,
}

impl TrackedTunnel {
    fn new(link: &LinkReading, probes: ProbeFrames, now: Uptime) -> Self {
        Self {
            peer: link.tunnel.peer,
            up_since: link.tunnel.up_since,
            usage: Usage::new(link.counters, probes, now),
        }
    }

    /// Returns whether that reading is of the same tunnel.
    fn is_of(&self, link: &LinkReading) -> bool {
        link.tunnel.peer == self.peer && link.tunnel.up_since == self.up_since
    }
}

impl Planner {
    /// Feeds each tunnel's counters to its usage, and drops what is past.
    pub(super) fn track(&mut self, observation: &Observation, snapshot: &Snapshot<'_>) {
        let now = snapshot.at;
        self.lan_history.track(snapshot);
        self.note_lost_tunnels(snapshot);
        self.track_usage(observation, snapshot);
        let exists = |(slot, peer): &(Slot, Prefix)| {
            let link = snapshot.tunnels.get(slot);
            link.is_some_and(|link| link.tunnel.peer == *peer) || self.dialling.is_pending(*peer)
        };
        self.chosen.retain(exists);
        self.punched.retain(exists);
        self.given_up.retain(|_, until| *until > now);
        let span = self.refreshes(CLOSINGS_REFRESHES);
        self.closings.retain(|_, moments| {
            moments.retain(|moment| now.since(*moment) < span);
            !moments.is_empty()
        });
        self.closed_connecting
            .retain(|slot, _| snapshot.tunnels.contains_key(slot));
    }

    fn track_usage(&mut self, observation: &Observation, snapshot: &Snapshot<'_>) {
        let now = snapshot.at;
        let nodes = snapshot.routes.nodes().len().saturating_add(1);
        let floor = Floor::new(&self.settings.parameters, nodes);
        let probes = observation.probes.iter();
        let probes: BTreeMap<Slot, _> = probes
            .map(|probe| (probe.slot, ProbeFrames::from(probe)))
            .collect();
        self.tracked.retain(|slot, tracked| {
            let link = snapshot.tunnels.get(slot);
            link.is_some_and(|link| tracked.is_of(link))
        });
        for (slot, link) in &snapshot.tunnels {
            let probes = probes.get(slot).copied().unwrap_or_default();
            let tracked = self
                .tracked
                .entry(*slot)
                .or_insert_with(|| TrackedTunnel::new(link, probes, now));
            tracked.usage.read(link.counters, probes, floor, now);
        }
    }

    /// Reacts to dialled tunnels that closed without an order: a better topology is looked for sooner, and a peer
    /// whose tunnel did not live long is passed over.
    fn note_lost_tunnels(&mut self, snapshot: &Snapshot<'_>) {
        let now = snapshot.at;
        let passed_over_until = now + self.refreshes(PASSED_OVER_REFRESHES);
        let closing = self.closing.as_ref().map(|closing| closing.slot);
        for (slot, tracked) in &self.tracked {
            let is_planned = closing == Some(*slot);
            let is_dialled = slot.role() == Role::Dialled;
            if !is_dialled || is_planned || snapshot.tunnels.contains_key(slot) {
                continue;
            }
            self.closing_interval = 1;
            let min_age = self.settings.parameters.min_age;
            let up_since = tracked.up_since;
            if up_since.is_some_and(|since| now.since(since) < min_age) {
                self.dialling.pass_over(tracked.peer, passed_over_until);
            }
        }
    }
}
