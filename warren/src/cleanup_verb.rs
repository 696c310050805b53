//! `warren cleanup`: restores the host after a daemon that was killed.

use crate::output::{fail, print_error_line, print_line};
use config::paths::Paths;
use std::{path::PathBuf, process::ExitCode};
use supervisor::{
    cleanup::{Cleanup, clean_up},
    host::Leftovers,
};

/// The arguments of `warren cleanup`.
#[derive(clap::Args)]
pub struct CleanupArgs {
    /// The folder below which all files of the node lie
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// Restores the host, and prints in one line what was removed.
pub fn cleanup(args: &CleanupArgs) -> ExitCode {
    let root = match std::path::absolute(&args.root) {
        Ok(root) => root,
        Err(error) => return fail(&error, 1),
    };
    match clean_up(&Paths::new(root)) {
        Ok(cleanup) => {
            print_line(summary(&cleanup));
            if let Some(reason) = &cleanup.kept_mappings {
                print_error_line(format_args!(
                    "port mappings not removed from the router, they expire by themselves: {reason}"
                ));
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, error.exit_code()),
    }
}

/// Returns what was removed and restored; what there was none of is left out.
fn summary(cleanup: &Cleanup) -> String {
    let Leftovers { processes, swept } = cleanup.leftovers;
    let removed = [
        (processes, "process", "processes"),
        (swept.links, "link", "links"),
        (swept.routes, "route", "routes"),
        (swept.addresses, "address", "addresses"),
        (swept.rules, "rule", "rules"),
        (swept.tables, "packet filter", "packet filters"),
        (cleanup.mappings, "port mapping", "port mappings"),
    ];
    let removed: Vec<_> = removed.into_iter().filter_map(counted).collect();
    let removed = (!removed.is_empty()).then(|| format!("removed {}", removed.join(", ")));
    let restored = counted((swept.settings, "setting", "settings"));
    let restored = restored.map(|settings| format!("restored {settings}"));
    let parts: Vec<_> = removed.into_iter().chain(restored).collect();
    if parts.is_empty() {
        "nothing to remove".to_owned()
    } else {
        parts.join(", ")
    }
}

/// Returns the number with the word in singular or plural; `None` for zero.
fn counted((count, singular, plural): (usize, &str, &str)) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {singular}")),
        _ => Some(format!("{count} {plural}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(change: impl FnOnce(&mut Cleanup), expected: &str) {
        let mut cleanup = Cleanup::default();
        change(&mut cleanup);
        assert_eq!(summary(&cleanup), expected);
    }

    #[test]
    fn the_summary_counts_what_was_removed_and_leaves_out_what_there_was_none_of() {
        check(|_| {}, "nothing to remove");
        check(
            |cleanup| {
                cleanup.leftovers.swept.links = 66;
                cleanup.leftovers.swept.routes = 5;
                cleanup.leftovers.swept.addresses = 1;
                cleanup.leftovers.swept.rules = 2;
                cleanup.leftovers.swept.settings = 2;
            },
            "removed 66 links, 5 routes, 1 address, 2 rules, restored 2 settings",
        );
        check(
            |cleanup| cleanup.leftovers.swept.settings = 1,
            "restored 1 setting",
        );
        check(
            |cleanup| {
                cleanup.leftovers.processes = 1;
                cleanup.mappings = 2;
            },
            "removed 1 process, 2 port mappings",
        );
    }
}
