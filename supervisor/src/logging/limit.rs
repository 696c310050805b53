//! Limits how many log lines of one kind are written, so that no peer can fill the disk with complaints about itself.
//!
//! Lines are of one kind if one place in the code writes them about one peer, slot or child. What a line says about them may be chosen by a
//! peer, so it makes no kind of its own. Lines at the levels debug and trace were asked for, and are not limited.

use os::clock::Clock;
use policies::units::Uptime;
use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Filter};

/// Number of lines of one kind that are written without a pause.
const BURST: u32 = 20;
/// After [`BURST`] lines, one more line of the kind is written per this time: ten a minute.
const REFILL_INTERVAL: Duration = Duration::from_secs(6);
/// Maximum number of kinds that are distinguished: some hundred bytes each. Beyond it, lines about different peers are of one kind.
const MAX_KINDS: usize = 1024;
/// Interval at which the numbers of dropped lines are logged.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of kinds in a report; the others are added up.
const MAX_REPORTED: usize = 10;
/// The fields that say what a line is about.
const SUBJECTS: [&str; 8] = [
    "child",
    "from",
    "gateway",
    "neighbour",
    "peer",
    "slot",
    "tunnel",
    "user",
];

/// The place in the code that writes a line, and a hash of what the line is about.
type Kind = (&'static str, u64);

/// Numbers of dropped lines by place, with the message of the last one.
type Dropped = BTreeMap<&'static str, (u64, String)>;

/// The lines of one kind.
struct Bucket {
    /// The number of lines that may still be written.
    left: u32,
    refilled_at: Uptime,
}

#[derive(Default)]
struct State {
    buckets: BTreeMap<Kind, Bucket>,
    /// What was dropped since the last report.
    dropped: Dropped,
}

/// A filter that drops lines of a kind of which too many were written. Clones share their counts.
#[derive(Clone)]
pub struct LineLimit {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

impl LineLimit {
    /// Builds a filter that has counted nothing yet.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole after each statement that changes it, so a panic elsewhere does no harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a line, and returns whether it is written.
    fn admit(&self, place: &'static str, line: &Line) -> bool {
        let now = self.clock.now();
        let mut state = self.state();
        let mut kind = (place, line.subject);
        if state.buckets.len() >= MAX_KINDS && !state.buckets.contains_key(&kind) {
            state
                .buckets
                .retain(|_, bucket| now.since(bucket.refilled_at) < REFILL_INTERVAL * BURST);
            if state.buckets.len() >= MAX_KINDS {
                kind = (place, 0);
            }
        }
        let bucket = state.buckets.entry(kind).or_insert(Bucket {
            left: BURST,
            refilled_at: now,
        });
        bucket.refill(now);
        if bucket.left > 0 {
            bucket.left -= 1;
            return true;
        }
        let dropped = state.dropped.entry(place).or_default();
        dropped.0 = dropped.0.saturating_add(1);
        dropped.1.clone_from(&line.message);
        false
    }

    /// Logs how many lines were dropped since the last report, one line for each message.
    pub fn report(&self) {
        let dropped = std::mem::take(&mut self.state().dropped);
        let mut dropped: Vec<_> = dropped.into_values().collect();
        dropped.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        for (count, message) in dropped.iter().take(MAX_REPORTED) {
            tracing::warn!(count, message, "similar log lines were dropped");
        }
        let others: u64 = dropped
            .iter()
            .skip(MAX_REPORTED)
            .map(|(count, _)| count)
            .sum();
        if others > 0 {
            tracing::warn!(count = others, "other log lines were dropped");
        }
    }
}

impl Bucket {
    fn refill(&mut self, now: Uptime) {
        while self.left < BURST && now.since(self.refilled_at) >= REFILL_INTERVAL {
            self.left += 1;
            self.refilled_at = self.refilled_at + REFILL_INTERVAL;
        }
        if self.left == BURST {
            self.refilled_at = now;
        }
    }
}

impl<S: Subscriber> Filter<S> for LineLimit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return true;
        }
        let mut line = Line::default();
        event.record(&mut line);
        self.admit(metadata.name(), &line)
    }
}

/// What the limit needs to know of a line.
#[derive(Default)]
struct Line {
    /// A hash of the values of [`SUBJECTS`].
    subject: u64,
    message: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else if SUBJECTS.contains(&field.name()) {
            let mut hasher = DefaultHasher::new();
            (self.subject, field.name(), format!("{value:?}")).hash(&mut hasher);
            self.subject = hasher.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn limit() -> (LineLimit, Arc<AtomicU64>) {
        let seconds = Arc::new(AtomicU64::new(1_000));
        let read = Arc::clone(&seconds);
        let clock = Clock::from_fn(move || Uptime::from_secs(read.load(Ordering::Relaxed)));
        (LineLimit::new(clock), seconds)
    }

    fn line(subject: u64) -> Line {
        Line {
            subject,
            message: format!("odd route {subject}"),
        }
    }

    #[test]
    fn lines_about_one_peer_are_limited_and_those_about_another_are_not() {
        let (limit, seconds) = limit();
        let count = |subject| {
            (0..1_000)
                .filter(|_| limit.admit("a", &line(subject)))
                .count()
        };
        assert_eq!((count(1), count(2), count(1)), (20, 20, 0));
        seconds.fetch_add(60, Ordering::Relaxed);
        assert_eq!((count(1), count(1)), (10, 0));
        seconds.fetch_add(3_600, Ordering::Relaxed);
        assert_eq!(count(1), 20);
        let dropped = limit.state().dropped.clone();
        assert_eq!(
            dropped.get("a").map(|(count, _)| *count),
            Some(980 * 2 + 1_000 + 990 + 1_000 + 980)
        );
    }

    #[test]
    fn the_number_of_kinds_is_bounded_and_lines_beyond_it_are_limited_together() {
        let (limit, _) = limit();
        let kinds = u64::try_from(MAX_KINDS).unwrap();
        let admitted = (0..kinds * 3)
            .filter(|subject| limit.admit("a", &line(subject + 1)))
            .count();
        assert_eq!(limit.state().buckets.len(), MAX_KINDS + 1);
        assert_eq!(admitted, MAX_KINDS + 20);
    }
}
