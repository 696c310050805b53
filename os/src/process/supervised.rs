//! A child together with its life cycle: its starts, its stop, its last log lines.
//!
//! `policies::life` decides; this carries the decisions out.

use super::{Child, ChildEvent, ChildEvents, Happened, Program};
use policies::{
    life::{Event, Life, Limits, Order, State},
    units::Uptime,
};
use std::collections::VecDeque;
use wire::errors::Chain;

/// The state of a supervised process, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessReading {
    /// `babeld`, `server-udp`, `server-tcp`, `wrn0` …
    pub name: String,
    /// Its pid while it runs.
    pub pid: Option<u32>,
    /// Whether the process has reported that it is ready.
    pub ready: bool,
    /// Starts since the daemon began, the first included.
    pub starts: u32,
    /// Certificates or keys that it read at its start are others by now.
    pub stale: bool,
}

/// Log lines of a child that are shown after an unwanted end.
const TAIL: usize = 20;

/// One supervised process.
#[derive(Debug)]
pub struct Supervised {
    program: Program,
    life: Life,
    child: Option<Child>,
    tail: VecDeque<String>,
}

impl Supervised {
    /// A process that is not wanted yet; `seed` spreads its back-off.
    pub fn new(program: Program, limits: Limits, seed: u64) -> Self {
        Self {
            program,
            life: Life::new(limits, seed),
            child: None,
            tail: VecDeque::new(),
        }
    }

    /// Feeds an event to the life cycle; the returned order must be [carried
    /// out](Self::carry_out).
    #[must_use]
    pub fn on(&mut self, event: Event, now: Uptime) -> Option<Order> {
        self.life.on(event, now)
    }

    /// Spawns, stops or kills; what happens then goes to `events`.
    pub fn carry_out(&mut self, order: Order, now: Uptime, events: &ChildEvents) {
        match (order, &self.child) {
            (Order::Spawn, _) => match Child::start(&self.program, events) {
                Ok(child) => self.child = Some(child),
                Err(error) => {
                    tracing::error!(child = self.program.name, error = %Chain(&error), "child not started");
                    // No order can follow a failed start but the next tick's.
                    let _ = self.life.on(Event::Exited, now);
                }
            },
            (Order::Stop, Some(child)) => child.terminate(),
            (Order::Kill, Some(child)) => child.kill(),
            (Order::Stop | Order::Kill, None) => {}
        }
    }

    /// [`on`](Self::on) and [`carry_out`](Self::carry_out) in one.
    pub fn handle(&mut self, event: Event, now: Uptime, events: &ChildEvents) {
        if let Some(order) = self.on(event, now) {
            self.carry_out(order, now, events);
        }
    }

    /// Whether the event is of this child's present life; log lines are kept, an end is noted.
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
                if self.tail.len() == TAIL {
                    self.tail.pop_front();
                }
                self.tail.push_back(line.clone());
            }
            Happened::Exited { code } => self.exited(*code, now),
            Happened::ManagementConnected | Happened::Management(_) => {}
        }
        true
    }

    fn exited(&mut self, code: i32, now: Uptime) {
        let asked_for = matches!(self.life.state(), State::Stopping { .. });
        self.child = None;
        // The order after an end is the next tick's.
        let _ = self.life.on(Event::Exited, now);
        if asked_for {
            tracing::debug!(child = self.program.name, code, "child exited");
        } else {
            let tail: Vec<String> = self.tail.drain(..).collect();
            tracing::info!(
                child = self.program.name,
                code,
                last_lines = tail.join(" | "),
                "child exited unexpectedly"
            );
        }
    }

    /// The last log lines, oldest first.
    pub fn tail(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }

    /// Sends a command on its management socket.
    pub fn send_command(&self, command: String) {
        if let Some(child) = &self.child {
            child.send_command(command);
        }
    }

    /// Returns whether the process exists.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Returns the state of its life cycle.
    pub fn state(&self) -> State {
        self.life.state()
    }

    /// Returns a reading of the process.
    pub fn reading(&self) -> ProcessReading {
        ProcessReading {
            name: self.program.name.clone(),
            pid: self.child.as_ref().map(Child::pid),
            ready: matches!(self.life.state(), State::Up { .. }),
            starts: u32::try_from(self.life.starts()).unwrap_or(u32::MAX),
            stale: false,
        }
    }

    /// Changes the program of the next start.
    pub fn set_args(&mut self, args: Vec<std::ffi::OsString>) {
        self.program.args = args;
    }
}
