//! Decides when a child process is started, asked to end, and killed.
//!
//! One table serves all children (OpenVPN, babeld). It knows nothing of pids, pipes or signals: it takes events, and
//! answers each with at most one order.

use crate::{rng::Rng, units::Uptime};
use std::{collections::VecDeque, time::Duration};

/// The time limits of a child's life. The defaults are law 5 of `docs/ARCHITECTURE.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A child that is not ready this long after its start is stopped.
    pub start: Duration,
    /// A child that lives this long after SIGTERM gets SIGKILL.
    pub stop: Duration,
    /// The delay after the first unwanted exit of a child that was not up for long. It doubles with each, and up to half of it is added at random.
    pub back_off_from: Duration,
    /// The longest delay after an unwanted exit.
    pub back_off_to: Duration,
    /// A child that was up for this long is started again at once after its first unwanted exit.
    pub settle: Duration,
    /// Once a child has been up for this long, its earlier exits no longer count.
    pub forgive: Duration,
    /// Most starts per minute, wanted or not.
    pub starts_a_minute: usize,
    /// A child that is up and gives no sign of life for this long is stopped, and started again; `None` if none is expected.
    pub silence: Option<Duration>,
}

impl Limits {
    /// The limits of law 5.
    pub const DEFAULT: Self = Self {
        start: Duration::from_secs(30),
        stop: Duration::from_secs(2),
        back_off_from: Duration::from_millis(500),
        back_off_to: Duration::from_secs(60),
        settle: Duration::from_secs(10),
        forgive: Duration::from_secs(120),
        starts_a_minute: 10,
        silence: None,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The state of a child.
///
/// ```text
///             Wanted or Tick, wanted and until <= now: SPAWN
///   ┌──────┐ ───────────────────────────────────────► ┌──────────┐
///   │ Down │                                          │ Starting │
///   └──────┘ ◄──────────────── Exited ─────────────── └──────────┘
///    ▲    ▲                                     Ready │        │ Unwanted, or Tick at the
///    │    └─────────── Exited ──────── ┌────┐ ◄───────┘        │ deadline: STOP
///    │                                 │ Up │                  │
///    │                                 └────┘                  │
///    │                                   │ Unwanted: STOP      │
///    │                                   ▼                     ▼
///    │                               ┌──────────────────────────┐
///    └─────────── Exited ─────────── │         Stopping         │ ──┐ Tick at the deadline: KILL
///                                    └──────────────────────────┘ ◄─┘ (again each stop deadline)
/// ```
///
/// Whether the child is wanted is remembered beside the state. A child that is wanted again while it stops is started
/// after its exit, and one that exits by itself is started again after the back-off, which is zero if it was up for a while
/// and has not failed lately ([`Limits::settle`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The child does not run, and is not started before `until`.
    Down {
        /// The end of the back-off.
        until: Uptime,
    },
    /// The child was spawned and is not ready yet.
    Starting {
        /// The moment at which it is stopped if it is still not ready.
        deadline: Uptime,
    },
    /// The child has reported that it is ready.
    Up {
        /// The moment of that report.
        since: Uptime,
    },
    /// The child was asked to end.
    Stopping {
        /// The moment at which it is killed, or killed again.
        deadline: Uptime,
        /// It was stopped because it never became ready, or gave no sign of life, so its exit counts for the back-off.
        failed: bool,
    },
}

/// An event in a child's life, or a change of the wish for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// The child shall run.
    Wanted,
    /// The child shall not run.
    Unwanted,
    /// The child has reported that it is ready.
    Ready,
    /// The child has given a sign of life.
    Alive,
    /// The child has exited, or could not be spawned.
    Exited,
    /// Time has passed.
    Tick,
}

/// An order about a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Spawn the process.
    Spawn,
    /// Ask the process to end (SIGTERM).
    Stop,
    /// Kill the process (SIGKILL).
    Kill,
}

/// The life of one child.
#[derive(Clone, Debug)]
pub struct Life {
    limits: Limits,
    state: State,
    wanted: bool,
    /// Unwanted exits in a row.
    failures: u32,
    starts: u64,
    recent_starts: VecDeque<Uptime>,
    /// The moment of the last sign of life.
    heard_at: Uptime,
    ticked_at: Uptime,
    rng: Rng,
}

/// If ticks stay away for this long, this process itself did not run, and the silence of a child proves nothing.
const MAX_TICK_INTERVAL: Duration = Duration::from_secs(2);

/// The span over which starts are limited.
const MINUTE: Duration = Duration::from_secs(60);

impl Life {
    /// A child that was never started and is not wanted yet.
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self {
            limits,
            state: State::Down {
                until: Uptime::default(),
            },
            wanted: false,
            failures: 0,
            starts: 0,
            recent_starts: VecDeque::new(),
            heard_at: Uptime::default(),
            ticked_at: Uptime::default(),
            rng: Rng::new(seed),
        }
    }

    /// A child that is wanted, and has been up since `since`.
    pub fn running(limits: Limits, seed: u64, since: Uptime, now: Uptime) -> Self {
        Self {
            state: State::Up { since },
            wanted: true,
            heard_at: now,
            ticked_at: now,
            ..Self::new(limits, seed)
        }
    }

    /// Takes one event; the order that it returns must be carried out.
    pub fn on(&mut self, event: Event, now: Uptime) -> Option<Order> {
        use {Event as E, Order as O, State as S};
        match event {
            E::Wanted => self.wanted = true,
            E::Unwanted => self.wanted = false,
            E::Ready | E::Alive => self.heard_at = now,
            E::Tick => {
                if now.since(self.ticked_at) > MAX_TICK_INTERVAL {
                    self.heard_at = now;
                }
                self.ticked_at = now;
            }
            E::Exited => {}
        }
        let stopping = |failed| S::Stopping {
            deadline: now + self.limits.stop,
            failed,
        };
        let (state, order) = match (self.state, event) {
            (S::Down { until }, E::Wanted | E::Tick) if self.wanted && until <= now => {
                (self.started(now), Some(O::Spawn))
            }
            (S::Starting { .. }, E::Ready) => (S::Up { since: now }, None),
            (S::Starting { deadline }, E::Tick) if deadline <= now => {
                (stopping(true), Some(O::Stop))
            }
            (S::Starting { .. } | S::Up { .. }, E::Unwanted) => (stopping(false), Some(O::Stop)),
            (S::Up { .. }, E::Tick) if self.is_silent(now) => (stopping(true), Some(O::Stop)),
            (S::Stopping { deadline, failed }, E::Tick) if deadline <= now => {
                (stopping(failed), Some(O::Kill))
            }
            (S::Up { since }, E::Exited) => (self.after_exit(now, now.since(since)), None),
            (S::Starting { .. } | S::Stopping { failed: true, .. }, E::Exited) => {
                (self.after_exit(now, Duration::ZERO), None)
            }
            (S::Stopping { failed: false, .. }, E::Exited) => (
                S::Down {
                    until: self.allowed(now),
                },
                None,
            ),
            (
                same @ (S::Down { .. } | S::Starting { .. } | S::Up { .. } | S::Stopping { .. }),
                E::Wanted | E::Unwanted | E::Ready | E::Alive | E::Exited | E::Tick,
            ) => (same, None),
        };
        self.state = state;
        order
    }

    /// Returns whether a sign of life was expected, and stayed away.
    fn is_silent(&self, now: Uptime) -> bool {
        let limit = self.limits.silence;
        limit.is_some_and(|limit| now.since(self.heard_at) >= limit)
    }

    /// The state that the child is in.
    pub fn state(&self) -> State {
        self.state
    }

    /// Returns whether the child shall run.
    pub fn wanted(&self) -> bool {
        self.wanted
    }

    /// The number of starts so far, the first included.
    pub fn starts(&self) -> u64 {
        self.starts
    }

    /// The number of unwanted exits in a row; zero again after [`Limits::forgive`].
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn started(&mut self, now: Uptime) -> State {
        self.starts = self.starts.saturating_add(1);
        self.recent_starts.push_back(now);
        while self.recent_starts.len() > self.limits.starts_a_minute.max(1) {
            self.recent_starts.pop_front();
        }
        State::Starting {
            deadline: now + self.limits.start,
        }
    }

    /// The state after an exit that was not wanted.
    fn after_exit(&mut self, now: Uptime, was_up: Duration) -> State {
        if was_up >= self.limits.forgive {
            self.failures = 0;
        }
        let doubled = 2u32.checked_pow(self.failures).unwrap_or(u32::MAX);
        let base = self.limits.back_off_from.saturating_mul(doubled);
        let wait = if self.failures == 0 && was_up >= self.limits.settle {
            Duration::ZERO
        } else {
            self.rng
                .span(base, base.saturating_add(base / 2))
                .min(self.limits.back_off_to)
        };
        self.failures = self.failures.saturating_add(1);
        State::Down {
            until: self.allowed(now + wait),
        }
    }

    /// The moment `at`, or a later one if the starts of the last minute are used up.
    fn allowed(&self, at: Uptime) -> Uptime {
        if self.recent_starts.len() < self.limits.starts_a_minute.max(1) {
            return at;
        }
        self.recent_starts
            .front()
            .map_or(at, |oldest| at.max(*oldest + MINUTE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use {Event as E, Order as O};

    const LIMITS: Limits = Limits {
        start: Duration::from_secs(30),
        stop: Duration::from_secs(2),
        back_off_from: Duration::from_millis(500),
        back_off_to: Duration::from_secs(60),
        settle: Duration::from_secs(10),
        forgive: Duration::from_secs(120),
        starts_a_minute: 10,
        silence: Some(Duration::from_secs(20)),
    };

    fn at(seconds: u64) -> Uptime {
        Uptime::from_secs(seconds)
    }

    /// A life after these `events` (at seconds), and its last order.
    fn live(events: &[(u64, Event)]) -> (Life, Option<Order>) {
        let mut life = Life::new(LIMITS, 1);
        let last = events
            .iter()
            .map(|(second, event)| life.on(*event, at(*second)))
            .last();
        (life, last.flatten())
    }

    #[track_caller]
    fn check(events: &[(u64, Event)], order: Option<Order>, state: fn(State) -> bool) {
        let (life, last) = live(events);
        assert_eq!(last, order, "{events:?}");
        assert!(state(life.state()), "{events:?}: {:?}", life.state());
    }

    fn down(state: State) -> bool {
        matches!(state, State::Down { .. })
    }
    fn starting(state: State) -> bool {
        matches!(state, State::Starting { .. })
    }
    fn up(state: State) -> bool {
        matches!(state, State::Up { .. })
    }
    fn stopping(state: State) -> bool {
        matches!(state, State::Stopping { .. })
    }

    const TO_STARTING: &[(u64, Event)] = &[(0, E::Wanted)];
    const TO_UP: &[(u64, Event)] = &[(0, E::Wanted), (1, E::Ready)];
    const TO_STOPPING: &[(u64, Event)] = &[(0, E::Wanted), (1, E::Ready), (2, E::Unwanted)];
    const TO_WAITING: &[(u64, Event)] = &[(0, E::Wanted), (1, E::Ready), (2, E::Exited)];

    /// The second at which a child that was up at 1, and gave signs of life at `heard`, is stopped; ticks come once a second but
    /// for those in `missed`.
    fn stopped_at(heard: &[u64], missed: std::ops::Range<u64>) -> Option<u64> {
        let mut life = live(TO_UP).0;
        (2..100)
            .filter(|second| !missed.contains(second))
            .find(|second| {
                if heard.contains(second) {
                    life.on(E::Alive, at(*second));
                }
                life.on(E::Tick, at(*second)) == Some(O::Stop)
            })
    }

    #[test]
    fn a_child_without_a_sign_of_life_is_stopped_unless_this_process_stood_still_itself() {
        assert_eq!(stopped_at(&[], 0..0), Some(21));
        assert_eq!(stopped_at(&[10, 25], 0..0), Some(45));
        // This process did not run from 10 to 69: the child gets its whole time again.
        assert_eq!(stopped_at(&[], 10..70), Some(90));
        let mut life = live(TO_UP).0;
        for second in 2..21 {
            assert_eq!(life.on(E::Tick, at(second)), None);
        }
        assert_eq!(life.on(E::Tick, at(21)), Some(O::Stop));
        assert_eq!(life.on(E::Tick, at(23)), Some(O::Kill));
        life.on(E::Exited, at(23));
        assert_eq!(life.failures(), 1);
        assert_eq!(life.on(E::Tick, at(24)), Some(O::Spawn));
    }

    /// Each state with each event, before and after its deadline.
    #[test]
    fn every_cell_of_the_table_is_as_drawn() {
        type Row = (
            &'static [(u64, Event)],
            u64,
            Event,
            Option<Order>,
            fn(State) -> bool,
        );
        let rows: &[Row] = &[
            (&[], 0, E::Wanted, Some(O::Spawn), starting),
            (&[], 0, E::Unwanted, None, down),
            (&[], 0, E::Ready, None, down),
            (&[], 0, E::Exited, None, down),
            (&[], 0, E::Tick, None, down),
            (TO_STARTING, 1, E::Wanted, None, starting),
            (TO_STARTING, 1, E::Unwanted, Some(O::Stop), stopping),
            (TO_STARTING, 1, E::Ready, None, up),
            (TO_STARTING, 1, E::Exited, None, down),
            (TO_STARTING, 29, E::Tick, None, starting),
            (TO_STARTING, 30, E::Tick, Some(O::Stop), stopping),
            (TO_UP, 2, E::Wanted, None, up),
            (TO_UP, 2, E::Unwanted, Some(O::Stop), stopping),
            (TO_UP, 2, E::Ready, None, up),
            (TO_UP, 2, E::Exited, None, down),
            (TO_UP, 999, E::Tick, None, up),
            (TO_UP, 5, E::Alive, None, up),
            (TO_STARTING, 5, E::Alive, None, starting),
            (TO_STOPPING, 3, E::Wanted, None, stopping),
            (TO_STOPPING, 3, E::Unwanted, None, stopping),
            (TO_STOPPING, 3, E::Ready, None, stopping),
            (TO_STOPPING, 3, E::Exited, None, down),
            (TO_STOPPING, 3, E::Tick, None, stopping),
            (TO_STOPPING, 4, E::Tick, Some(O::Kill), stopping),
            (TO_WAITING, 2, E::Wanted, None, down),
            (TO_WAITING, 2, E::Tick, None, down),
            (TO_WAITING, 3, E::Wanted, Some(O::Spawn), starting),
            (TO_WAITING, 3, E::Tick, Some(O::Spawn), starting),
            (TO_WAITING, 3, E::Unwanted, None, down),
            (TO_WAITING, 3, E::Ready, None, down),
            (TO_WAITING, 3, E::Exited, None, down),
        ];
        for (before, second, event, order, state) in rows {
            check(&[before, &[(*second, *event)][..]].concat(), *order, *state);
        }
    }

    #[test]
    fn a_child_deaf_to_both_signals_is_killed_again_and_again() {
        let (mut life, _) = live(TO_STOPPING);
        let orders: Vec<_> = (3..9).map(|second| life.on(E::Tick, at(second))).collect();
        assert_eq!(
            orders,
            [
                None,
                Some(O::Kill),
                None,
                Some(O::Kill),
                None,
                Some(O::Kill)
            ]
        );
    }

    #[test]
    fn a_child_wanted_again_while_it_stops_is_started_at_once_after_its_end() {
        let again = [TO_STOPPING, &[(3, E::Wanted), (3, E::Exited), (3, E::Tick)]].concat();
        check(&again, Some(O::Spawn), starting);
    }

    #[test]
    fn waits_double_from_half_a_second_to_a_minute_and_are_never_longer() {
        let mut life = Life::new(LIMITS, 7);
        let mut now = at(0);
        life.on(E::Wanted, now);
        for end in 0..12u32 {
            life.on(E::Exited, now);
            let State::Down { until } = life.state() else {
                panic!("{:?}", life.state())
            };
            let wait = until.since(now);
            let base = Duration::from_millis(500) * 2u32.pow(end);
            let range = base.min(LIMITS.back_off_to)..=(base + base / 2).min(LIMITS.back_off_to);
            assert!(
                range.contains(&wait),
                "end {end}: {wait:?} not in {range:?}"
            );
            now = until;
            assert_eq!(life.on(E::Tick, now), Some(O::Spawn));
        }
        assert_eq!(life.starts(), 13);
    }

    #[test]
    fn a_child_that_was_up_for_a_while_is_started_at_once_the_first_time_it_exits() {
        let first = [TO_UP, &[(11, E::Exited), (11, E::Tick)]].concat();
        check(&first, Some(O::Spawn), starting);
        let second = [
            &first[..],
            &[(12, E::Ready), (22, E::Exited), (22, E::Tick)],
        ]
        .concat();
        check(&second, None, down);
        let early = [TO_UP, &[(10, E::Exited), (10, E::Tick)]].concat();
        check(&early, None, down);
    }

    #[test]
    fn two_minutes_up_forgive_all_earlier_ends() {
        let mut life = Life::new(LIMITS, 7);
        life.on(E::Wanted, at(0));
        for second in [1, 10, 20] {
            life.on(E::Exited, at(second));
            life.on(E::Tick, at(second + 9));
        }
        assert_eq!(life.failures(), 3);
        life.on(E::Ready, at(30));
        life.on(E::Exited, at(150));
        assert_eq!(life.failures(), 1);
    }

    #[test]
    fn the_eleventh_start_within_a_minute_waits_for_the_minute_to_end() {
        let mut life = Life::new(LIMITS, 1);
        for second in 0..10 {
            assert_eq!(
                life.on(E::Wanted, at(second)),
                Some(O::Spawn),
                "second {second}"
            );
            life.on(E::Unwanted, at(second));
            life.on(E::Exited, at(second));
        }
        assert_eq!(life.on(E::Wanted, at(10)), None);
        assert_eq!(life.state(), State::Down { until: at(60) });
        assert_eq!(life.on(E::Tick, at(59)), None);
        assert_eq!(life.on(E::Tick, at(60)), Some(O::Spawn));
    }

    #[test]
    fn two_seeds_wait_differently() {
        let wait = |seed| {
            let mut life = Life::new(LIMITS, seed);
            life.on(E::Wanted, at(0));
            life.on(E::Exited, at(0));
            life.state()
        };
        assert_eq!(wait(1), wait(1));
        assert_ne!(wait(1), wait(2));
    }
}
