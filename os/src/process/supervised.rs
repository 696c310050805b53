//! A child process together with its life cycle and its last log lines.
//!
//! `policies::life` decides when the process is started, stopped and killed; this module carries that out.

use super::{
    AdoptError, Child, ChildEvent, ChildEvents, ChildInput, HandedChild, Happened, Program,
    ReleasedInput, kill_leftover, leftover::start_time,
};
use policies::{
    life::{Event, Life, Limits, Order, State},
    units::Uptime,
};
use std::collections::VecDeque;
use wire::errors::Chain;

/// How often a process exited, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exits {
    /// The daemon had ordered it.
    pub ordered: u64,
    /// The process was not ready yet, or was stopped because it did not become ready in time or gave no sign of life.
    pub failed: u64,
    /// The process was ready, and nobody had ordered it.
    pub unexpected: u64,
}

impl Exits {
    /// Adds the exits of another process.
    pub fn add(&mut self, other: Self) {
        self.ordered = self.ordered.saturating_add(other.ordered);
        self.failed = self.failed.saturating_add(other.failed);
        self.unexpected = self.unexpected.saturating_add(other.unexpected);
    }

    fn count(&mut self, state: State) {
        let count = match state {
            State::Up { .. } => &mut self.unexpected,
            State::Stopping { failed: false, .. } => &mut self.ordered,
            State::Starting { .. } | State::Stopping { failed: true, .. } | State::Down { .. } => {
                &mut self.failed
            }
        };
        *count = count.saturating_add(1);
    }
}

/// The state of a supervised process, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessReading {
    /// The name of the process: `babeld`, `server-udp`, `server-tcp`, `wrn0` …
    pub name: String,
    /// The pid while the process runs.
    pub pid: Option<u32>,
    /// Whether the process has reported that it is ready.
    pub ready: bool,
    /// Number of starts since the daemon started, including the first.
    pub starts: u32,
    /// Number of exits since the daemon started.
    pub exits: Exits,
    /// Whether the certificates or keys that it read at its start have been replaced since.
    pub stale: bool,
    /// Why the last start failed, or how the last process exited unexpectedly.
    pub failure: Option<String>,
}

/// Number of last log lines of a child that are kept, to find the cause of an exit.
const MAX_TAIL_LINES: usize = 20;

/// One supervised process.
#[derive(Debug)]
pub struct Supervised {
    program: Program,
    life: Life,
    child: Option<Child>,
    tail: VecDeque<String>,
    failure: Option<String>,
    exits: Exits,
    owner_logs_failed_starts: bool,
    /// Whether the process is about to be handed to another program.
    is_release_ordered: bool,
    /// Number of releases whose event was not handled yet.
    unhandled_releases: u32,
}

impl Supervised {
    /// Builds a process that is not to run yet. `seed` makes the back-off of different processes differ.
    pub fn new(program: Program, limits: Limits, seed: u64) -> Self {
        Self {
            program,
            life: Life::new(limits, seed),
            child: None,
            tail: VecDeque::new(),
            failure: None,
            exits: Exits::default(),
            owner_logs_failed_starts: false,
            is_release_ordered: false,
            unhandled_releases: 0,
        }
    }

    /// Builds a process that runs already, and has been ready since `up_since`. One that cannot be adopted is killed.
    ///
    /// # Errors
    /// The child cannot be adopted.
    pub fn adopt(
        program: Program,
        (limits, seed): (Limits, u64),
        (child, up_since): (HandedChild, Uptime),
        now: Uptime,
        events: &ChildEvents,
    ) -> Result<Self, AdoptError> {
        let child = Child::adopt(&program, child, events).inspect_err(|_| {
            // Without its input it could not be supervised.
            kill_leftover(&program.pid_file);
        })?;
        Ok(Self {
            life: Life::running(limits, seed, up_since, now),
            child: Some(child),
            ..Self::new(program, limits, seed)
        })
    }

    /// Stops reading the output of the process, if it runs. Once [`is_released`](Self::is_released), all that was read
    /// before has been handled.
    pub fn release(&mut self) -> impl Future<Output = Option<ReleasedInput>> + use<> {
        let released = self.child.as_mut().map(Child::release);
        if released.is_some() {
            self.is_release_ordered = true;
            self.unhandled_releases = self.unhandled_releases.saturating_add(1);
        }
        async move { released?.await }
    }

    /// Returns whether the output of the process is read no more. Nothing is done about the process then.
    pub fn is_released(&self) -> bool {
        self.is_release_ordered && self.unhandled_releases == 0
    }

    /// Returns the start time of the process, in clock ticks after boot; `None` if it does not run.
    pub fn start_time(&self) -> Option<u64> {
        start_time(self.child.as_ref()?.pid())
    }

    /// Returns when the process became ready; `None` if it is not ready.
    pub fn up_since(&self) -> Option<Uptime> {
        match self.life.state() {
            State::Up { since } => Some(since),
            State::Down { .. } | State::Starting { .. } | State::Stopping { .. } => None,
        }
    }

    /// Reads the output of a released process again. A process whose output cannot be read could not be supervised, so it is
    /// killed; `events` then receives its exit.
    ///
    /// # Errors
    /// The input is missing, or a descriptor cannot be used.
    pub fn resume(
        &mut self,
        input: Option<ChildInput>,
        events: &ChildEvents,
    ) -> Result<(), AdoptError> {
        let was_released = std::mem::take(&mut self.is_release_ordered);
        let Some(child) = self.child.as_ref().filter(|_| was_released) else {
            return Ok(());
        };
        let pid = child.pid();
        let handed = input.and_then(|input| child.hand_over(input));
        let adopted = handed
            .ok_or(AdoptError::NoInput { pid })
            .and_then(|handed| Child::adopt(&self.program, handed, events));
        match adopted {
            Ok(child) => {
                self.child = Some(child);
                Ok(())
            }
            Err(error) => {
                child.end(&self.program, events);
                Err(error)
            }
        }
    }

    /// Records why the process could not be started.
    pub fn record_failure(&mut self, why: String) {
        self.failure = Some(why);
    }

    /// Passes an event to the life cycle. The caller must [carry out](Self::carry_out) the returned order.
    #[must_use]
    pub fn on(&mut self, event: Event, now: Uptime) -> Option<Order> {
        if self.is_released() {
            return None;
        }
        let was_up = matches!(self.life.state(), State::Up { .. });
        let order = self.life.on(event, now);
        if was_up && (event, order) == (Event::Tick, Some(Order::Stop)) {
            let child = &self.program.name;
            tracing::warn!(
                child,
                "child does not answer; it is stopped, and started again"
            );
            self.record_failure("it did not answer".to_owned());
        }
        order
    }

    /// Starts, stops or kills the process; `events` receives what it does.
    pub fn carry_out(&mut self, order: Order, now: Uptime, events: &ChildEvents) {
        match (order, &self.child) {
            (Order::Spawn, _) => match Child::start(&self.program, events) {
                Ok(child) => {
                    self.child = Some(child);
                    self.tail.clear();
                }
                Err(error) => {
                    tracing::error!(child = self.program.name, error = %Chain(&error), "child not started");
                    self.record_failure(Chain(&error).to_string());
                    // This returns no order; the next tick does.
                    let _ = self.life.on(Event::Exited, now);
                }
            },
            (Order::Stop, Some(child)) => child.terminate(),
            (Order::Kill, Some(child)) => child.kill(),
            (Order::Stop | Order::Kill, None) => {}
        }
    }

    /// Passes an event to the life cycle, and carries out the order that follows.
    pub fn handle(&mut self, event: Event, now: Uptime, events: &ChildEvents) {
        if let Some(order) = self.on(event, now) {
            self.carry_out(order, now, events);
        }
    }

    /// Handles an event of the child; returns false if it belongs to another or an earlier process. After an exit, the
    /// caller passes a tick once it has dealt with the exit, so that a child that may run at once is started.
    pub fn handle_child_event(&mut self, event: &ChildEvent, now: Uptime) -> bool {
        if self
            .child
            .as_ref()
            .is_none_or(|child| child.pid() != event.pid)
        {
            return false;
        }
        match &event.happened {
            Happened::Logged(line) => {
                tracing::debug!(child = self.program.name, "{line}");
                if self.tail.len() == MAX_TAIL_LINES {
                    self.tail.pop_front();
                }
                self.tail.push_back(line.clone());
            }
            Happened::Exited { code } => self.on_exit(*code, now),
            // This returns no order.
            Happened::Management(_) => drop(self.life.on(Event::Alive, now)),
            Happened::ManagementConnected => {}
            Happened::Released => {
                self.unhandled_releases = self.unhandled_releases.saturating_sub(1);
            }
        }
        true
    }

    fn on_exit(&mut self, code: i32, now: Uptime) {
        let state = self.life.state();
        self.child = None;
        (self.is_release_ordered, self.unhandled_releases) = (false, 0);
        self.exits.count(state);
        // This returns no order; the next tick does.
        let _ = self.life.on(Event::Exited, now);
        if matches!(state, State::Stopping { .. }) {
            tracing::debug!(child = self.program.name, code, "child exited");
            return;
        }
        let last = self.tail.back().map(String::as_str).unwrap_or("no output");
        self.failure = Some(format!("it exited with {code}: {last}"));
        if !self.owner_logs_failed_starts || matches!(state, State::Up { .. }) {
            let child = &self.program.name;
            tracing::warn!(child, code, last_line = last, "child exited unexpectedly");
        }
    }

    /// Leaves it to the owner to log an exit before the process was ready.
    pub fn without_log_of_failed_starts(self) -> Self {
        Self {
            owner_logs_failed_starts: true,
            ..self
        }
    }

    /// Returns why the last start failed, or how the last process exited unexpectedly.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Returns the last log lines, oldest first.
    pub fn tail(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }

    /// Sends a command to the process by its management socket.
    pub fn send_command(&self, command: String) {
        if let Some(child) = &self.child {
            child.send_command(command);
        }
    }

    /// Returns whether the process runs.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Returns the state of the life cycle.
    pub fn state(&self) -> State {
        self.life.state()
    }

    /// Returns the state of the process for display.
    pub fn reading(&self) -> ProcessReading {
        ProcessReading {
            name: self.program.name.clone(),
            pid: self.child.as_ref().map(Child::pid),
            ready: matches!(self.life.state(), State::Up { .. }),
            starts: u32::try_from(self.life.starts()).unwrap_or(u32::MAX),
            exits: self.exits,
            stale: false,
            failure: self.failure.clone(),
        }
    }

    /// Returns the arguments with which the process is started.
    pub fn args(&self) -> &[std::ffi::OsString] {
        &self.program.args
    }

    /// Changes the arguments with which the process is started next time.
    pub fn set_args(&mut self, args: Vec<std::ffi::OsString>) {
        self.program.args = args;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::child::tests::{next_event, program, watched};
    use std::os::fd::OwnedFd;
    use tokio::sync::mpsc::UnboundedReceiver;

    /// A process that runs and is ready, the queue of its events, and where they arrive.
    struct Running {
        process: Supervised,
        events: ChildEvents,
        arriving: UnboundedReceiver<ChildEvent>,
    }

    impl Running {
        fn start(folder: &std::path::Path) -> Self {
            let (events, arriving) = watched();
            let program = program(folder, "followed", "/bin/sleep", &["60"]);
            let mut process = Supervised::new(program, Limits::DEFAULT, 1);
            process.handle(Event::Wanted, Uptime::default(), &events);
            process.handle(Event::Ready, Uptime::default(), &events);
            Self {
                process,
                events,
                arriving,
            }
        }

        async fn handle_next(&mut self) -> Happened {
            let event = next_event(&mut self.arriving).await;
            let handled = self.process.handle_child_event(&event, Uptime::default());
            assert!(handled, "{event:?}");
            event.happened
        }
    }

    /// Releases a process, and resumes it with the input that `choose` makes of what was released. Its exit must be followed, and
    /// another process started after it.
    #[track_caller]
    fn check(choose: fn(ChildInput) -> Option<ChildInput>, is_killed: bool) {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let folder = tempfile::tempdir().unwrap();
            let mut running = Running::start(folder.path());
            let input = running.process.release().await.unwrap().take();
            // The event of the release is handled only after the process is resumed.
            assert!(!running.process.is_released());
            let pid = running.process.reading().pid.unwrap();
            let resumed = running.process.resume(choose(input), &running.events);
            assert_eq!(resumed.is_err(), is_killed, "{resumed:?}");
            assert!(matches!(running.handle_next().await, Happened::Released));
            assert!(!running.process.is_released());
            if !is_killed {
                nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid.try_into().unwrap()),
                    nix::sys::signal::Signal::SIGKILL,
                )
                .unwrap();
            }
            let exited = running.handle_next().await;
            assert!(
                matches!(exited, Happened::Exited { code: -9 }),
                "{exited:?}"
            );
            let later = Uptime::default() + Limits::DEFAULT.back_off_to;
            assert_eq!(running.process.on(Event::Tick, later), Some(Order::Spawn));
        });
    }

    #[test]
    fn a_process_is_followed_after_it_was_resumed() {
        check(Some, false);
    }

    #[test]
    fn a_process_whose_input_is_lost_is_killed_and_started_again() {
        check(|_| None, true);
    }

    #[test]
    fn a_process_whose_input_cannot_be_read_is_killed_and_started_again() {
        let file = |input| {
            Some(ChildInput {
                log: Some(OwnedFd::from(tempfile::tempfile().unwrap())),
                ..input
            })
        };
        check(file, true);
    }
}
