//! Goes on with children that an earlier program of this very process has started.

use super::{Child, ChildEvents, ChildInput, Program, leftover::start_time};
use rustix::process::{PidfdFlags, pidfd_open};
use std::io;

/// A running child of this process, and what its output is read from.
#[derive(Debug)]
pub struct HandedChild {
    /// The process id.
    pub pid: u32,
    /// The start time in clock ticks after boot (proc_pid_stat(5), field 22).
    pub start_time: u64,
    /// The descriptors of its log and its management connection.
    pub input: ChildInput,
}

/// The reason why a child is not adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The process has exited, or the pid belongs to another process by now.
    #[error("process {pid} is not the child that was handed over")]
    OtherProcess {
        /// The process id.
        pid: u32,
    },
    /// What the output of the process was read from is lost.
    #[error("the input from process {pid} is lost")]
    NoInput {
        /// The process id.
        pid: u32,
    },
    /// A descriptor cannot be used.
    #[error("the output of process {pid} cannot be read")]
    Input {
        /// The process id.
        pid: u32,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl HandedChild {
    /// Checks that the process is a child of this process, and the one that was meant. A child that has exited
    /// meanwhile is still one, until it is reaped.
    ///
    /// # Errors
    /// [`AdoptError::OtherProcess`].
    pub fn check(&self) -> Result<(), AdoptError> {
        let found = i32::try_from(self.pid)
            .ok()
            .and_then(|pid| procfs::process::Process::new(pid).ok()?.stat().ok());
        let own = i32::try_from(std::process::id()).ok();
        let is_same = found
            .is_some_and(|found| found.starttime == self.start_time && Some(found.ppid) == own);
        match is_same {
            true => Ok(()),
            false => Err(AdoptError::OtherProcess { pid: self.pid }),
        }
    }
}

impl Child {
    /// Goes on with a child; `events` receives what it does from now on.
    ///
    /// # Errors
    /// The process is another one, or a descriptor cannot be used.
    pub(super) fn adopt(
        program: &Program,
        child: HandedChild,
        events: &ChildEvents,
    ) -> Result<Self, AdoptError> {
        child.check()?;
        let HandedChild { pid, input, .. } = child;
        let failed = |source| AdoptError::Input { pid, source };
        let raw = i32::try_from(pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .ok_or(AdoptError::OtherProcess { pid })?;
        // A child that is not reaped keeps its pid.
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|error| failed(error.into()))?;
        Self::watch(program, (pid, pidfd), (input, None), events).map_err(failed)
    }

    /// Returns the child for another program, with the input that was released.
    pub(super) fn hand_over(&self, input: ChildInput) -> Option<HandedChild> {
        Some(HandedChild {
            pid: self.pid(),
            start_time: start_time(self.pid())?,
            input,
        })
    }
}
