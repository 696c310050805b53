//! `warren reload`: has the running daemon read its configuration again.

use crate::{
    control_client::{self, ControlError},
    output::{fail, print_line},
};
use config::{EXIT_CODE, paths::Paths};
use std::{path::PathBuf, process::ExitCode};
use wire::control::{RELOAD_PATH, ReloadDocument};

/// The HTTP status of a configuration that was not reloaded.
const NOT_RELOADED: u16 = 422;

/// The arguments of `warren reload`.
#[derive(clap::Args)]
pub struct ReloadArgs {
    /// The folder below which all files of the node lie
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Print the daemon's document as JSON
    #[arg(long)]
    json: bool,
}

/// A configuration with a fault, which was not reloaded.
#[derive(Debug, thiserror::Error)]
#[error("configuration not reloaded, the old one stays in force: {0}")]
struct NotReloaded(String);

/// Reloads the configuration, and prints which keys are in force and which need a restart.
pub fn reload(args: &ReloadArgs) -> ExitCode {
    let socket = Paths::new(&args.root).control();
    let answered = control_client::post(&socket, RELOAD_PATH).and_then(|body| {
        let document: ReloadDocument =
            serde_json::from_str(&body).map_err(ControlError::InvalidDocument)?;
        Ok((body, document))
    });
    match answered {
        Ok((body, _)) if args.json => print_line(body),
        Ok((_, document)) => document.lines().into_iter().for_each(print_line),
        Err(ControlError::Rejected { status, title }) if status == NOT_RELOADED => {
            return fail(&NotReloaded(title), EXIT_CODE);
        }
        Err(error) => return fail(&error, error.exit_code()),
    }
    ExitCode::SUCCESS
}
