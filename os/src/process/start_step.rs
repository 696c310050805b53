//! The steps between fork and exec, which a new child notes in a pipe, so that its parent can name the one that failed.
//!
//! The standard library hands only the error number to the parent.

use std::{
    io::{self, Read},
    os::fd::OwnedFd,
};

/// A step of a new child between fork and exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Limiting what it may use.
    Limits,
    /// Reducing the capability bounding set.
    BoundingSet,
    /// Giving up the supplementary groups.
    Groups,
    /// Changing the group id.
    GroupId,
    /// Changing the user id.
    UserId,
    /// Setting the capabilities.
    Capabilities,
    /// Setting the `no_new_privs` attribute.
    NoNewPrivileges,
    /// Setting the parent death signal.
    DeathSignal,
    /// Executing the program.
    Execute,
}

/// All steps, in their order; a step's position is the octet that stands for it in the pipe.
const STEPS: [Step; 9] = [
    Step::Limits,
    Step::BoundingSet,
    Step::Groups,
    Step::GroupId,
    Step::UserId,
    Step::Capabilities,
    Step::NoNewPrivileges,
    Step::DeathSignal,
    Step::Execute,
];

/// The child's end of the pipe.
#[derive(Debug)]
pub(super) struct StepWriter(OwnedFd);

/// The parent's end of the pipe.
#[derive(Debug)]
pub(super) struct StepReader(OwnedFd);

/// Creates the pipe. Both ends are closed by exec.
///
/// # Errors
///
/// The system has no more file descriptors.
pub(super) fn step_pipe() -> io::Result<(StepReader, StepWriter)> {
    let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
    let (read_end, write_end) = rustix::pipe::pipe_with(flags)?;
    Ok((StepReader(read_end), StepWriter(write_end)))
}

impl StepWriter {
    /// Notes that the child now takes this step. It only makes a system call.
    pub(super) fn note(&self, step: Step) {
        let position = STEPS.iter().position(|other| *other == step);
        if let Some(octet) = position.and_then(|position| u8::try_from(position).ok()) {
            // An error is ignored: it would only make the message of another error less precise.
            let _ = rustix::io::write(&self.0, &[octet]);
        }
    }
}

impl StepReader {
    /// Returns the step that failed: the last one that was noted; `None` if the process could not be created.
    pub(super) fn failed_step(self) -> Option<Step> {
        let mut octets = Vec::new();
        // The child may still hold the other end; what it noted before it reported the error is read all the same.
        let _ = std::fs::File::from(self.0).read_to_end(&mut octets);
        let last = octets.last()?;
        STEPS.get(usize::from(*last)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(steps: &[Step], expected: Option<Step>) {
        let (reader, writer) = step_pipe().unwrap();
        for step in steps {
            writer.note(*step);
        }
        // The writer is still open, as in a child that has not exited yet.
        assert_eq!(reader.failed_step(), expected);
    }

    #[test]
    fn the_last_noted_step_is_the_one_that_failed() {
        check(&[], None);
        check(&[Step::BoundingSet], Some(Step::BoundingSet));
        check(&[Step::Groups, Step::GroupId], Some(Step::GroupId));
        check(&STEPS, Some(Step::Execute));
    }
}
