//! Keeps what became of each ping of one ordered pair, and sums it up over any span of time.
//!
//! Pure: moments are spans since the pinger's start, told by the caller.

use std::time::Duration;

/// A ping without an answer after this long is lost, even if an answer comes later.
pub const LOST_AFTER: Duration = Duration::from_secs(2);

/// One ping.
#[derive(Clone, Copy, Debug)]
struct Echo {
    sent: Duration,
    answered: Option<Duration>,
}

impl Echo {
    fn is_in_time(&self) -> bool {
        self.answered
            .is_some_and(|at| at.saturating_sub(self.sent) <= LOST_AFTER)
    }
}

/// All pings from one node to another, in the order of sending.
#[derive(Clone, Debug, Default)]
pub struct Pair {
    echoes: Vec<Echo>,
    /// The number after that of the latest ping answered.
    next: usize,
    duplicates: Vec<Duration>,
    reordered: Vec<Duration>,
}

/// What became of the pings that were sent within a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Sent, and old enough to be judged.
    pub sent: u64,
    /// Answered in time.
    pub answered: u64,
    /// Not answered within [`LOST_AFTER`].
    pub lost: u64,
    /// Answers that came again, within the span.
    pub duplicates: u64,
    /// Answers that came after that of a later ping, within the span.
    pub reordered: u64,
    /// The longest time between the sending of two consecutive answered pings, the ends of the span taken for
    /// answered.
    pub longest_gap: Duration,
}

impl Summary {
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

impl Pair {
    /// A ping goes out now; its number.
    pub fn send(&mut self, now: Duration) -> usize {
        self.echoes.push(Echo {
            sent: now,
            answered: None,
        });
        self.echoes.len() - 1
    }

    /// The ping with that number is answered now.
    pub fn answer(&mut self, number: usize, now: Duration) {
        let Some(echo) = self.echoes.get_mut(number) else {
            return;
        };
        if echo.answered.is_some() {
            return self.duplicates.push(now);
        }
        echo.answered = Some(now);
        if number < self.next {
            self.reordered.push(now);
        }
        self.next = self.next.max(number + 1);
    }

    /// Whether any ping was answered.
    pub fn is_answered(&self) -> bool {
        self.next > 0
    }

    /// When the first answer came of a ping sent at `from` or later.
    pub fn first_answer(&self, from: Duration) -> Option<Duration> {
        self.since(from)
            .iter()
            .filter_map(|echo| echo.answered)
            .min()
    }

    /// When the latest ping that was answered had been sent.
    pub fn last_answered(&self) -> Option<Duration> {
        self.echoes
            .iter()
            .rev()
            .find(|echo| echo.answered.is_some())
            .map(|echo| echo.sent)
    }

    /// When the pings were sent that [`Pair::sum_up`] counts as lost.
    pub fn losses(&self, from: Duration, to: Duration, now: Duration) -> Vec<Duration> {
        let to = to.min(now.saturating_sub(LOST_AFTER));
        let within = self.since(from).iter().take_while(|echo| echo.sent < to);
        within
            .filter(|echo| !echo.is_in_time())
            .map(|echo| echo.sent)
            .collect()
    }

    /// The mean round trip of the pings sent from `from` on and before `to`; `None` where none was answered in time.
    pub fn mean_round_trip(&self, from: Duration, to: Duration) -> Option<Duration> {
        let within = self
            .since(from)
            .iter()
            .take_while(|echo| echo.sent < to)
            .filter(|echo| echo.is_in_time());
        let trips = within.filter_map(|echo| Some(echo.answered?.saturating_sub(echo.sent)));
        let (sum, count) = trips.fold((Duration::ZERO, 0u32), |(sum, count), trip| {
            (sum + trip, count + 1)
        });
        sum.checked_div(count)
    }

    fn since(&self, from: Duration) -> &[Echo] {
        let first = self.echoes.partition_point(|echo| echo.sent < from);
        self.echoes.get(first..).unwrap_or_default()
    }

    /// Sums up the pings sent from `from` on and before `to`; what was sent within [`LOST_AFTER`] before `now`
    /// is not judged.
    pub fn sum_up(&self, from: Duration, to: Duration, now: Duration) -> Summary {
        let to = to.min(now.saturating_sub(LOST_AFTER));
        let inside =
            |moments: &[Duration]| moments.iter().filter(|at| (from..to).contains(*at)).count();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let mut summary = Summary {
            duplicates: count(inside(&self.duplicates)),
            reordered: count(inside(&self.reordered)),
            ..Summary::default()
        };
        let mut last = from;
        for echo in self.since(from).iter().take_while(|echo| echo.sent < to) {
            summary.sent += 1;
            if echo.is_in_time() {
                summary.answered += 1;
                summary.longest_gap = summary.longest_gap.max(echo.sent.saturating_sub(last));
                last = echo.sent;
            } else {
                summary.lost += 1;
            }
        }
        summary.longest_gap = summary.longest_gap.max(to.saturating_sub(last));
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Pings each 10 ms from 0 on; `answers` are (number, moment in ms); judged from 0 to 100 ms, at 10 s.
    #[track_caller]
    fn check(answers: &[(usize, u64)], expected: Summary) {
        let mut pair = Pair::default();
        for number in 0..10 {
            pair.send(ms(number * 10));
        }
        for (number, at) in answers {
            pair.answer(*number, ms(*at));
        }
        let summary = pair.sum_up(ms(0), ms(100), ms(10_000));
        assert_eq!(summary, expected);
        let losses = pair.losses(ms(0), ms(100), ms(10_000)).len();
        assert_eq!(u64::try_from(losses).unwrap(), summary.lost);
    }

    #[test]
    fn without_an_answer_all_is_lost_and_the_gap_is_the_span() {
        check(
            &[],
            Summary {
                sent: 10,
                lost: 10,
                longest_gap: ms(100),
                ..Summary::default()
            },
        );
    }

    #[test]
    fn the_gap_lies_between_the_sending_of_answered_pings() {
        let answers = [(0, 5), (1, 15), (6, 65), (7, 75), (8, 85), (9, 95)];
        check(
            &answers,
            Summary {
                sent: 10,
                answered: 6,
                lost: 4,
                longest_gap: ms(50),
                ..Summary::default()
            },
        );
    }

    #[test]
    fn an_answer_after_two_seconds_is_too_late() {
        let all = |last: u64| -> Vec<(usize, u64)> {
            (0..9).map(|n| (n, 91)).chain([(9, last)]).collect()
        };
        let good = Summary {
            sent: 10,
            answered: 10,
            longest_gap: ms(10),
            ..Summary::default()
        };
        check(&all(90 + 2000), good);
        check(
            &all(90 + 2001),
            Summary {
                answered: 9,
                lost: 1,
                longest_gap: ms(20),
                ..good
            },
        );
    }

    #[test]
    fn duplicates_and_reordering_are_counted_apart_from_loss() {
        let mut answers: Vec<(usize, u64)> = (0..10).map(|number| (number, 95)).collect();
        answers.swap(3, 4);
        answers.push((9, 96));
        let expected = Summary {
            sent: 10,
            answered: 10,
            longest_gap: ms(10),
            ..Summary::default()
        };
        check(
            &answers,
            Summary {
                duplicates: 1,
                reordered: 1,
                ..expected
            },
        );
    }

    #[test]
    fn what_may_still_be_answered_is_not_judged() {
        let mut pair = Pair::default();
        for number in 0..300 {
            pair.send(ms(number * 10));
        }
        assert_eq!(pair.sum_up(ms(0), ms(3000), ms(3000)).sent, 100);
    }
}
