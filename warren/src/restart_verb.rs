//! `warren restart`: has the running daemon replace itself by the installed program, without touching a tunnel.

use crate::{
    control_client::{self, ControlError},
    output::{fail, print_line},
};
use config::{EXIT_CODE, paths::Paths};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use wire::control::{MAX_RESTART_WAIT, RESTART_PATH, STATUS_PATH, StatusDocument};

/// The HTTP status of a daemon that was not restarted.
const NOT_RESTARTED: u16 = 409;
/// Longest wait for the restarted daemon.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval between two questions whether the daemon runs again.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum difference between two computations of one moment.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(50);

/// The arguments of `warren restart`.
#[derive(clap::Args)]
pub struct RestartArgs {
    /// The folder below which all files of the node lie
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// The reason why the daemon is not restarted, or not known to be.
#[derive(Debug, thiserror::Error)]
enum NotRestarted {
    /// The daemon refused.
    #[error("daemon not restarted, it runs on: {0}")]
    Refused(String),
    /// The daemon did not come back.
    #[error(
        "the daemon has not come back within {} s: see journalctl -u warren",
        START_TIMEOUT.as_secs()
    )]
    Lost,
}

/// Restarts the daemon in place, and prints what it has kept.
pub fn restart(args: &RestartArgs) -> ExitCode {
    let paths = Paths::new(&args.root);
    // The installed program, which is to run next, may be stricter than the one that runs.
    if let Err(error) = config::load(&paths.config()) {
        return fail(&error, EXIT_CODE);
    }
    let socket = paths.control();
    let before = match read_status(&socket) {
        Ok(status) => status,
        Err(error) => return fail(&error, error.exit_code()),
    };
    match control_client::post_within(&socket, RESTART_PATH, MAX_RESTART_WAIT) {
        // The connection ends with the program that runs.
        Ok(_) | Err(ControlError::Failed { .. }) => {}
        Err(ControlError::Rejected { status, title }) if status == NOT_RESTARTED => {
            return fail(&NotRestarted::Refused(title), 1);
        }
        Err(error) => return fail(&error, error.exit_code()),
    }
    let Some(after) = wait_for_restart(&socket, &before) else {
        return fail(&NotRestarted::Lost, 1);
    };
    let started = after.processes.iter().filter(|process| process.starts > 0);
    let started: Vec<_> = started.map(|process| process.name.as_str()).collect();
    let (from, to) = (before.software, after.software);
    if started.is_empty() {
        let kept = after.processes.len();
        print_line(format_args!(
            "restarted, {from} to {to}: {kept} child processes run on, with their tunnels"
        ));
    } else {
        let started = started.join(", ");
        print_line(format_args!(
            "restarted, {from} to {to}; started again: {started} (the reason is in journalctl -u warren)"
        ));
    }
    ExitCode::SUCCESS
}

fn read_status(socket: &Path) -> Result<StatusDocument, ControlError> {
    let body = control_client::get(socket, STATUS_PATH)?;
    serde_json::from_str(&body).map_err(ControlError::InvalidDocument)
}

/// Waits until another program answers that knows its child processes; `None` if none does in time.
fn wait_for_restart(socket: &Path, before: &StatusDocument) -> Option<StatusDocument> {
    let started = before.started_at();
    let asking = async {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            let asked = socket.to_owned();
            let status = tokio::task::spawn_blocking(move || read_status(&asked)).await;
            if let Ok(Ok(status)) = status
                && status.started_at() > started + CLOCK_TOLERANCE
                && !status.processes.is_empty()
            {
                return status;
            }
        }
    };
    actix_rt::System::new()
        .block_on(async { tokio::time::timeout(START_TIMEOUT, asking).await })
        .ok()
}
