//! Enables and starts the node's systemd unit, for `--start`.

use std::{
    io,
    path::Path,
    process::{Command, Stdio},
};

/// There where systemd runs (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
const SYSTEMCTL: &str = "/usr/bin/systemctl";
const UNIT: &str = "warren.service";

/// Why the unit does not run.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// The unit runs in `/`.
    #[error("--start is for --root / alone: start `warren run --root {root}` yourself")]
    OtherRoot {
        /// What was given.
        root: String,
    },
    /// Nobody to enable it.
    #[error("systemd does not run here: leave --start away, and start `warren run` by what does")]
    NoSystemd,
    /// No `systemctl`.
    #[error(
        "this machine is a node now, but {SYSTEMCTL} cannot be run: systemctl enable --now {UNIT}"
    )]
    Systemctl(#[source] io::Error),
    /// It says no.
    #[error(
        "this machine is a node now, but its unit does not start: {why} (journalctl -u {UNIT})"
    )]
    Failed {
        /// In its words.
        why: String,
    },
}

impl UnitError {
    /// 2: usage; 1: else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::OtherRoot { .. } => 2,
            Self::NoSystemd | Self::Systemctl(_) | Self::Failed { .. } => 1,
        }
    }
}

/// Whether [`start`] can be of use: to be asked before an invitation is spent.
///
/// # Errors
/// Why not.
pub fn check(root: &Path) -> Result<(), UnitError> {
    possible(root, Path::new(BOOTED))
}

fn possible(root: &Path, booted: &Path) -> Result<(), UnitError> {
    if root != Path::new("/") {
        return Err(UnitError::OtherRoot {
            root: root.display().to_string(),
        });
    }
    if booted.is_dir() {
        Ok(())
    } else {
        Err(UnitError::NoSystemd)
    }
}

/// Enables the unit and starts it; returns once the node runs.
///
/// # Errors
/// It does not.
pub fn start() -> Result<(), UnitError> {
    started(Path::new(SYSTEMCTL))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a command that ends, not the daemon whose children are watched"
)]
fn started(systemctl: &Path) -> Result<(), UnitError> {
    let mut command = Command::new(systemctl);
    command.args(["enable", "--now", UNIT]).stdin(Stdio::null());
    let output = command.output().map_err(UnitError::Systemctl)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let why = said
        .split_whitespace()
        .take(60)
        .collect::<Vec<_>>()
        .join(" ");
    Err(UnitError::Failed {
        why: if why.is_empty() {
            output.status.to_string()
        } else {
            why
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(outcome: Result<(), UnitError>, says: Option<&str>) {
        let said = outcome.err().map(|error| error.to_string());
        assert_eq!(said.is_some(), says.is_some(), "{said:?}");
        assert!(said.unwrap_or_default().contains(says.unwrap_or_default()));
    }

    #[test]
    fn the_unit_can_be_started_in_the_root_of_a_machine_with_systemd() {
        let here = Path::new("/");
        check(possible(here, here), None);
        check(
            possible(here, Path::new("/nonexistent")),
            Some("systemd does not run here"),
        );
        check(
            possible(Path::new("/srv/node"), here),
            Some("--root /srv/node"),
        );
    }

    #[test]
    fn a_unit_that_does_not_start_is_told_with_the_reason() {
        check(started(Path::new("/bin/true")), None);
        check(started(Path::new("/bin/false")), Some("exit status: 1"));
        check(started(Path::new("/bin/cat")), Some("--now"));
        check(started(Path::new("/nonexistent")), Some("cannot be run"));
    }
}
