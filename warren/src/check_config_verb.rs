//! `warren check-config`: reads the configuration as the daemon does, and prints what is wrong with it.

use crate::output::{fail, print_line};
use config::paths::Paths;
use std::{path::PathBuf, process::ExitCode};

/// The arguments of `warren check-config`.
#[derive(clap::Args)]
pub struct CheckConfigArgs {
    /// The configuration, whose drop-in files lie beside it [default: etc/warren/warren.yaml below the root]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The folder below which all files of the node lie
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// Prints one line for each complaint; exits with 0 if there is none, and with 78 otherwise.
pub fn check_config(args: &CheckConfigArgs) -> ExitCode {
    let file = args
        .file
        .clone()
        .unwrap_or_else(|| Paths::new(&args.root).config());
    match config::load(&file) {
        Ok(_) => {
            print_line(format_args!("{}: valid", file.display()));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, error.exit_code()),
    }
}
