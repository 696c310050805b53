//! `warren join` exchanges an invitation for an identity; `warren request` and `warren install` do the same by file.

use crate::{
    output::{fail, print_error_line, print_line, read_text},
    systemd_unit,
};
use config::paths::Paths;
use std::{
    io::{self, BufRead, IsTerminal, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};
use supervisor::{
    join::{self, JoinError, Joined, Joining},
    leave::{self, LeaveError, Member},
};
use wire::{
    errors::Chain,
    invitation::{BadInvitation, Invitation},
    registry::Enrolment,
};

/// More bytes of a line from the standard input are not read; an invitation has at most 512.
const MAX_LINE_BYTES: u64 = 4096;
/// More characters of an argument that is no invitation are not repeated.
const MAX_QUOTED_CHARS: usize = 80;

/// The environment variable that is read if the invitation is not given as an argument.
pub const INVITATION_VARIABLE: &str = "WARREN_INVITATION";

/// The arguments of `warren join`.
#[derive(clap::Args)]
pub struct JoinArgs {
    /// Where the line of `warren registry invite` comes from: - asks for it, or reads it from the standard input; a file
    /// that holds it; or the line itself, warren://HOST:PORT/?pin=…&token=…, which then stands in the process list
    #[arg(env = INVITATION_VARIABLE, hide_env_values = true)]
    invitation: String,
    /// Replace the identity that this machine has: stop the node, and let the former registry revoke the former certificate
    #[arg(long)]
    replace: bool,
    /// Enable and start the systemd unit of the node
    #[arg(long)]
    start: bool,
    #[command(flatten)]
    files: FileArgs,
}

/// The arguments of `warren request`.
#[derive(clap::Args)]
pub struct RequestArgs {
    #[command(flatten)]
    files: FileArgs,
}

/// The arguments of `warren install`.
#[derive(clap::Args)]
pub struct InstallArgs {
    /// The output of `warren registry sign`; - reads the standard input
    file: PathBuf,
    /// Enable and start the systemd unit of the node
    #[arg(long)]
    start: bool,
    #[command(flatten)]
    files: FileArgs,
}

/// Where the node's files are written, and which users own those of its child processes.
#[derive(clap::Args)]
struct FileArgs {
    /// The folder below which all files of the node lie
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Run OpenVPN and babeld as these two numeric users
    #[arg(long, value_name = "OPENVPN,BABELD", value_parser = parse_two_uids)]
    child_uids: Option<(u32, u32)>,
}

impl FileArgs {
    fn paths(&self) -> Paths {
        Paths::new(std::path::absolute(&self.root).unwrap_or_else(|_| self.root.clone()))
    }

    /// Checks that the unit can be started, before anything is changed or an invitation is spent.
    fn check_can_start(&self, should_start: bool) -> Result<(), ExitCode> {
        if !should_start {
            return Ok(());
        }
        systemd_unit::check_can_start(&self.root).map_err(|error| fail(&error, error.exit_code()))
    }
}

/// The file is not the output of `warren registry sign`.
#[derive(Debug, thiserror::Error)]
#[error("{}: this is not the output of `warren registry sign`", file.display())]
struct NotAnEnrolment {
    file: PathBuf,
    #[source]
    source: anyhow::Error,
}

/// There is no invitation where the argument says.
#[derive(Debug, thiserror::Error)]
enum InvitationError {
    /// The line is malformed.
    #[error(transparent)]
    Malformed(#[from] BadInvitation),
    /// The standard input cannot be read.
    #[error("cannot read an invitation from the standard input")]
    Input(#[source] io::Error),
    /// The argument is not an invitation, so it is the name of a file, and this cannot be read.
    #[error(
        "{name:?} is not an invitation (warren://HOST:PORT/?pin=…&token=…), - or a file with one"
    )]
    File {
        /// The beginning of the argument.
        name: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// Reads the invitation that the argument is, or that the file or the standard input holds.
fn read_invitation(argument: &str) -> Result<Invitation, InvitationError> {
    let text = if argument.starts_with("warren:") {
        argument.to_owned()
    } else if argument == "-" {
        if io::stdin().is_terminal() {
            print_error_line("paste the line of `warren registry invite`, and press Enter:");
        }
        // One line only, so that a person need not close the input.
        let (mut line, input) = (String::new(), io::stdin().lock());
        input
            .take(MAX_LINE_BYTES)
            .read_line(&mut line)
            .map_err(InvitationError::Input)?;
        line
    } else {
        read_text(Path::new(argument)).map_err(|source| InvitationError::File {
            name: argument.chars().take(MAX_QUOTED_CHARS).collect(),
            source,
        })?
    };
    Ok(text.trim().parse()?)
}

/// Parses two unprivileged uids with a comma between them.
fn parse_two_uids(text: &str) -> Result<(u32, u32), String> {
    let expected = "two numbers above 0 with a comma between them, such as 60197,60198";
    let (first, second) = text.split_once(',').ok_or(expected)?;
    let parse_uid = |text: &str| {
        text.parse()
            .ok()
            .filter(|uid: &u32| *uid > 0 && *uid < u32::MAX)
            .ok_or(expected)
    };
    Ok((parse_uid(first)?, parse_uid(second)?))
}

/// Joins a network, and prints one line with the prefix and the address of the new node.
pub fn join(args: &JoinArgs) -> ExitCode {
    if let Err(code) = args.files.check_can_start(args.start) {
        return code;
    }
    let invitation = match read_invitation(&args.invitation) {
        Ok(invitation) => invitation,
        Err(error) => return fail(&error, 1),
    };
    let paths = args.files.paths();
    let former = args.replace.then(|| Member::read(&paths));
    let stop = || {
        systemd_unit::stop_unit(paths.root()).map_err(|error| LeaveError::Unit {
            message: error.to_string(),
        })?;
        leave::lock_daemon(&paths)
    };
    let joining = Joining {
        invitation: &invitation,
        paths: &paths,
        replace: args.replace.then_some(&stop),
        children: args.files.child_uids,
    };
    let outcome = actix_rt::System::new().block_on(async {
        let joined = join::join(&joining).await?;
        if let Some(former) = former {
            leave_former_network(former).await;
        }
        Ok(joined)
    });
    report_and_start(outcome, args.start)
}

/// Lets the former registry revoke the former certificate. This machine has a new identity already, so a failure is only printed.
async fn leave_former_network(former: Result<Member, LeaveError>) {
    let outcome = match former {
        Ok(member) => member.depart().await.map(drop),
        Err(LeaveError::NotJoined { .. }) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        print_error_line(format_args!(
            "the former certificate was not revoked, let an operator revoke it: {}",
            Chain(&error)
        ));
    }
}

/// Creates a key, and prints a certificate request for the registry's operator.
pub fn request(args: &RequestArgs) -> ExitCode {
    match join::request(&args.files.paths(), args.files.child_uids) {
        Ok(request) => {
            print_line(request.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, error.exit_code()),
    }
}

/// Installs what the registry's operator sent back, and prints the prefix and the address of the new node.
pub fn install(args: &InstallArgs) -> ExitCode {
    if let Err(code) = args.files.check_can_start(args.start) {
        return code;
    }
    let enrolment: Enrolment = match read_enrolment(args) {
        Ok(enrolment) => enrolment,
        Err(error) => return fail(&error, 1),
    };
    let outcome = join::install(&args.files.paths(), args.files.child_uids, &enrolment);
    report_and_start(outcome, args.start)
}

fn read_enrolment(args: &InstallArgs) -> Result<Enrolment, NotAnEnrolment> {
    read_text(&args.file)
        .map_err(anyhow::Error::from)
        .and_then(|text| Ok(serde_json::from_str(&text)?))
        .map_err(|source| NotAnEnrolment {
            file: args.file.clone(),
            source,
        })
}

/// Prints the new node's prefix and address, and starts its unit if that was asked for.
fn report_and_start(outcome: Result<Joined, JoinError>, should_start: bool) -> ExitCode {
    let joined = match outcome {
        Ok(joined) => joined,
        Err(error) => return fail(&error, error.exit_code()),
    };
    print_line(format_args!("{} {}", joined.prefix, joined.address));
    if !should_start {
        return ExitCode::SUCCESS;
    }
    match systemd_unit::start_unit() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, error.exit_code()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(u32, u32)>) {
        assert_eq!(parse_two_uids(text).ok(), expected, "{text}");
    }

    #[track_caller]
    fn check_invitation(argument: &str, expected: Result<&str, &str>) {
        match (read_invitation(argument), expected) {
            (Ok(read), Ok(line)) => assert_eq!(read.to_string(), line),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (Ok(_), Err(part)) => panic!("{argument} was read instead of: {part}"),
            (Err(error), Ok(_)) => panic!("{argument}: {error}"),
        }
    }

    #[test]
    fn an_invitation_is_the_argument_or_the_content_of_a_file() {
        let line = format!(
            "warren://registry.example:9443/?pin={}&token={}",
            "A".repeat(43),
            "A".repeat(22)
        );
        check_invitation(&line, Ok(&line));
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        std::fs::write(path, format!("{line}\n")).unwrap();
        check_invitation(path, Ok(&line));
        std::fs::write(path, "nonsense").unwrap();
        check_invitation(path, Err("not an invitation"));
        check_invitation("nonsense", Err("\"nonsense\" is not an invitation"));
        check_invitation("warren://", Err("not an invitation"));
    }

    #[test]
    fn child_uids_are_two_unprivileged_numbers() {
        check("60197,60198", Some((60197, 60198)));
        for malformed in [
            "",
            "1",
            "0,1",
            "1,0",
            "1,2,3",
            "a,b",
            "-1,2",
            "4294967295,1",
        ] {
            check(malformed, None);
        }
    }
}
