//! `warren join`: an invitation for an identity.

use crate::output::{fail, say};
use config::paths::Paths;
use std::{path::PathBuf, process::ExitCode};
use supervisor::join::{self, Joining};
use wire::invitation::Invitation;

/// What `warren join` is told.
#[derive(clap::Args)]
pub struct Args {
    /// The line that the registry's operator gave: warren://HOST:PORT/?pin=…&token=…
    invitation: String,
    /// All files lie below it
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Run the children as these two numeric users
    #[arg(long, value_name = "OPENVPN,BABELD", value_parser = two_uids)]
    child_uids: Option<(u32, u32)>,
}

/// Two unprivileged uids with a comma between them.
pub fn two_uids(text: &str) -> Result<(u32, u32), String> {
    let right = "two numbers above 0 with a comma between them, such as 60197,60198";
    let (first, second) = text.split_once(',').ok_or(right)?;
    let uid = |text: &str| text.parse().ok().filter(|uid: &u32| *uid > 0 && *uid < u32::MAX).ok_or(right);
    Ok((uid(first)?, uid(second)?))
}

/// Joins, and prints one line: prefix and address.
pub fn main(args: &Args) -> ExitCode {
    let invitation: Invitation = match args.invitation.parse() {
        Ok(invitation) => invitation,
        Err(error) => return fail(&error, 1),
    };
    let root = match std::path::absolute(&args.root) {
        Ok(root) => root,
        Err(error) => return fail(&error, 1),
    };
    let paths = Paths::new(root);
    let joining = Joining { invitation: &invitation, paths: &paths, children: args.child_uids };
    match actix_rt::System::new().block_on(join::join(&joining)) {
        Ok(joined) => {
            say(format_args!("{} {}", joined.prefix, joined.address));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, error.exit_code()),
    }
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
        for bad in ["", "1", "0,1", "1,0", "1,2,3", "a,b", "-1,2", "4294967295,1"] {
            check(bad, None);
        }
    }
}
