//! Carries one planned closing through: drain, wait until the traffic has moved away, then close or give up.
//!
//! ```text
//!  Drain ordered ─► slot drains ─┬─ no route of ours, quiet 1 s, far end has moved ─► Close ordered ─► gone
//!                                └─ deadline, or the only route to a node ─► Undrain ordered ─► given up
//! ```
//!
//! A drain whose reason is final (a revocation, a stop) is never given up.

use super::snapshot::Snapshot;
use crate::{
    names::{Prefix, Slot},
    observation::{Phase, TunnelReading},
    orders::{AbandonReason, CloseReason, Decision, Order},
    parameters::{DRAIN_DEADLINE, Parameters},
    units::Uptime,
    usage::Usage,
};
use std::{collections::BTreeSet, time::Duration};

/// Neither direction may have carried payload for this long.
const QUIET_TIME: Duration = Duration::from_secs(1);
/// An order is repeated if no reading shows its effect after this time.
const REPEAT_DELAY: Duration = Duration::from_secs(5);
/// A tunnel that is still there this long after the order to close is no longer waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(60);
/// A node must be out of reach for this long before a drain is given up, since tables change in steps.
const UNREACHABLE_TIME: Duration = Duration::from_secs(1);
/// babeld doubles the cost of a silent neighbour with each missed hello, and takes it for dead after twelve. Routes
/// that have not moved after ten have no alternative.
const LAST_HELLO: u32 = 10;
/// The cost at which the far end receives from us, once it has moved. It is 96 while all hellos arrive, and this high
/// after four missed ones; a daemon that knows of the drain announces more at once. The far end then uses any other
/// path that is not 14 hops longer.
const FAR_END_MOVED_COST: u16 = 96 * 16;
/// After this number of hello intervals without news of its cost the far end is taken to have moved.
const FAR_END_MOVED_HELLOS: u32 = 15;

/// The order that a planned closing has given last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Drain,
    Undrain,
    Close,
}

/// One planned closing.
#[derive(Clone, Debug)]
pub(super) struct Closing {
    pub(super) slot: Slot,
    pub(super) peer: Prefix,
    pub(super) reason: CloseReason,
    started_at: Uptime,
    stage: Stage,
    /// When the order of this stage was given last.
    ordered_at: Uptime,
    /// Nodes that were reached through the slot at the start.
    served: BTreeSet<Prefix>,
    /// The metric of the route to the peer at the start.
    metric_before: Option<u16>,
    /// Since when one of them has been out of reach without the slot.
    unreachable_since: Option<Uptime>,
}

/// The result of one step of a planned closing.
#[derive(Debug)]
pub(super) enum Step {
    /// There is nothing to do now, for this reason.
    Wait(String),
    /// An order is to be carried out.
    Order(Decision),
    /// The tunnel is gone.
    Gone,
    /// The tunnel stays.
    GivenUp,
}

impl Closing {
    /// Starts a closing; its caller orders the drain.
    pub(super) fn new(
        slot: Slot,
        peer: Prefix,
        reason: CloseReason,
        snapshot: &Snapshot<'_>,
    ) -> Self {
        let now = snapshot.at;
        Self {
            slot,
            peer,
            reason,
            started_at: now,
            stage: Stage::Drain,
            ordered_at: now,
            served: snapshot.routes.served_nodes(slot).collect(),
            metric_before: snapshot.routes.metric(peer),
            unreachable_since: None,
        }
    }

    /// Decides how to go on, from the present state of the tunnel.
    pub(super) fn step(
        &mut self,
        snapshot: &Snapshot<'_>,
        usage: Option<&Usage>,
        parameters: &Parameters,
    ) -> Step {
        let now = snapshot.at;
        let Some(tunnel) = snapshot.tunnels.get(&self.slot).map(|link| &link.tunnel) else {
            return Step::Gone;
        };
        let is_draining = self.stage == Stage::Drain && tunnel.phase.is_draining();
        let is_overdue = now.since(self.ordered_at) >= CLOSE_TIMEOUT && !is_draining;
        if tunnel.peer != self.peer || is_overdue {
            return Step::Gone;
        }
        // Another policy may have ordered the drain, too, for a reason of its own; a restart is carried through elsewhere.
        self.reason = tunnel.phase.drain_reason().unwrap_or(self.reason);
        if self.reason == CloseReason::Renewed {
            return Step::Gone;
        }
        match (tunnel.phase, self.stage) {
            (Phase::Closing, _) => Step::Wait("OpenVPN ends".to_owned()),
            (Phase::Connecting, _) => Step::Gone,
            (Phase::Up, Stage::Undrain) => Step::GivenUp,
            (Phase::Up, Stage::Drain) if now.since(self.started_at) >= DRAIN_DEADLINE => {
                Step::GivenUp
            }
            (Phase::Draining { .. }, Stage::Drain) => {
                self.wait_for_traffic(snapshot, tunnel, usage, parameters)
            }
            (Phase::Up, Stage::Drain)
            | (Phase::Draining { .. }, Stage::Undrain)
            | (Phase::Up | Phase::Draining { .. }, Stage::Close) => self.repeat(now),
        }
    }

    /// The order of the present stage.
    fn order(&self) -> Order {
        let slot = self.slot;
        match self.stage {
            Stage::Drain => Order::Drain {
                slot,
                reason: self.reason,
            },
            Stage::Undrain => Order::Undrain {
                slot,
                reason: AbandonReason::Deadline,
            },
            Stage::Close => Order::Close {
                slot,
                reason: self.reason,
            },
        }
    }

    /// Repeats the order of the present stage, if its effect has not shown for long enough.
    fn repeat(&mut self, now: Uptime) -> Step {
        if now.since(self.ordered_at) < REPEAT_DELAY {
            return Step::Wait("the order has no visible effect yet".to_owned());
        }
        self.ordered_at = now;
        Step::Order(Decision::repeated(self.order()))
    }

    /// Closes the tunnel once its traffic has moved away, or gives its drain up.
    fn wait_for_traffic(
        &mut self,
        snapshot: &Snapshot<'_>,
        tunnel: &TunnelReading,
        usage: Option<&Usage>,
        parameters: &Parameters,
    ) -> Step {
        let now = snapshot.at;
        let drained_for = now.since(tunnel.since);
        let nodes = snapshot.nodes_served(self.slot);
        let terms = terms(snapshot, self.slot, drained_for, usage);
        let can_give_up = self.reason.can_be_abandoned();
        let unreachable = self.unreachable_node(snapshot);
        if let Some(node) = unreachable.filter(|_| can_give_up) {
            let terms = format!("{terms} only_route_to={node}");
            return self.give_up(now, AbandonReason::OnlyRoute, terms);
        }
        let last_hello = parameters.hello_interval.saturating_mul(LAST_HELLO);
        let is_stuck = nodes > 0 && drained_for >= last_hello;
        if can_give_up && (is_stuck || drained_for >= deadline(parameters)) {
            return self.give_up(now, AbandonReason::Deadline, terms);
        }
        let is_drained = is_drained(snapshot, self.slot, tunnel.since, usage, parameters);
        if is_drained && self.unreachable_since.is_none() {
            self.stage = Stage::Close;
            self.ordered_at = now;
            let order = self.order();
            let terms = format!("{terms}{}", self.moved_to(snapshot));
            return Step::Order(Decision { order, terms });
        }
        Step::Wait(terms)
    }

    /// The numbers of the route that leads to the peer instead: its slot, its metric, and that of the route before.
    fn moved_to(&self, snapshot: &Snapshot<'_>) -> String {
        let route = snapshot.routes.installed(self.peer);
        let route = route.filter(|(slot, _)| *slot != self.slot);
        route
            .zip(self.metric_before)
            .map_or_else(String::new, |((slot, metric), before)| {
                format!(" moved_to={slot} metric={metric} metric_before={before}")
            })
    }

    /// A node that was reached through the slot at the start, and has been reached by no other slot for
    /// [`UNREACHABLE_TIME`].
    fn unreachable_node(&mut self, snapshot: &Snapshot<'_>) -> Option<Prefix> {
        if !snapshot.is_table_known {
            return None;
        }
        let mut served = self.served.iter().copied();
        let unreachable = served.find(|node| !snapshot.routes.is_reached_without(*node, self.slot));
        let since = unreachable.map(|_| self.unreachable_since.unwrap_or(snapshot.at));
        self.unreachable_since = since;
        let is_lasting = since.is_some_and(|since| snapshot.at.since(since) >= UNREACHABLE_TIME);
        unreachable.filter(|_| is_lasting)
    }

    fn give_up(&mut self, now: Uptime, reason: AbandonReason, terms: String) -> Step {
        self.stage = Stage::Undrain;
        self.ordered_at = now;
        let slot = self.slot;
        Step::Order(Decision {
            order: Order::Undrain { slot, reason },
            terms,
        })
    }
}

/// The numbers by which a drain is judged.
fn terms(
    snapshot: &Snapshot<'_>,
    slot: Slot,
    drained_for: Duration,
    usage: Option<&Usage>,
) -> String {
    let nodes = snapshot.nodes_served(slot);
    let quiet = usage.map(Usage::quiet_for).unwrap_or_default();
    let rate = usage.and_then(Usage::rate).unwrap_or_default();
    let far_cost = snapshot.far_cost.get(&slot);
    format!(
        "drained_for={}.{:03} s nodes={nodes} quiet={}.{:03} s rate={rate} far_cost={}",
        drained_for.as_secs(),
        drained_for.subsec_millis(),
        quiet.as_secs(),
        quiet.subsec_millis(),
        far_cost.map_or("none".to_owned(), ToString::to_string),
    )
}

/// Returns whether a slot that has drained since that moment carries nothing any more: no route leaves by it, no
/// payload passes, and the far end has moved.
pub(super) fn is_drained(
    snapshot: &Snapshot<'_>,
    slot: Slot,
    since: Uptime,
    usage: Option<&Usage>,
    parameters: &Parameters,
) -> bool {
    let timeout = parameters
        .hello_interval
        .saturating_mul(FAR_END_MOVED_HELLOS);
    let far_cost = snapshot.far_cost.get(&slot);
    let has_far_end_moved = far_cost.is_none_or(|cost| *cost >= FAR_END_MOVED_COST)
        || snapshot.at.since(since) >= timeout;
    let is_quiet = usage.is_some_and(|usage| usage.quiet_for() >= QUIET_TIME);
    snapshot.is_table_known && snapshot.nodes_served(slot) == 0 && is_quiet && has_far_end_moved
}

/// The longest drain: [`DRAIN_DEADLINE`], or twenty hello intervals if hellos are rare.
fn deadline(parameters: &Parameters) -> Duration {
    DRAIN_DEADLINE.max(parameters.hello_interval.saturating_mul(20))
}
