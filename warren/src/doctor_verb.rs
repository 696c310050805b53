//! `warren doctor`: examines the host and the node, before and after joining.

use crate::{
    control_client::{self, ControlError},
    output::{fail, print_line},
};
use config::paths::Paths;
use serde::{Serialize, de::DeserializeOwned};
use std::{path::PathBuf, process::ExitCode};
use supervisor::doctor::{self, Check, Daemon, Examined, Outcome};
use wire::control::{STATUS_PATH, TUNNELS_PATH, VERSION};

/// The arguments of `warren doctor`.
#[derive(clap::Args)]
pub struct DoctorArgs {
    /// The folder below which all files of the node lie
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Print the checks as JSON
    #[arg(long)]
    json: bool,
    /// The folder below which the files of the system are read
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    system_root: PathBuf,
}

/// The document that `--json` prints.
#[derive(Serialize)]
struct DoctorDocument {
    /// The version of the document.
    version: u32,
    /// All checks, in the order in which they were made.
    checks: Vec<Check>,
}

/// Prints each check; exits with 1 if one failed.
pub fn doctor(args: &DoctorArgs) -> ExitCode {
    let root = match std::path::absolute(&args.root) {
        Ok(root) => root,
        Err(error) => return fail(&error, 1),
    };
    let checks = examine(Paths::new(root), args.system_root.clone());
    let has_failed = checks.iter().any(|check| check.outcome == Outcome::Failed);
    if args.json {
        print_line(json(checks));
    } else {
        checks.iter().for_each(print_check);
        print_line(summary(&checks));
    }
    ExitCode::from(u8::from(has_failed))
}

/// Makes all checks.
pub(crate) fn examine(paths: Paths, system: PathBuf) -> Vec<Check> {
    doctor::install_cryptography();
    let examined = Examined {
        daemon: ask_daemon(&paths),
        paths,
        system,
    };
    actix_rt::System::new().block_on(doctor::examine(&examined))
}

/// Returns the checks as one JSON document.
pub(crate) fn json(checks: Vec<Check>) -> String {
    let document = DoctorDocument {
        version: VERSION,
        checks,
    };
    // Serialisation cannot fail: the document is a plain struct with text keys.
    serde_json::to_string(&document).unwrap_or_default()
}

fn ask_daemon(paths: &Paths) -> Daemon {
    let socket = paths.control();
    let status = ask(paths, STATUS_PATH);
    match status.and_then(|status| Ok((status, ask(paths, TUNNELS_PATH)?))) {
        Ok((status, tunnels)) => Daemon::Running {
            status: Box::new(status),
            tunnels,
        },
        Err(ControlError::NotRunning { .. }) => Daemon::NotRunning,
        Err(error) => Daemon::Unknown(format!("{}: {error}", socket.display())),
    }
}

fn ask<D: DeserializeOwned>(paths: &Paths, path: &str) -> Result<D, ControlError> {
    let body = control_client::get(&paths.control(), path)?;
    serde_json::from_str(&body).map_err(ControlError::InvalidDocument)
}

fn print_check(check: &Check) {
    let outcome = match check.outcome {
        Outcome::Ok => "ok",
        Outcome::Skipped => "skipped",
        Outcome::Warning => "warning",
        Outcome::Failed => "FAILED",
    };
    let seen = check.seen.replace(char::is_control, "?");
    print_line(format_args!("{outcome:<8} {}: {seen}", check.id));
    if let Some(advice) = &check.advice {
        print_line(format_args!("         -> {advice}"));
    }
}

fn summary(checks: &[Check]) -> String {
    let count = |outcome| {
        checks
            .iter()
            .filter(|check| check.outcome == outcome)
            .count()
    };
    let (failed, warnings) = (count(Outcome::Failed), count(Outcome::Warning));
    let (ok, skipped) = (count(Outcome::Ok), count(Outcome::Skipped));
    format!("{failed} failed, {warnings} warnings, {ok} ok, {skipped} skipped")
}
