//! The phases in which something waits, and the longest time that each may last, in one place.
//!
//! Each phase ends by an event of its own long before its limit. A phase that reaches its limit is closed by whoever
//! waits, logged once, and counted (`warren_overdue_total`), so that nothing waits for ever for an event that got
//! lost.

use crate::{
    names::{Role, Slot},
    observation::{Phase, TunnelReading},
    orders::{CloseReason, Order},
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A phase that lasts until something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// A tunnel connects: its endpoints are tried one after the other.
    Connecting,
    /// A tunnel drains: its traffic moves to other tunnels.
    Draining,
    /// A tunnel closes: its process exits.
    Closing,
    /// A node holds this node's restart lock.
    LockHeld,
    /// This node has requested restart locks, and waits for the answers.
    LockRequested,
}

impl Wait {
    /// All phases, in the order of their metric labels.
    pub const ALL: &[Self] = &[
        Self::Connecting,
        Self::Draining,
        Self::Closing,
        Self::LockHeld,
        Self::LockRequested,
    ];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Draining => "draining",
            Self::Closing => "closing",
            Self::LockHeld => "lock_held",
            Self::LockRequested => "lock_requested",
        }
    }

    /// The longest time that the phase may last.
    pub const fn limit(self) -> Duration {
        Duration::from_secs(match self {
            // A dial tries each endpoint for ten seconds, with a growing delay before the next one: seven or eight of
            // them, where a peer has four at most as a rule.
            Self::Connecting => 180,
            // The planner gives a drain up after 20 s, and a revocation closes the tunnel after 10 s.
            Self::Draining => 60,
            // A process gets SIGKILL 2 s after SIGTERM.
            Self::Closing => 10,
            // Longer than the longest drain, a start and new dials.
            Self::LockHeld => 60,
            // The answers of all neighbours are timed out by then.
            Self::LockRequested => 30,
        })
    }
}

/// The longest time for which an accepted tunnel connects: longer than OpenVPN's `--hand-window`, after which the client starts over. Nobody probes
/// the tunnel meanwhile, and OpenVPN reports no end of a client that was never established.
const ACCEPTING_LIMIT: Duration = Duration::from_secs(30);

/// A tunnel whose phase has reached its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverdueTunnel {
    /// The phase that has lasted too long.
    pub wait: Wait,
    /// The time since the phase started.
    pub waited: Duration,
    /// The close that ends the phase.
    pub close: Order,
}

/// Finds tunnels that wait for too long, and reports each phase once.
#[derive(Clone, Debug, Default)]
pub struct OverdueTunnels {
    /// The slot of each reported tunnel, and when its phase started.
    reported: BTreeSet<(Slot, Uptime)>,
}

impl OverdueTunnels {
    /// Returns the tunnels whose phase has reached its limit since the last call, with the order that ends it.
    pub fn take(
        &mut self,
        tunnels: &BTreeMap<Slot, TunnelReading>,
        now: Uptime,
    ) -> Vec<OverdueTunnel> {
        let overdue: Vec<_> = tunnels
            .values()
            .filter_map(|tunnel| Some((tunnel, overdue(tunnel, now)?)))
            .collect();
        let mut reported = BTreeSet::new();
        let mut new = Vec::new();
        for (tunnel, overdue) in overdue {
            let key = (tunnel.slot, tunnel.since);
            if !self.reported.contains(&key) {
                new.push(overdue);
            }
            reported.insert(key);
        }
        self.reported = reported;
        new
    }
}

/// Returns the wait of this tunnel, if it has reached its limit.
fn overdue(tunnel: &TunnelReading, now: Uptime) -> Option<OverdueTunnel> {
    let of = |wait: Wait, reason| (wait, wait.limit(), reason);
    let (wait, limit, reason) = match tunnel.phase {
        Phase::Up => return None,
        Phase::Connecting => match tunnel.role() {
            Role::Dialled => of(Wait::Connecting, CloseReason::DialFailed),
            // The peer lives: it has come this far, and nobody has to look for it.
            Role::Accepted => (Wait::Connecting, ACCEPTING_LIMIT, CloseReason::DialFailed),
        },
        Phase::Draining { reason } => of(Wait::Draining, reason),
        Phase::Closing => of(Wait::Closing, CloseReason::ProcessDied),
    };
    let waited = now.since(tunnel.since);
    (waited >= limit).then_some(OverdueTunnel {
        wait,
        waited,
        close: Order::Close {
            slot: tunnel.slot,
            reason,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Prefix, Transport};

    const SLOT: Slot = Slot::Dialling(0);

    fn tunnels(phase: Phase, since: u64) -> BTreeMap<Slot, TunnelReading> {
        let tunnel = TunnelReading {
            slot: SLOT,
            peer: Prefix::new(7, 16).unwrap(),
            phase,
            since: Uptime::from_secs(since),
            up_since: None,
            endpoint: None,
        };
        [(SLOT, tunnel)].into()
    }

    /// The first second in which a tunnel that entered the phase in second 100 is overdue, and the reason of its close.
    #[track_caller]
    fn check(phase: Phase, expected: Option<(u64, CloseReason)>) {
        let mut overdue = OverdueTunnels::default();
        let found = (100..1_000).find_map(|second| {
            let tunnels = overdue.take(&tunnels(phase, 100), Uptime::from_secs(second));
            let Order::Close { reason, .. } = tunnels.first()?.close else {
                return None;
            };
            Some((second, reason))
        });
        assert_eq!(found, expected);
        // It is reported once.
        assert!(
            overdue
                .take(&tunnels(phase, 100), Uptime::from_secs(1_000))
                .is_empty()
        );
    }

    #[test]
    fn each_phase_that_waits_has_a_limit() {
        let reason = CloseReason::Unused;
        check(Phase::Up, None);
        check(Phase::Connecting, Some((280, CloseReason::DialFailed)));
        check(Phase::Draining { reason }, Some((160, reason)));
        check(Phase::Closing, Some((110, CloseReason::ProcessDied)));
    }

    #[test]
    fn an_accepted_tunnel_connects_for_half_a_minute_at_most() {
        let slot = Slot::Accepting(Transport::Udp, 2);
        let mut accepted = tunnels(Phase::Connecting, 100);
        let tunnel = accepted.remove(&SLOT).unwrap();
        accepted.insert(slot, TunnelReading { slot, ..tunnel });
        let mut overdue = OverdueTunnels::default();
        assert_eq!(overdue.take(&accepted, Uptime::from_secs(129)), []);
        let closed = overdue.take(&accepted, Uptime::from_secs(130));
        let reason = CloseReason::DialFailed;
        assert_eq!(closed[0].close, Order::Close { slot, reason });
    }

    #[test]
    fn a_later_tunnel_on_the_same_slot_is_reported_again() {
        let mut overdue = OverdueTunnels::default();
        let closing = |since| tunnels(Phase::Closing, since);
        assert_eq!(overdue.take(&closing(100), Uptime::from_secs(120)).len(), 1);
        assert_eq!(overdue.take(&closing(200), Uptime::from_secs(205)).len(), 0);
        assert_eq!(overdue.take(&closing(200), Uptime::from_secs(210)).len(), 1);
    }
}
