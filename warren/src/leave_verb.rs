//! `warren leave`: removes this machine from its network.

use crate::{
    output::{fail, print_error_line, print_line},
    systemd_unit,
};
use config::paths::Paths;
use std::{
    io::{self, BufRead, IsTerminal},
    path::PathBuf,
    process::ExitCode,
};
use supervisor::leave::{self, Departing, LeaveError, Member};

/// The arguments of `warren leave`.
#[derive(clap::Args)]
pub struct LeaveArgs {
    /// The folder below which all files of the node lie
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Do not tell the registry; an operator must revoke the node there
    #[arg(long)]
    offline: bool,
}

/// Asks for confirmation, stops the node, lets the registry revoke it, and removes the identity.
pub fn leave(args: &LeaveArgs) -> ExitCode {
    let root = std::path::absolute(&args.root).unwrap_or_else(|_| args.root.clone());
    let paths = Paths::new(root);
    if let Err(code) = check_joined(&paths).and_then(|()| confirm(args, &paths)) {
        return code;
    }
    if let Err(error) = systemd_unit::stop_unit(paths.root()) {
        return fail(&error, error.exit_code());
    }
    let left = actix_rt::System::new().block_on(leave_network(args, &paths));
    match left {
        Ok(line) => {
            print_line(line);
            ExitCode::SUCCESS
        }
        Err(error) => {
            if matches!(error, LeaveError::Call(_)) {
                print_error_line(
                    "the node is stopped, and its identity is kept: repeat the command, or leave with --offline and let an operator revoke it",
                );
            }
            fail(&error, error.exit_code())
        }
    }
}

fn check_joined(paths: &Paths) -> Result<(), ExitCode> {
    let path = paths.config();
    if path.exists() || paths.key().exists() {
        return Ok(());
    }
    let error = LeaveError::NotJoined { path };
    Err(fail(&error, error.exit_code()))
}

/// Asks whether the node shall leave, unless the arguments say so.
fn confirm(args: &LeaveArgs, paths: &Paths) -> Result<(), ExitCode> {
    if args.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        print_error_line("leave asks for confirmation, and the input is no terminal: add --yes");
        return Err(ExitCode::from(2));
    }
    print_error_line(format_args!(
        "this node stops, its certificate is revoked, and its identity in {} is removed. Continue? [y/N]",
        paths.state().display()
    ));
    let mut answer = String::new();
    let is_read = io::stdin().lock().read_line(&mut answer).is_ok();
    if is_read && matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    print_error_line("nothing was changed");
    Err(ExitCode::FAILURE)
}

/// Lets the registry revoke the node, and removes the identity. Returns what happened, in one line.
async fn leave_network(args: &LeaveArgs, paths: &Paths) -> Result<String, LeaveError> {
    let _stopped = leave::lock_daemon(paths)?;
    let outcome = if args.offline {
        "the registry does not know: let an operator revoke the node".to_owned()
    } else {
        match Member::read(paths)?.depart().await? {
            Departing::Revoked(count) => {
                format!("the registry revoked {count} of its certificates")
            }
            Departing::WasOut => {
                "the registry had revoked its certificate before, or it has expired".to_owned()
            }
        }
    };
    leave::remove_identity(paths)?;
    let former = leave::former_config(paths);
    Ok(format!(
        "this machine is no longer a node; {outcome}; its configuration is {}",
        former.display()
    ))
}
