//! Enables and starts the node's systemd unit, for the option `--start`.

use crate::join_verb::INVITATION_VARIABLE;
use std::{
    io,
    path::Path,
    process::{Command, Stdio},
};

/// This folder exists exactly where systemd is the init system (sd_booted(3)).
const BOOTED_WITH_SYSTEMD: &str = "/run/systemd/system";
const SYSTEMCTL: &str = "/usr/bin/systemctl";
const UNIT: &str = "warren.service";
/// More words of systemctl's error than this are not repeated.
const MAX_QUOTED_WORDS: usize = 60;

/// The unit cannot be started, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// The node's files do not lie below `/`, where the unit expects them.
    #[error(
        "--start works with --root / only, which the systemd unit runs: start `warren run --root {root}` yourself"
    )]
    OtherRoot {
        /// The root that was given.
        root: String,
    },
    /// systemd is not the init system of this machine.
    #[error(
        "--start needs systemd, and systemd does not run here: omit it, and start `warren run` with your service manager"
    )]
    NoSystemd,
    /// `systemctl` could not be executed.
    #[error(
        "this machine is a node now, but {SYSTEMCTL} cannot be run: start the unit with systemctl enable --now {UNIT}"
    )]
    Systemctl(#[source] io::Error),
    /// `systemctl` could not be executed to stop the unit.
    #[error("{SYSTEMCTL} cannot be run: stop the unit with systemctl disable --now {UNIT}")]
    CannotStop(#[source] io::Error),
    /// `systemctl` did not stop the unit.
    #[error("{UNIT} does not stop: {message}")]
    StopFailed {
        /// The text that `systemctl` printed.
        message: String,
    },
    /// `systemctl` reported a failure.
    #[error(
        "this machine is a node now, but its unit does not start: {message} (see journalctl -u {UNIT})"
    )]
    StartFailed {
        /// The text that `systemctl` printed, or its exit status.
        message: String,
    },
}

impl UnitError {
    /// Returns 2 for wrong usage, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::OtherRoot { .. } => 2,
            Self::NoSystemd
            | Self::Systemctl(_)
            | Self::CannotStop(_)
            | Self::StopFailed { .. }
            | Self::StartFailed { .. } => 1,
        }
    }
}

/// Checks whether [`start_unit`] can work; called before an invitation is spent.
///
/// # Errors
/// The root is not `/`, or systemd does not run here.
pub fn check_can_start(root: &Path) -> Result<(), UnitError> {
    check(root, Path::new(BOOTED_WITH_SYSTEMD))
}

fn check(root: &Path, systemd_folder: &Path) -> Result<(), UnitError> {
    if root != Path::new("/") {
        return Err(UnitError::OtherRoot {
            root: root.display().to_string(),
        });
    }
    if systemd_folder.is_dir() {
        Ok(())
    } else {
        Err(UnitError::NoSystemd)
    }
}

/// Enables the unit and starts it; returns when the node runs.
///
/// # Errors
/// `systemctl` cannot be executed, or reports that the unit did not start.
pub fn start_unit() -> Result<(), UnitError> {
    start_unit_with(Path::new(SYSTEMCTL))
}

/// Disables the unit and stops it, if systemd runs here and the files of the node lie where the unit expects them.
///
/// # Errors
/// `systemctl` cannot be executed, or reports that the unit did not stop.
pub fn stop_unit(root: &Path) -> Result<(), UnitError> {
    if check_can_start(root).is_err() {
        return Ok(());
    }
    stop_unit_with(Path::new(SYSTEMCTL))
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is a short-lived command, not the daemon, which spawns in one place only"
)]
fn stop_unit_with(systemctl: &Path) -> Result<(), UnitError> {
    let mut command = Command::new(systemctl);
    command
        .args(["disable", "--now", UNIT])
        .stdin(Stdio::null());
    command.env_remove(INVITATION_VARIABLE);
    let output = command.output().map_err(UnitError::CannotStop)?;
    if output.status.success() {
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&output.stderr);
    // Without the package there may be no unit.
    if printed.contains("does not exist") {
        return Ok(());
    }
    let message = printed.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(UnitError::StopFailed { message })
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is a short-lived command, not the daemon, which spawns in one place only"
)]
fn start_unit_with(systemctl: &Path) -> Result<(), UnitError> {
    let mut command = Command::new(systemctl);
    command.args(["enable", "--now", UNIT]).stdin(Stdio::null());
    command.env_remove(INVITATION_VARIABLE);
    let output = command.output().map_err(UnitError::Systemctl)?;
    if output.status.success() {
        return Ok(());
    }
    // The daemon reports why it is not ready in the status line of its unit.
    let mut command = Command::new(systemctl);
    command.args(["show", "--property=StatusText", "--value", UNIT]);
    command.env_remove(INVITATION_VARIABLE);
    let status = command.stdin(Stdio::null()).output();
    let status = status.map_err(UnitError::Systemctl)?.stdout;
    let printed = [output.stderr, status].concat();
    let message = String::from_utf8_lossy(&printed)
        .split_whitespace()
        .take(MAX_QUOTED_WORDS)
        .collect::<Vec<_>>()
        .join(" ");
    Err(UnitError::StartFailed {
        message: if message.is_empty() {
            output.status.to_string()
        } else {
            message
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_error(outcome: Result<(), UnitError>, expected_part: Option<&str>) {
        let error = outcome.err().map(|error| error.to_string());
        assert_eq!(error.is_some(), expected_part.is_some(), "{error:?}");
        let (error, part) = (error.unwrap_or_default(), expected_part.unwrap_or_default());
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn the_unit_can_be_started_in_the_root_of_a_machine_with_systemd() {
        let existing = Path::new("/");
        check_error(check(existing, existing), None);
        check_error(
            check(existing, Path::new("/nonexistent")),
            Some("systemd does not run here"),
        );
        check_error(
            check(Path::new("/srv/node"), existing),
            Some("--root /srv/node"),
        );
    }

    #[test]
    fn a_unit_that_does_not_start_is_reported_with_the_reason() {
        check_error(start_unit_with(Path::new("/bin/true")), None);
        check_error(
            start_unit_with(Path::new("/bin/false")),
            Some("exit status: 1"),
        );
        check_error(start_unit_with(Path::new("/bin/cat")), Some("--now"));
        check_error(
            start_unit_with(Path::new("/nonexistent")),
            Some("cannot be run"),
        );
    }
}
