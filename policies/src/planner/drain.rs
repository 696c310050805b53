//! Carries one planned closing through: drain, wait until the traffic has moved, close or give up.
//!
//! ```text
//!  Drain ordered ─► slot drains ─┬─ no route of ours, quiet 1 s, far end has moved ─► Close ordered ─► gone
//!                                └─ deadline, or the only way to a node ─► Undrain ordered ─► given up
//! ```

use super::picture::Picture;
use crate::{
    names::{Prefix, Slot},
    observation::Phase,
    orders::{AbandonReason, CloseReason, Decision, Order},
    parameters::{DRAIN_DEADLINE, Parameters},
    units::Uptime,
    usage::Usage,
};
use std::{collections::BTreeSet, time::Duration};

/// Both directions must have carried no payload for so long.
const QUIET: Duration = Duration::from_secs(1);
/// An order whose effect no reading shows after this long is given again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// A tunnel told to close that is still there after this long is no longer waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// A node must be out of reach for so long before a drain is given up: tables change in steps.
const LONELY: Duration = Duration::from_secs(1);
/// babeld doubles the cost of a silent neighbour with each missed hello, and takes it for dead after
/// twelve. Routes that have not moved after ten have nowhere to go.
const LAST_HELLO: u32 = 10;
/// The far end's cost of hearing us (96 while all hellos arrive) after four missed hellos, or less than
/// what its daemon says at once when it is told of the drain: then it has left for any way that is not 14
/// hops longer.
const FAR_MOVED: u16 = 96 * 16;
/// Without news of the far end's cost it is taken to have moved after so many hello intervals.
const FAR_MOVED_HELLOS: u32 = 15;

/// How far a planned closing has come.
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
    begun: Uptime,
    stage: Stage,
    told: Uptime,
    /// Nodes that were reached through the slot when it began.
    served: BTreeSet<Prefix>,
    lonely_since: Option<Uptime>,
}

/// What a look at a planned closing gives.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing to do; why it goes on.
    Wait(String),
    /// Something to do.
    Order(Decision),
    /// The tunnel is gone.
    Gone,
    /// The tunnel stays.
    GivenUp,
}

impl Closing {
    /// Begins; the order to drain is the caller's.
    pub(super) fn begin(
        slot: Slot,
        peer: Prefix,
        reason: CloseReason,
        picture: &Picture<'_>,
    ) -> Self {
        let served = picture.ways.served_nodes(slot).collect();
        let now = picture.at;
        Self {
            slot,
            peer,
            reason,
            begun: now,
            stage: Stage::Drain,
            told: now,
            served,
            lonely_since: None,
        }
    }

    /// Looks at the tunnel and says how to go on.
    pub(super) fn step(
        &mut self,
        picture: &Picture<'_>,
        usage: Option<&Usage>,
        parameters: &Parameters,
    ) -> Step {
        let now = picture.at;
        let Some(tunnel) = picture.tunnels.get(&self.slot).map(|link| &link.tunnel) else {
            return Step::Gone;
        };
        let drains = self.stage == Stage::Drain && tunnel.phase.is_draining();
        let overdue = now.since(self.told) >= PATIENCE && !drains;
        if tunnel.peer != self.peer || overdue {
            return Step::Gone;
        }
        // Another policy may have ordered the drain, too, for a reason of its own.
        self.reason = tunnel.phase.drain_reason().unwrap_or(self.reason);
        match (tunnel.phase, self.stage) {
            (Phase::Closing, _) => Step::Wait("closing".to_owned()),
            (Phase::Connecting, _) => Step::Gone,
            (Phase::Up, Stage::Undrain) => Step::GivenUp,
            (Phase::Up, Stage::Drain) if now.since(self.begun) >= DRAIN_DEADLINE => Step::GivenUp,
            (Phase::Up, Stage::Drain) => self.again(
                now,
                Order::Drain {
                    slot: self.slot,
                    reason: self.reason,
                },
            ),
            (Phase::Draining { .. }, Stage::Drain) => {
                self.drained(picture, tunnel.since, usage, parameters)
            }
            (Phase::Draining { .. }, Stage::Undrain) => self.again(
                now,
                Order::Undrain {
                    slot: self.slot,
                    reason: AbandonReason::Deadline,
                },
            ),
            (Phase::Up | Phase::Draining { .. }, Stage::Close) => self.again(
                now,
                Order::Close {
                    slot: self.slot,
                    reason: self.reason,
                },
            ),
        }
    }

    fn again(&mut self, now: Uptime, order: Order) -> Step {
        if now.since(self.told) < AGAIN_AFTER {
            return Step::Wait("ordered".to_owned());
        }
        self.told = now;
        Step::Order(Decision {
            order,
            terms: "told again: no reading shows it".to_owned(),
        })
    }

    fn drained(
        &mut self,
        picture: &Picture<'_>,
        since: Uptime,
        usage: Option<&Usage>,
        parameters: &Parameters,
    ) -> Step {
        let now = picture.at;
        let dwell = now.since(since);
        let hello = parameters.hello_interval;
        let routed = picture.nodes_served(self.slot);
        let quiet = usage.map(Usage::quiet_for).unwrap_or_default();
        let rate = usage.and_then(Usage::rate).unwrap_or_default();
        let far = picture.far_cost.get(&self.slot).copied();
        let terms = format!(
            "drained_for={}.{:03} s nodes={routed} quiet={}.{:03} s rate={rate} far_cost={}",
            dwell.as_secs(),
            dwell.subsec_millis(),
            quiet.as_secs(),
            quiet.subsec_millis(),
            far.map_or("none".to_owned(), |cost| cost.to_string()),
        );
        let can_give_up = self.reason.can_be_abandoned();
        let lonely = self.lonely(picture);
        if let Some(node) = lonely.filter(|_| can_give_up) {
            return self.give_up(
                now,
                AbandonReason::OnlyRoute,
                format!("{terms} only_route_to={node}"),
            );
        }
        let stuck = routed > 0 && dwell >= hello.saturating_mul(LAST_HELLO);
        if can_give_up && (stuck || dwell >= deadline(parameters)) {
            return self.give_up(now, AbandonReason::Deadline, terms);
        }
        if is_drained(picture, self.slot, since, usage, parameters) && self.lonely_since.is_none() {
            self.stage = Stage::Close;
            self.told = now;
            let order = Order::Close {
                slot: self.slot,
                reason: self.reason,
            };
            return Step::Order(Decision { order, terms });
        }
        Step::Wait(terms)
    }

    /// A node reached through the slot before, and by no other slot for [`LONELY`] now.
    fn lonely(&mut self, picture: &Picture<'_>) -> Option<Prefix> {
        let lost = self
            .served
            .iter()
            .find(|node| !picture.ways.is_reached_without(**node, self.slot))
            .copied();
        if !picture.told {
            return None;
        }
        self.lonely_since = lost.map(|_| self.lonely_since.unwrap_or(picture.at));
        lost.filter(|_| {
            self.lonely_since
                .is_some_and(|since| picture.at.since(since) >= LONELY)
        })
    }

    fn give_up(&mut self, now: Uptime, reason: AbandonReason, terms: String) -> Step {
        self.stage = Stage::Undrain;
        self.told = now;
        Step::Order(Decision {
            order: Order::Undrain {
                slot: self.slot,
                reason,
            },
            terms,
        })
    }
}

/// Whether nothing leaves by a slot that drains since then, nothing passes, and the far end has turned away.
pub(super) fn is_drained(
    picture: &Picture<'_>,
    slot: Slot,
    since: Uptime,
    usage: Option<&Usage>,
    parameters: &Parameters,
) -> bool {
    let waited = parameters.hello_interval.saturating_mul(FAR_MOVED_HELLOS);
    let far = picture.far_cost.get(&slot);
    let far_moved = far.is_none_or(|cost| *cost >= FAR_MOVED) || picture.at.since(since) >= waited;
    let quiet = usage.is_some_and(|usage| usage.quiet_for() >= QUIET);
    picture.told && picture.nodes_served(slot) == 0 && quiet && far_moved
}

/// [`DRAIN_DEADLINE`], or twenty hello intervals where hellos are rare.
fn deadline(parameters: &Parameters) -> Duration {
    DRAIN_DEADLINE.max(parameters.hello_interval.saturating_mul(20))
}
