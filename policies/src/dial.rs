//! Decides how a dial goes on: which endpoint follows a failed one, what an exit of OpenVPN means, and when the tunnel
//! is closed.
//!
//! The life of the process itself is [`life`]. A dial is closed at once if its process does not run: then
//! no exit follows that could be waited for.

use crate::{life, orders::CloseReason};
use std::time::Duration;

/// What closing a dial requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseStep {
    /// The process is stopping already.
    AlreadyClosing,
    /// The process has to be stopped; its exit closes the dial.
    StopProcess,
    /// No process runs: the dial is closed.
    Closed(CloseReason),
}

/// What follows the exit of a dial's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterExit {
    /// The dial is closed for this reason.
    Closed {
        /// The reason of the close.
        reason: CloseReason,
        /// Whether this counts as a failed dial of the peer.
        failed: bool,
    },
    /// The process is started again after the back-off, with the next endpoint.
    NextEndpoint,
    /// The process was stopped from outside and is started again, with the same endpoint.
    SameEndpoint,
    /// This node or the peer restarts by plan: the process is started again after this delay, with the same endpoint.
    Restart(Duration),
}

/// Delay before a dial is started again that a restarting peer has ended. Its server is back by then as a rule.
const PEER_RESTART_DELAY: Duration = Duration::from_secs(1);
/// Delay before a dial is started again that this node has ended to restart it. The peer has closed the old tunnel by then.
const OWN_RESTART_DELAY: Duration = Duration::from_millis(2500);

/// How the process of a dial exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, because the dial failed or the tunnel no longer works.
    ByItself,
    /// By a signal that this node has not sent.
    StoppedFromOutside,
}

/// How far a dial is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DialProgress {
    was_up: bool,
    /// The reason of the close, once it is known.
    closing: Option<CloseReason>,
    /// Whether the process got the order to stop. OpenVPN may announce its exit and then hang, so a reason alone is not enough.
    is_stopping: bool,
    /// Whether this node ends the process to start it again.
    is_restarting: bool,
}

impl DialProgress {
    /// The progress of a dial whose tunnel is up.
    pub fn up() -> Self {
        Self {
            was_up: true,
            ..Self::default()
        }
    }

    /// Returns whether the tunnel was ever up.
    pub fn was_up(&self) -> bool {
        self.was_up
    }

    /// Returns whether the reason of the close is known.
    pub fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Records that frames pass.
    pub fn on_connected(&mut self) {
        self.was_up = true;
    }

    /// Records why OpenVPN is about to exit; an earlier reason stays.
    pub fn on_exit_reason(&mut self, reason: CloseReason) {
        self.closing.get_or_insert(reason);
    }

    /// Plans a restart, for which the process has to be stopped. Returns false if the dial is being closed, or is not up.
    pub fn restart(&mut self) -> bool {
        let can_restart = self.was_up && !self.is_closing() && !self.is_stopping;
        self.is_restarting |= can_restart;
        self.is_stopping |= can_restart;
        can_restart
    }

    /// Closes the dial, whose process is in this state. A restart that this dial waits for becomes its close.
    pub fn close(&mut self, reason: CloseReason, process: life::State) -> CloseStep {
        let reason = *self.closing.get_or_insert(reason);
        self.is_restarting = false;
        match process {
            life::State::Down { .. } => CloseStep::Closed(reason),
            life::State::Starting { .. }
            | life::State::Up { .. }
            | life::State::Stopping { .. } => {
                if std::mem::replace(&mut self.is_stopping, true) {
                    CloseStep::AlreadyClosing
                } else {
                    CloseStep::StopProcess
                }
            }
        }
    }

    /// Decides what follows after the process has exited. `draining_for` is
    /// the reason of the tunnel's drain, if it drains: it is not started again then, but closed as planned.
    /// `does_peer_restart` says whether the peer holds this node's restart lock, and `has_other_endpoint` whether an
    /// endpoint is left to try.
    pub fn on_exit(
        &self,
        exit: Exit,
        draining_for: Option<CloseReason>,
        does_peer_restart: bool,
        has_other_endpoint: bool,
    ) -> AfterExit {
        let is_ended_by_peer = does_peer_restart && self.was_up && !self.is_stopping;
        if self.is_restarting {
            return AfterExit::Restart(OWN_RESTART_DELAY);
        }
        if is_ended_by_peer && draining_for.is_none() {
            return AfterExit::Restart(PEER_RESTART_DELAY);
        }
        if let Some(reason) = self.closing.or(draining_for) {
            // A peer that rejects us before the tunnel is up is a failed dial.
            let failed = !self.was_up && reason == CloseReason::PeerClosed;
            return AfterExit::Closed { reason, failed };
        }
        if self.was_up && exit == Exit::StoppedFromOutside {
            return AfterExit::SameEndpoint;
        }
        if self.was_up {
            let reason = CloseReason::PeerDead;
            return AfterExit::Closed {
                reason,
                failed: false,
            };
        }
        if has_other_endpoint {
            AfterExit::NextEndpoint
        } else {
            AfterExit::Closed {
                reason: CloseReason::DialFailed,
                failed: true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        life::{Event, Life, Limits, Order, State},
        rng::Rng,
        units::Uptime,
        waits::Wait,
    };
    use std::time::Duration;

    const UP: State = State::Up {
        since: Uptime(Duration::ZERO),
    };
    const DOWN: State = State::Down {
        until: Uptime(Duration::ZERO),
    };

    fn closed(reason: CloseReason, failed: bool) -> AfterExit {
        AfterExit::Closed { reason, failed }
    }

    #[test]
    fn a_failed_attempt_leads_to_the_next_endpoint_and_the_last_one_fails_the_dial() {
        let dial = DialProgress::default();
        assert_eq!(
            dial.on_exit(Exit::ByItself, None, false, true),
            AfterExit::NextEndpoint
        );
        assert_eq!(
            dial.on_exit(Exit::ByItself, None, false, false),
            closed(CloseReason::DialFailed, true)
        );
    }

    #[test]
    fn a_process_that_was_stopped_from_outside_is_started_again_and_one_that_exits_by_itself_closes_the_tunnel()
     {
        let mut dial = DialProgress::default();
        dial.on_connected();
        assert_eq!(
            dial.on_exit(Exit::StoppedFromOutside, None, false, true),
            AfterExit::SameEndpoint
        );
        assert_eq!(
            dial.on_exit(Exit::ByItself, None, false, true),
            closed(CloseReason::PeerDead, false)
        );
    }

    #[test]
    fn a_draining_tunnel_whose_process_dies_is_closed_as_planned() {
        let mut dial = DialProgress::default();
        dial.on_connected();
        let reason = CloseReason::Shutdown;
        assert_eq!(
            dial.on_exit(Exit::StoppedFromOutside, Some(reason), false, true),
            closed(reason, false)
        );
    }

    #[test]
    fn a_rejection_counts_as_a_failed_dial_only_before_the_tunnel_is_up() {
        let mut dial = DialProgress::default();
        dial.on_exit_reason(CloseReason::PeerClosed);
        assert_eq!(
            dial.on_exit(Exit::ByItself, None, false, true),
            closed(CloseReason::PeerClosed, true)
        );
        dial.on_connected();
        assert_eq!(
            dial.on_exit(Exit::ByItself, None, false, true),
            closed(CloseReason::PeerClosed, false)
        );
    }

    #[test]
    fn a_planned_restart_follows_the_exit_unless_the_dial_is_closed_meanwhile() {
        let mut dial = DialProgress::default();
        assert!(!dial.restart(), "a dial that was never up cannot restart");
        dial.on_connected();
        assert!(dial.restart());
        dial.on_exit_reason(CloseReason::PeerClosed);
        let draining = Some(CloseReason::Renewed);
        let restart = AfterExit::Restart(OWN_RESTART_DELAY);
        assert_eq!(
            dial.on_exit(Exit::ByItself, draining, false, false),
            restart
        );
        let late_close = dial.close(CloseReason::PeerDead, UP);
        assert_eq!(late_close, CloseStep::AlreadyClosing);
        let reason = CloseReason::PeerClosed;
        assert_eq!(
            dial.on_exit(Exit::ByItself, draining, false, false),
            closed(reason, false)
        );
        assert!(
            !dial.restart(),
            "a dial that is being closed cannot restart"
        );
    }

    #[test]
    fn a_tunnel_that_a_restarting_peer_ends_is_dialled_again_at_the_same_endpoint() {
        let mut dial = DialProgress::default();
        dial.on_exit_reason(CloseReason::PeerClosed);
        let rejected = closed(CloseReason::PeerClosed, true);
        assert_eq!(dial.on_exit(Exit::ByItself, None, true, false), rejected);
        dial.on_connected();
        let restart = AfterExit::Restart(PEER_RESTART_DELAY);
        assert_eq!(dial.on_exit(Exit::ByItself, None, true, false), restart);
        dial.close(CloseReason::Unused, UP);
        let reason = CloseReason::PeerClosed;
        assert_eq!(
            dial.on_exit(Exit::ByItself, None, true, false),
            closed(reason, false)
        );
    }

    #[test]
    fn a_dial_whose_process_does_not_run_is_closed_at_once() {
        let mut dial = DialProgress::default();
        let reason = CloseReason::Duplicate;
        assert_eq!(dial.close(reason, DOWN), CloseStep::Closed(reason));
    }

    #[test]
    fn a_running_process_is_stopped_once_and_the_first_reason_stays() {
        let mut dial = DialProgress::default();
        let (first, second) = (CloseReason::Unused, CloseReason::PeerDead);
        assert_eq!(dial.close(first, UP), CloseStep::StopProcess);
        assert_eq!(dial.close(second, UP), CloseStep::AlreadyClosing);
        assert_eq!(dial.close(second, DOWN), CloseStep::Closed(first));
    }

    #[test]
    fn an_announced_exit_that_does_not_come_is_enforced_by_an_order_to_close() {
        let mut dial = DialProgress::default();
        dial.on_exit_reason(CloseReason::PeerClosed);
        assert_eq!(
            dial.close(CloseReason::PeerDead, UP),
            CloseStep::StopProcess
        );
        assert_eq!(
            dial.on_exit(Exit::ByItself, None, false, true),
            closed(CloseReason::PeerClosed, true)
        );
    }

    /// A dial with its process, as the actor of tunnels drives them.
    struct Machine {
        dial: DialProgress,
        endpoints_left: u64,
        life: Life,
        /// Whether the simulated process exists, and when a signal will have ended it.
        running: bool,
        exits_at: Option<Uptime>,
        /// When a planned restart starts the process again.
        restart_at: Option<Uptime>,
        now: Uptime,
        closed: bool,
    }

    impl Machine {
        fn new(rng: &mut Rng) -> Self {
            let limits = Limits {
                start: Duration::from_secs(10),
                ..Limits::default()
            };
            let mut machine = Self {
                dial: DialProgress::default(),
                endpoints_left: rng.below(4),
                life: Life::new(limits, rng.bits()),
                running: false,
                exits_at: None,
                restart_at: None,
                now: Uptime::from_secs(1_000),
                closed: false,
            };
            machine.pass(Event::Wanted, rng);
            machine
        }

        /// Passes an event to the process's life and carries the order out; every tenth start fails.
        fn pass(&mut self, event: Event, rng: &mut Rng) {
            match self.life.on(event, self.now) {
                Some(Order::Spawn) if rng.below(10) == 0 => {
                    let _ = self.life.on(Event::Exited, self.now);
                }
                Some(Order::Spawn) => self.running = true,
                // Every fourth process ignores SIGTERM.
                Some(Order::Stop) if rng.below(4) > 0 => self.exits_at = Some(self.now),
                Some(Order::Kill) => self.exits_at = Some(self.now),
                Some(Order::Stop) | None => {}
            }
        }

        fn close(&mut self, reason: CloseReason, rng: &mut Rng) {
            match self.dial.close(reason, self.life.state()) {
                CloseStep::StopProcess => self.pass(Event::Unwanted, rng),
                CloseStep::Closed(_) => self.closed = true,
                CloseStep::AlreadyClosing => {}
            }
        }

        fn exit(&mut self, exit: Exit) {
            if std::mem::take(&mut self.running) {
                self.exits_at = None;
                let _ = self.life.on(Event::Exited, self.now);
                let after = self
                    .dial
                    .on_exit(exit, None, false, self.endpoints_left > 0);
                self.endpoints_left -= u64::from(after == AfterExit::NextEndpoint);
                self.closed = matches!(after, AfterExit::Closed { .. });
                if let AfterExit::Restart(delay) = after {
                    self.dial = DialProgress::default();
                    let _ = self.life.on(Event::Unwanted, self.now);
                    self.restart_at = Some(self.now + delay);
                }
            }
        }

        fn step(&mut self, rng: &mut Rng) {
            self.now = self.now + Duration::from_millis(250);
            match rng.below(30) {
                0 => self.close(CloseReason::Unused, rng),
                1 => self.close(CloseReason::PeerDead, rng),
                2 => self.exit(Exit::ByItself),
                3 => self.exit(Exit::StoppedFromOutside),
                8 if self.dial.restart() => self.pass(Event::Unwanted, rng),
                4 if self.running => self.dial.on_exit_reason(CloseReason::PeerClosed),
                5 | 6 if self.running => {
                    self.pass(Event::Ready, rng);
                    self.dial.on_connected();
                }
                7 => self.now = self.now + rng.span(Duration::ZERO, Duration::from_secs(20)),
                _ => {}
            }
            if self.exits_at.is_some_and(|at| at < self.now) {
                self.exit(Exit::ByItself);
            }
            if !self.closed {
                let now = self.now;
                let is_due = self.restart_at.take_if(|at| *at <= now).is_some();
                self.pass(if is_due { Event::Wanted } else { Event::Tick }, rng);
            }
        }
    }

    #[test]
    fn every_order_to_close_ends_within_the_limit_in_random_sequences() {
        let seed = 0x7761_7272_656e;
        let (mut rng, mut longest) = (Rng::new(seed), Duration::ZERO);
        for sequence in 0..100_000 {
            let mut machine = Machine::new(&mut rng);
            for _ in 0..rng.below(60) {
                machine.step(&mut rng);
                if machine.closed {
                    break;
                }
            }
            if !machine.closed {
                machine.close(CloseReason::Unused, &mut rng);
            }
            // From this order on nothing but time passes.
            let ordered_at = machine.now;
            while !machine.closed {
                machine.now = machine.now + Duration::from_millis(250);
                if machine.exits_at.is_some_and(|at| at < machine.now) {
                    machine.exit(Exit::ByItself);
                }
                if !machine.closed {
                    machine.pass(Event::Tick, &mut rng);
                }
                let waited = machine.now.since(ordered_at);
                assert!(
                    waited <= Wait::Closing.limit(),
                    "seed {seed:#x}, sequence {sequence}: not closed after {waited:?}"
                );
                longest = longest.max(waited);
            }
        }
        // A process that ignores SIGTERM is killed 2 s later.
        assert!(longest >= Limits::default().stop, "{longest:?}");
    }
}
