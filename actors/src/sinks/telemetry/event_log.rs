//! The log of what changed lately, for `warren events`.
//!
//! It holds the last [`EVENTS_KEPT`] events. Failed dials of one node are folded into one event, so that a peer which is away for days
//! does not push everything else out.

use policies::{
    names::{Prefix, Slot},
    units::Uptime,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use wire::control::{EVENTS_KEPT, EndedFinding, Event, FailedDials, StartedFinding};

/// One event of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRecord {
    /// The number of the event, counted from 1.
    pub number: u64,
    /// When it happened.
    pub at: Uptime,
    /// When the first of the events that are folded into this one happened.
    began_at: Uptime,
    /// The slot that the event concerns.
    pub slot: Option<Slot>,
    /// The node that the event concerns.
    pub node: Option<Prefix>,
    /// What happened to it.
    pub event: Event,
}

/// What an event concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) slot: Option<Slot>,
    pub(super) node: Option<Prefix>,
}

impl Subject {
    /// The tunnel on a slot to a node.
    pub(super) fn tunnel(slot: Slot, node: Prefix) -> Self {
        Self {
            slot: Some(slot),
            node: Some(node),
        }
    }

    /// A node, whatever the tunnels to it.
    pub(super) fn node(node: Option<Prefix>) -> Self {
        Self { slot: None, node }
    }
}

/// A finding that is present now, by its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentFinding {
    /// The label of the finding.
    pub finding: &'static str,
    /// The label of its severity.
    pub severity: &'static str,
    /// What was seen, for people.
    pub seen: String,
}

/// The last events.
#[derive(Clone, Debug, Default)]
pub struct EventLog {
    records: Arc<VecDeque<Arc<EventRecord>>>,
    newest: u64,
    /// The findings of the last assessment, and since when each has been present.
    findings: Arc<BTreeMap<(&'static str, &'static str), Uptime>>,
}

impl EventLog {
    /// The number of the newest event; 0 if there is none.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// The events with a higher number than `after`, by number.
    pub fn after(&self, after: u64) -> impl Iterator<Item = &EventRecord> {
        let first = self
            .records
            .partition_point(|record| record.number <= after);
        self.records.range(first..).map(AsRef::as_ref)
    }

    /// Adds an event.
    pub(super) fn add(&mut self, at: Uptime, subject: Subject, event: Event) {
        self.push(at, at, subject, event);
    }

    fn push(&mut self, at: Uptime, began_at: Uptime, subject: Subject, event: Event) {
        self.newest = self.newest.saturating_add(1);
        let records = Arc::make_mut(&mut self.records);
        records.push_back(Arc::new(EventRecord {
            number: self.newest,
            at,
            began_at,
            slot: subject.slot,
            node: subject.node,
            event,
        }));
        while records.len() > EVENTS_KEPT {
            records.pop_front();
        }
    }

    /// Returns whether the last dials of a node failed.
    pub(super) fn is_failing(&self, node: Prefix) -> bool {
        self.last_failures(node).is_some()
    }

    /// The position of the event that folds the last failed dials of a node; `None` if a tunnel has come up since.
    fn last_failures(&self, node: Prefix) -> Option<usize> {
        let decides = |record: &Arc<EventRecord>| {
            let is_dial = matches!(
                record.event,
                Event::DialsFailed(_) | Event::TunnelUp | Event::TunnelReconnected { .. }
            );
            is_dial && record.node == Some(node)
        };
        let last = self.records.iter().rposition(decides)?;
        let record = self.records.get(last)?;
        matches!(record.event, Event::DialsFailed(_)).then_some(last)
    }

    /// Adds a failed dial: to the event with the failures before it, which is renewed when their number has doubled.
    pub(super) fn add_failed_dial(&mut self, at: Uptime, subject: Subject, reason: String) {
        let found = subject.node.and_then(|node| self.last_failures(node));
        let Some(position) = found else {
            let (count, over_seconds) = (1, 0.0);
            let event = Event::DialsFailed(FailedDials {
                reason,
                count,
                over_seconds,
            });
            return self.add(at, subject, event);
        };
        let records = Arc::make_mut(&mut self.records);
        let Some(mut record) = records.get(position).map(|old| EventRecord::clone(old)) else {
            return;
        };
        let Event::DialsFailed(before) = &record.event else {
            return;
        };
        let count = before.count.saturating_add(1);
        let event = Event::DialsFailed(FailedDials {
            reason,
            count,
            over_seconds: at.since(record.began_at).as_secs_f64(),
        });
        if count.is_power_of_two() {
            records.remove(position);
            self.push(at, record.began_at, subject, event);
        } else {
            record.event = event;
            if let Some(old) = records.get_mut(position) {
                *old = Arc::new(record);
            }
        }
    }

    /// Compares the present findings with the last ones, and adds those that began and those that ended.
    pub(super) fn compare_findings(&mut self, at: Uptime, present: &[PresentFinding]) {
        let key = |found: &PresentFinding| (found.finding, found.severity);
        let keys: BTreeMap<_, _> = present
            .iter()
            .map(|found| {
                (
                    key(found),
                    self.findings.get(&key(found)).copied().unwrap_or(at),
                )
            })
            .collect();
        if keys == *self.findings {
            return;
        }
        let before = std::mem::replace(&mut self.findings, Arc::new(keys.clone()));
        let ended = before.iter().filter(|(key, _)| !keys.contains_key(*key));
        for ((finding, severity), since) in ended {
            let event = Event::FindingEnded(EndedFinding {
                finding: (*finding).to_owned(),
                severity: (*severity).to_owned(),
                lasted_seconds: at.since(*since).as_secs_f64(),
            });
            self.add(at, Subject::default(), event);
        }
        let mut known: Vec<_> = before.keys().copied().collect();
        for found in present {
            if known.contains(&key(found)) {
                continue;
            }
            known.push(key(found));
            let event = Event::FindingStarted(StartedFinding {
                finding: found.finding.to_owned(),
                severity: found.severity.to_owned(),
                seen: found.seen.clone(),
            });
            self.add(at, Subject::default(), event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    fn at(seconds: u64) -> Uptime {
        Uptime::from_secs(seconds)
    }

    fn fail(log: &mut EventLog, seconds: u64, number: u32) {
        let subject = Subject::tunnel(Slot::Dialling(0), peer(number));
        log.add_failed_dial(at(seconds), subject, "dial_failed".to_owned());
    }

    /// The number, and the count of failed dials, of each event.
    fn counts(log: &EventLog) -> Vec<(u64, u64)> {
        let count = |record: &EventRecord| {
            if let Event::DialsFailed(failed) = &record.event {
                failed.count
            } else {
                0
            }
        };
        log.after(0)
            .map(|record| (record.number, count(record)))
            .collect()
    }

    #[test]
    fn failed_dials_of_a_node_are_one_event_that_is_renewed_when_they_double() {
        let mut log = EventLog::default();
        for second in 0..7 {
            fail(&mut log, second, 9);
        }
        assert_eq!(counts(&log), [(3, 7)]);
        let last = log.after(2).next().unwrap();
        let Event::DialsFailed(failed) = &last.event else {
            panic!("{last:?}")
        };
        assert_eq!((last.at, failed.over_seconds), (at(3), 6.0));
    }

    #[test]
    fn a_tunnel_that_came_up_ends_the_row_of_failures_of_its_node_alone() {
        let mut log = EventLog::default();
        fail(&mut log, 1, 9);
        fail(&mut log, 1, 8);
        log.add(
            at(2),
            Subject::tunnel(Slot::Dialling(0), peer(9)),
            Event::TunnelUp,
        );
        assert!(!log.is_failing(peer(9)));
        fail(&mut log, 3, 9);
        fail(&mut log, 3, 8);
        assert_eq!(counts(&log), [(1, 1), (3, 0), (4, 1), (5, 2)]);
    }

    #[test]
    fn only_the_last_events_are_kept_and_a_reader_goes_on_where_it_stopped() {
        let mut log = EventLog::default();
        for _ in 0..3 * EVENTS_KEPT {
            log.add(at(1), Subject::default(), Event::ExitGatewayChanged);
        }
        assert_eq!(log.after(0).count(), EVENTS_KEPT);
        assert_eq!(log.after(log.newest() - 2).count(), 2);
        assert_eq!(log.after(log.newest()).count(), 0);
    }

    #[test]
    fn a_finding_is_an_event_when_it_begins_and_when_it_ends() {
        let mut log = EventLog::default();
        let finding = |seen: &str| PresentFinding {
            finding: "no_route",
            severity: "error",
            seen: seen.to_owned(),
        };
        log.compare_findings(at(1), &[finding("for 1 s"), finding("twice")]);
        log.compare_findings(at(2), &[finding("for 2 s")]);
        log.compare_findings(at(4), &[]);
        log.compare_findings(at(5), &[]);
        let events: Vec<_> = log.after(0).map(|record| record.event.clone()).collect();
        let (finding, severity) = ("no_route".to_owned(), "error".to_owned());
        let began = Event::FindingStarted(StartedFinding {
            finding: finding.clone(),
            severity: severity.clone(),
            seen: "for 1 s".to_owned(),
        });
        let ended = Event::FindingEnded(EndedFinding {
            finding,
            severity,
            lasted_seconds: 3.0,
        });
        assert_eq!(events, [began, ended]);
    }
}
