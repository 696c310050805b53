//! `warren run`: the node daemon.

use crate::output::fail;
use config::paths::Paths;
use std::{path::PathBuf, process::ExitCode};
use supervisor::{logging::Format, run::Mode};

/// The arguments of `warren run`.
#[derive(clap::Args)]
pub struct RunArgs {
    /// The configuration [default: etc/warren/warren.yaml below the root]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder below which all files of the node lie
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Decide and log, but open and close no tunnel; tunnels of others are accepted
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    log: LogArgs,
}

/// How log lines are written.
#[derive(clap::Args, Clone, Copy)]
pub struct LogArgs {
    /// The form of log lines on the standard error; entries of the journal if systemd started the program, or else text
    #[arg(long, value_name = "FORMAT", value_enum)]
    log_format: Option<LogFormat>,
}

/// A form of log lines.
#[derive(clap::ValueEnum, Clone, Copy)]
enum LogFormat {
    /// One line of text for each event
    Text,
    /// One JSON object for each event
    Json,
}

impl LogArgs {
    /// Returns the form.
    pub fn format(self) -> Format {
        match self.log_format {
            None => Format::Usual,
            Some(LogFormat::Text) => Format::Text,
            Some(LogFormat::Json) => Format::Json,
        }
    }
}

/// Runs the node until SIGTERM or SIGINT.
pub fn run(args: &RunArgs) -> ExitCode {
    let root = match std::path::absolute(&args.root) {
        Ok(root) => root,
        Err(error) => return fail(&error, 1),
    };
    let paths = Paths::new(root);
    let config = args.config.clone().unwrap_or_else(|| paths.config());
    let mode = if args.dry_run { Mode::Watch } else { Mode::Act };
    let format = args.log.format();
    supervisor::run::run(&config, &paths, mode, format, env!("WARREN_REVISION"))
        .unwrap_or_else(|error| fail(&error, error.exit_code()))
}
