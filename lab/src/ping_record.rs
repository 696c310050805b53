//! Records what became of each ping of one ordered pair, and sums it up over any span of time.
//!
//! Pure: all moments are spans since the pinger's start, and the caller passes them in.

use std::time::Duration;

/// A ping without a reply after this time is lost, even if a reply comes later.
pub const LOST_AFTER: Duration = Duration::from_secs(2);

/// One echo request and when its first reply came.
#[derive(Clone, Copy, Debug)]
struct Ping {
    sent_at: Duration,
    answered_at: Option<Duration>,
}

impl Ping {
    /// Time from the request to the reply; `None` if the ping is lost.
    fn round_trip(&self) -> Option<Duration> {
        let round_trip = self.answered_at?.saturating_sub(self.sent_at);
        (round_trip <= LOST_AFTER).then_some(round_trip)
    }
}

/// All pings from one node to another, in the order of sending.
#[derive(Clone, Debug, Default)]
pub struct PingRecord {
    pings: Vec<Ping>,
    /// One more than the highest number of an answered ping; 0 while none is answered.
    next_number: usize,
    /// When a second or later reply to a ping came.
    duplicates: Vec<Duration>,
    /// When a reply came after the reply to a later ping.
    reordered: Vec<Duration>,
}

/// What became of the pings that were sent within a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PingSummary {
    /// Pings that were sent, and are old enough to be judged.
    pub sent: u64,
    /// Pings that were answered within [`LOST_AFTER`].
    pub answered: u64,
    /// Pings that were not answered within [`LOST_AFTER`].
    pub lost: u64,
    /// Second and later replies to a ping that came within the span.
    pub duplicates: u64,
    /// Replies within the span that came after the reply to a later ping.
    pub reordered: u64,
    /// The longest time between the sending of two consecutive answered pings. Both ends of the span count as answered
    /// pings.
    pub longest_gap: Duration,
}

impl PingSummary {
    /// Adds another pair's pings; the longer gap stays.
    pub fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.longest_gap = self.longest_gap.max(other.longest_gap);
    }
}

impl PingRecord {
    /// Records that a ping is sent now, and returns its number.
    pub fn add_request(&mut self, now: Duration) -> usize {
        self.pings.push(Ping {
            sent_at: now,
            answered_at: None,
        });
        self.pings.len() - 1
    }

    /// Records that a reply to the ping with this number comes now.
    pub fn add_reply(&mut self, number: usize, now: Duration) {
        let Some(ping) = self.pings.get_mut(number) else {
            return;
        };
        if ping.answered_at.is_some() {
            return self.duplicates.push(now);
        }
        ping.answered_at = Some(now);
        if number < self.next_number {
            self.reordered.push(now);
        }
        self.next_number = self.next_number.max(number + 1);
    }

    /// Whether any ping of the record was answered.
    pub fn is_answered(&self) -> bool {
        self.next_number > 0
    }

    /// When the first reply came to a ping that was sent at `from` or later.
    pub fn first_reply(&self, from: Duration) -> Option<Duration> {
        self.sent_since(from)
            .iter()
            .filter_map(|ping| ping.answered_at)
            .min()
    }

    /// When the latest of the answered pings was sent.
    pub fn last_answered(&self) -> Option<Duration> {
        self.pings
            .iter()
            .rev()
            .find(|ping| ping.answered_at.is_some())
            .map(|ping| ping.sent_at)
    }

    /// When those pings were sent that [`PingRecord::summarize`] counts as lost.
    pub fn lost_pings(&self, from: Duration, to: Duration, now: Duration) -> Vec<Duration> {
        self.sent_within(from, to.min(judged_until(now)))
            .filter(|ping| ping.round_trip().is_none())
            .map(|ping| ping.sent_at)
            .collect()
    }

    /// The mean round trip of the pings sent from `from` on and before `to`; `None` if none was answered in time.
    pub fn mean_round_trip(&self, from: Duration, to: Duration) -> Option<Duration> {
        let round_trips = self.sent_within(from, to).filter_map(Ping::round_trip);
        let (sum, count) = round_trips.fold((Duration::ZERO, 0u32), |(sum, count), round_trip| {
            (sum + round_trip, count + 1)
        });
        sum.checked_div(count)
    }

    /// Sums up the pings sent from `from` on and before `to`. Pings sent within [`LOST_AFTER`] before `now` are not
    /// judged, since a reply may still come.
    pub fn summarize(&self, from: Duration, to: Duration, now: Duration) -> PingSummary {
        let to = to.min(judged_until(now));
        let count_within = |moments: &[Duration]| {
            let count = moments.iter().filter(|at| (from..to).contains(*at)).count();
            u64::try_from(count).unwrap_or(u64::MAX)
        };
        let mut summary = PingSummary {
            duplicates: count_within(&self.duplicates),
            reordered: count_within(&self.reordered),
            ..PingSummary::default()
        };
        let mut last_answered = from;
        for ping in self.sent_within(from, to) {
            summary.sent += 1;
            if ping.round_trip().is_some() {
                summary.answered += 1;
                let gap = ping.sent_at.saturating_sub(last_answered);
                summary.longest_gap = summary.longest_gap.max(gap);
                last_answered = ping.sent_at;
            } else {
                summary.lost += 1;
            }
        }
        summary.longest_gap = summary.longest_gap.max(to.saturating_sub(last_answered));
        summary
    }

    fn sent_since(&self, from: Duration) -> &[Ping] {
        let first = self.pings.partition_point(|ping| ping.sent_at < from);
        self.pings.get(first..).unwrap_or_default()
    }

    fn sent_within(&self, from: Duration, to: Duration) -> impl Iterator<Item = &Ping> {
        self.sent_since(from)
            .iter()
            .take_while(move |ping| ping.sent_at < to)
    }
}

/// The moment before which a ping must have been sent to be judged.
fn judged_until(now: Duration) -> Duration {
    now.saturating_sub(LOST_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Ten pings are sent, one every 10 ms from 0 on; `replies` are pairs of number and moment in ms. The summary covers
    /// 0 to 100 ms and is made at 10 s.
    #[track_caller]
    fn check(replies: &[(usize, u64)], expected: PingSummary) {
        let mut record = PingRecord::default();
        for number in 0..10 {
            record.add_request(ms(number * 10));
        }
        for (number, at) in replies {
            record.add_reply(*number, ms(*at));
        }
        let summary = record.summarize(ms(0), ms(100), ms(10_000));
        assert_eq!(summary, expected);
        let lost = record.lost_pings(ms(0), ms(100), ms(10_000)).len();
        assert_eq!(u64::try_from(lost).unwrap(), summary.lost);
    }

    #[test]
    fn without_a_reply_all_pings_are_lost_and_the_gap_is_the_span_of_the_record() {
        check(
            &[],
            PingSummary {
                sent: 10,
                lost: 10,
                longest_gap: ms(100),
                ..PingSummary::default()
            },
        );
    }

    #[test]
    fn the_gap_is_between_the_sending_of_answered_pings() {
        let replies = [(0, 5), (1, 15), (6, 65), (7, 75), (8, 85), (9, 95)];
        check(
            &replies,
            PingSummary {
                sent: 10,
                answered: 6,
                lost: 4,
                longest_gap: ms(50),
                ..PingSummary::default()
            },
        );
    }

    #[test]
    fn a_reply_after_more_than_two_seconds_is_too_late() {
        let replies = |last: u64| -> Vec<(usize, u64)> {
            (0..9).map(|n| (n, 91)).chain([(9, last)]).collect()
        };
        let all_answered = PingSummary {
            sent: 10,
            answered: 10,
            longest_gap: ms(10),
            ..PingSummary::default()
        };
        check(&replies(90 + 2000), all_answered);
        check(
            &replies(90 + 2001),
            PingSummary {
                answered: 9,
                lost: 1,
                longest_gap: ms(20),
                ..all_answered
            },
        );
    }

    #[test]
    fn duplicates_and_reordering_are_counted_apart_from_loss() {
        let mut replies: Vec<(usize, u64)> = (0..10).map(|number| (number, 95)).collect();
        replies.swap(3, 4);
        replies.push((9, 96));
        let expected = PingSummary {
            sent: 10,
            answered: 10,
            longest_gap: ms(10),
            ..PingSummary::default()
        };
        check(
            &replies,
            PingSummary {
                duplicates: 1,
                reordered: 1,
                ..expected
            },
        );
    }

    #[test]
    fn pings_that_may_still_be_answered_are_not_judged() {
        let mut record = PingRecord::default();
        for number in 0..300 {
            record.add_request(ms(number * 10));
        }
        assert_eq!(record.summarize(ms(0), ms(3000), ms(3000)).sent, 100);
    }
}
