//! Logs what was restored on the host, at most once in a while for each kind.

use os::kernel::{Repair, RepairKind};
use policies::units::Uptime;
use std::{collections::BTreeMap, time::Duration};

/// Minimum interval between two lines about repairs of one kind.
const LINE_INTERVAL: Duration = Duration::from_secs(600);

/// When repairs of each kind were last logged, and how many followed since.
#[derive(Default)]
pub struct RepairLog(BTreeMap<RepairKind, (Uptime, usize)>);

impl RepairLog {
    /// Logs repairs, one line for each kind, unless there was a line about that kind a short while ago.
    pub fn log(&mut self, at: Uptime, repairs: &[Repair]) {
        for kind in RepairKind::ALL {
            let of_kind: Vec<_> = repairs
                .iter()
                .filter(|repair| repair.kind == *kind)
                .collect();
            if let (Some(first), Some(earlier)) =
                (of_kind.first(), self.is_due(*kind, of_kind.len(), at))
            {
                tracing::warn!(
                    kind = kind.label(),
                    first = first.object,
                    count = of_kind.len(),
                    unlogged = earlier,
                    "another program removed or changed what the node has on this host; it was restored"
                );
            }
        }
    }

    /// Counts repairs, and returns how many were not logged before these; `None` if these are not to be logged either.
    fn is_due(&mut self, kind: RepairKind, count: usize, at: Uptime) -> Option<usize> {
        if count == 0 {
            return None;
        }
        match self.0.get_mut(&kind) {
            Some((logged_at, unlogged)) if at.since(*logged_at) < LINE_INTERVAL => {
                *unlogged = unlogged.saturating_add(count);
                None
            }
            Some(_) | None => {
                let earlier = self.0.insert(kind, (at, 0));
                Some(earlier.map_or(0, |(_, unlogged)| unlogged))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repairs_of_one_kind_are_logged_once_in_ten_minutes_and_the_others_are_counted() {
        let mut log = RepairLog::default();
        let mut due = |seconds| log.is_due(RepairKind::Rule, 2, Uptime::from_secs(seconds));
        assert_eq!(due(1), Some(0));
        assert_eq!(due(2), None);
        assert_eq!(due(600), None);
        assert_eq!(due(601), Some(4));
        assert_eq!(due(602), None);
        assert_eq!(
            log.is_due(RepairKind::Route, 1, Uptime::from_secs(3)),
            Some(0)
        );
        assert_eq!(log.is_due(RepairKind::Link, 0, Uptime::from_secs(3)), None);
    }
}
