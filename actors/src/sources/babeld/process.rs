//! The process of babeld: how it is started, handed to the program that replaces this one, and taken over by that.

use super::*;
use crate::effects::tunnels::handed::{DescribeProcess, has_other_args, resume};
use os::process::{ChildInput, HandedChild, ReleasedInput};
use wire::handed_state::{HandedProcess, from_millis};

/// A babeld that was handed over, and how this program goes on with it.
pub type HandedBabeld = (HandedProcess, HandedChild);

/// Maximum size of babeld's configuration that is read, in bytes; that of 300 slots has 60 kB.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The limits of babeld's life.
const LIMITS: Limits = Limits {
    start: START_TIMEOUT,
    silence: Some(MAX_SILENCE),
    ..Limits::DEFAULT
};

/// The process of babeld, which outlives the actor.
#[derive(Clone, Default)]
pub struct BabeldProcess {
    pub(super) process: Rc<RefCell<Option<Supervised>>>,
    /// The babeld that an earlier program has handed over, until the actor has started.
    handed: Rc<RefCell<Option<HandedBabeld>>>,
}

impl BabeldProcess {
    /// Returns a reading of the process.
    pub fn reading(&self) -> Option<ProcessReading> {
        self.process.borrow().as_ref().map(Supervised::reading)
    }

    /// The process of a program that takes over this babeld; the actor does it when it starts.
    pub fn taking_over(babeld: HandedBabeld) -> Self {
        Self {
            process: Rc::default(),
            handed: Rc::new(RefCell::new(Some(babeld))),
        }
    }

    /// Returns whether babeld is ready.
    pub fn is_ready(&self) -> bool {
        self.reading().is_some_and(|babeld| babeld.ready)
    }

    /// Stops reading babeld's output.
    pub fn release(&self) -> impl Future<Output = Option<ReleasedInput>> + use<> {
        let mut process = self.process.borrow_mut();
        let released = process.as_mut().map(Supervised::release);
        async move { released?.await }
    }

    /// Returns whether babeld's output is read no more, and all that was read has been handled.
    pub fn is_released(&self) -> bool {
        let process = self.process.borrow();
        process.as_ref().is_some_and(Supervised::is_released)
    }

    /// Reads the output of a released babeld again.
    pub fn resume(&self, events: &ChildEvents, input: Option<ChildInput>) {
        if let Some(process) = self.process.borrow_mut().as_mut() {
            resume(process, input, events);
        }
    }

    /// Describes babeld for the program that it is handed to; returns `None` if it has exited.
    pub fn hand_over(&self, describe: &mut DescribeProcess<'_>) -> Option<HandedProcess> {
        describe(self.process.borrow().as_ref()?)
    }
}

impl Babeld {
    fn program(&self) -> Program {
        Program {
            name: "babeld".to_owned(),
            path: self.settings.babeld.clone(),
            args: self.settings.args(),
            rights: self.settings.rights,
            pid_file: self.settings.pid_file.clone(),
            management: None,
        }
    }

    /// Prepares the process, unless an earlier instance of this actor has: the one that was handed over, or one to be started.
    pub(super) fn take_over_or_create(&mut self) {
        if self.process.process.borrow().is_some() {
            return;
        }
        let process = self
            .take_over()
            .unwrap_or_else(|| Supervised::new(self.program(), LIMITS, self.random.bits()));
        *self.process.process.borrow_mut() = Some(process);
    }

    /// Goes on with the babeld that was handed over, if there is one. If it runs with another configuration than this
    /// program would write, it restarts within [`RESTART_WINDOW`].
    fn take_over(&mut self) -> Option<Supervised> {
        let (handed, child) = self.process.handed.borrow_mut().take()?;
        let child = (child, from_millis(handed.up_since_ms));
        let limits = (LIMITS, self.random.bits());
        let adopted = Supervised::adopt(
            self.program(),
            limits,
            child,
            self.clock.now(),
            &self.events,
        );
        match adopted {
            Ok(process) => {
                let wanted = self.settings.config.text().ok();
                let present = files::read_text(&self.settings.config_file, MAX_CONFIG_BYTES);
                self.has_other_config =
                    wanted != present.ok() || has_other_args(&process, &handed.args);
                Some(process)
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "babeld lost; it is started again");
                None
            }
        }
    }
}
