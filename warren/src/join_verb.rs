//! `warren join`: an invitation for an identity; `warren request` and `warren install`: the same by file.

use crate::{
    output::{fail, print_line, read_text},
    systemd_unit,
};
use config::paths::Paths;
use std::{path::PathBuf, process::ExitCode};
use supervisor::join::{self, JoinError, Joined, Joining};
use wire::{invitation::Invitation, registry::Enrolment};

/// What `warren join` is told.
#[derive(clap::Args)]
pub struct Args {
    /// The line that the registry's operator gave: warren://HOST:PORT/?pin=…&token=…
    invitation: String,
    /// Enable the systemd unit and start the node
    #[arg(long)]
    start: bool,
    #[command(flatten)]
    place: Place,
}

/// Where, and for whom.
#[derive(clap::Args)]
struct Place {
    /// All files lie below it
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Run the children as these two numeric users
    #[arg(long, value_name = "OPENVPN,BABELD", value_parser = two_uids)]
    child_uids: Option<(u32, u32)>,
}

impl Place {
    fn paths(&self) -> Paths {
        Paths::new(std::path::absolute(&self.root).unwrap_or_else(|_| self.root.clone()))
    }

    /// Nothing is spent where the unit that shall be started cannot be.
    fn can_start(&self, start: bool) -> Result<(), ExitCode> {
        let possible = if start {
            systemd_unit::check(&self.root)
        } else {
            Ok(())
        };
        possible.map_err(|error| fail(&error, error.exit_code()))
    }
}

/// What `warren request` is told.
#[derive(clap::Args)]
pub struct RequestArgs {
    #[command(flatten)]
    place: Place,
}

/// What `warren install` is told.
#[derive(clap::Args)]
pub struct InstallArgs {
    /// What `warren registry sign` printed; - reads the standard input
    file: PathBuf,
    /// Enable the systemd unit and start the node
    #[arg(long)]
    start: bool,
    #[command(flatten)]
    place: Place,
}

/// Two unprivileged uids with a comma between them.
pub fn two_uids(text: &str) -> Result<(u32, u32), String> {
    let right = "two numbers above 0 with a comma between them, such as 60197,60198";
    let (first, second) = text.split_once(',').ok_or(right)?;
    let uid = |text: &str| {
        text.parse()
            .ok()
            .filter(|uid: &u32| *uid > 0 && *uid < u32::MAX)
            .ok_or(right)
    };
    Ok((uid(first)?, uid(second)?))
}

/// Joins, and prints one line: prefix and address.
pub fn main(args: &Args) -> ExitCode {
    if let Err(code) = args.place.can_start(args.start) {
        return code;
    }
    let invitation: Invitation = match args.invitation.parse() {
        Ok(invitation) => invitation,
        Err(error) => return fail(&error, 1),
    };
    let paths = args.place.paths();
    let joining = Joining {
        invitation: &invitation,
        paths: &paths,
        children: args.place.child_uids,
    };
    told(
        actix_rt::System::new().block_on(join::join(&joining)),
        args.start,
    )
}

fn told(outcome: Result<Joined, JoinError>, start: bool) -> ExitCode {
    match outcome {
        Ok(joined) => {
            print_line(format_args!("{} {}", joined.prefix, joined.address));
            match if start { systemd_unit::start() } else { Ok(()) } {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error, error.exit_code()),
            }
        }
        Err(error) => fail(&error, error.exit_code()),
    }
}

/// Prints a request for the registry's operator.
pub fn request(args: &RequestArgs) -> ExitCode {
    match join::request(&args.place.paths(), args.place.child_uids) {
        Ok(request) => {
            print_line(request.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, error.exit_code()),
    }
}

/// Installs what the registry's operator gave back, and prints prefix and address.
pub fn install(args: &InstallArgs) -> ExitCode {
    if let Err(code) = args.place.can_start(args.start) {
        return code;
    }
    let read =
        read_text(&args.file).and_then(|text| serde_json::from_str(&text).map_err(Into::into));
    let enrolment: Enrolment = match read {
        Ok(enrolment) => enrolment,
        Err(error) => {
            let what = format!(
                "{}: not what `warren registry sign` prints: {error}",
                args.file.display()
            );
            return fail(&std::io::Error::other(what), 1);
        }
    };
    told(
        join::install(&args.place.paths(), args.place.child_uids, &enrolment),
        args.start,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(u32, u32)>) {
        assert_eq!(two_uids(text).ok(), expected, "{text}");
    }

    #[test]
    fn child_uids_are_two_unprivileged_numbers() {
        check("60197,60198", Some((60197, 60198)));
        for bad in [
            "",
            "1",
            "0,1",
            "1,0",
            "1,2,3",
            "a,b",
            "-1,2",
            "4294967295,1",
        ] {
            check(bad, None);
        }
    }
}
