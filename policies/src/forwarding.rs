//! Decides when it is probed whether the host forwards packets of other nodes, and when the node believes what was found.

use crate::units::Uptime;
use std::time::Duration;

/// Minimum interval between two probes, unless the last one has to be confirmed.
const PROBE_INTERVAL: Duration = Duration::from_secs(20);

/// Span in which each probe must contradict what the node believes of forwarding before it believes the contrary: a busy host answers
/// some probes too late.
const CONTRADICTION_SPAN: Duration = Duration::from_secs(20);

/// Minimum number of probes in that span.
const MIN_CONTRADICTIONS: u32 = 5;

/// Minimum time between two changes, each of which makes babeld restart.
const CHANGE_INTERVAL: Duration = Duration::from_secs(60);

/// The probes of forwarding that contradict what the node believes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForwardingProbes {
    /// When it was last probed; `None` before the first probe.
    probed_at: Option<Uptime>,
    /// Since when each probe contradicted it; `None` if the last one did not.
    contradicted_since: Option<Uptime>,
    /// Number of probes since then.
    contradictions: u32,
    /// When the node last changed what it believes; `None` before the first change.
    changed_at: Option<Uptime>,
}

impl ForwardingProbes {
    /// Returns whether a probe is due at this time, and takes it as done.
    pub fn is_due(&mut self, at: Uptime) -> bool {
        let last = self.probed_at.filter(|_| self.contradicted_since.is_none());
        let is_due = last.is_none_or(|last| at.since(last) >= PROBE_INTERVAL);
        if is_due {
            self.probed_at = Some(at);
        }
        is_due
    }

    /// Returns whether the node believes that the host drops packets, after a probe that found whether it does.
    pub fn believed(&mut self, is_blocked: bool, found: bool, at: Uptime) -> bool {
        if found == is_blocked {
            (self.contradicted_since, self.contradictions) = (None, 0);
            return is_blocked;
        }
        let since = *self.contradicted_since.get_or_insert(at);
        self.contradictions = self.contradictions.saturating_add(1);
        let is_long =
            at.since(since) >= CONTRADICTION_SPAN && self.contradictions >= MIN_CONTRADICTIONS;
        let is_early = self
            .changed_at
            .is_some_and(|changed| at.since(changed) < CHANGE_INTERVAL);
        if !is_long || is_early {
            return is_blocked;
        }
        *self = Self {
            probed_at: self.probed_at,
            changed_at: Some(at),
            ..Self::default()
        };
        !is_blocked
    }

    /// Returns whether the last probe contradicted what the node believes, so that another one has to confirm it soon.
    pub fn is_contradicted(&self) -> bool {
        self.contradicted_since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probes a host every four seconds, and returns the seconds at which the node changes what it believes.
    fn changes(is_dropping: impl Fn(u64) -> bool) -> Vec<u64> {
        let (mut probes, mut is_blocked) = (ForwardingProbes::default(), false);
        let mut changes = Vec::new();
        for second in (0..1000).step_by(4) {
            let found = is_dropping(second);
            let believed = probes.believed(is_blocked, found, Uptime::from_secs(second));
            if std::mem::replace(&mut is_blocked, believed) != believed {
                changes.push(second);
            }
        }
        changes
    }

    #[test]
    fn a_node_changes_its_role_after_twenty_seconds_of_contradictions_and_at_most_once_a_minute() {
        assert_eq!(changes(|second| second >= 100), [120]);
        assert_eq!(changes(|second| (100..124).contains(&second)), [120, 180]);
        let passes_now_and_then = changes(|second| second % 20 != 0);
        assert!(passes_now_and_then.is_empty());
    }

    #[test]
    fn a_few_probes_prove_nothing() {
        let mut probes = ForwardingProbes::default();
        for second in [0, 100, 200, 300] {
            assert!(!probes.believed(false, true, Uptime::from_secs(second)));
        }
        assert!(probes.believed(false, true, Uptime::from_secs(400)));
    }

    #[test]
    fn forwarding_is_probed_seldom_unless_a_contradiction_has_to_be_confirmed() {
        let mut probes = ForwardingProbes::default();
        assert!(probes.is_due(Uptime::from_secs(0)));
        assert!(!probes.is_due(Uptime::from_secs(10)));
        assert!(probes.is_due(Uptime::from_secs(20)));
        probes.believed(false, true, Uptime::from_secs(20));
        assert!(probes.is_due(Uptime::from_secs(24)));
    }
}
