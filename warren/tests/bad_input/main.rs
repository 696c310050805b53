//! Runs the real `warren` on bad input and compares the outcome with the tables in `docs/BAD-INPUT.md`.
//!
//! The document holds the expected outcomes, the files `*_cases.rs` produce the faults. A row whose case nobody can
//! produce is a failure. The test needs root, and works in a network namespace and folders of its own.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "all of this file is a test"
)]

mod config_cases;
mod expected;
mod host_cases;
mod identity_cases;
mod join_cases;
mod network;
mod programs;
mod registry_cases;

use expected::Row;
use network::Network;
use programs::{Outcome, program, run, run_successfully, run_until_printed};
use std::{
    any::Any,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

/// A command that meets the fault, and what must be kept alive while it runs.
struct Case {
    command: Command,
    _kept: Option<Box<dyn Any>>,
}

impl From<Command> for Case {
    fn from(command: Command) -> Self {
        Self {
            command,
            _kept: None,
        }
    }
}

/// Produces the case on a machine that has joined, whose files lie below `root`.
fn case(network: &Network, name: &str, root: &Path) -> Case {
    host_cases::case(network, name, root)
        .or_else(|| config_cases::command(root, name).map(Case::from))
        .or_else(|| identity_cases::command(network, name, root).map(Case::from))
        .or_else(|| join_cases::command(network, name, root).map(Case::from))
        .or_else(|| registry_cases::command(network, name).map(Case::from))
        .unwrap_or_else(|| {
            panic!("docs/BAD-INPUT.md has a case that no file here produces: {name}")
        })
}

#[track_caller]
fn check(row: &Row, root: &Path, outcome: &Outcome) {
    let message = row.message.replace("ROOT", root.to_str().unwrap());
    // A cell of the table cannot hold the back quotes of a message.
    let printed = outcome.stderr.replace('`', "");
    assert!(
        printed.lines().any(|line| line.contains(&message)),
        "{}: {message}: {outcome:?}",
        row.case
    );
    assert_eq!(outcome.code, Some(row.code), "{}: {outcome:?}", row.case);
    assert!(!printed.contains("panicked"), "{}: {outcome:?}", row.case);
}

/// Returns the value of `--root`, which messages name.
fn root_argument(command: &Command) -> Option<PathBuf> {
    let mut after = command
        .get_args()
        .skip_while(|argument| *argument != "--root");
    after.nth(1).map(PathBuf::from)
}

/// Moves this thread, and all that it starts, to a new network namespace.
fn enter_own_namespace() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let mut command = program("ip");
    command.args(["link", "set", "lo", "up"]);
    run_successfully(command);
    // The registry's port is free in a namespace of our own.
    drop(TcpListener::bind("127.0.0.1:9443").unwrap());
}

#[test]
fn bad_input_has_the_documented_message_and_exit_code() {
    if !nix::unistd::geteuid().is_root() {
        let is_waived = std::env::var_os("WARREN_WITHOUT_ROOT").is_some();
        assert!(
            is_waived,
            "needs root (WARREN_WITHOUT_ROOT=1 leaves it out)"
        );
        return;
    }
    enter_own_namespace();
    let mut network = Network::new();
    let mut rows = expected::rows();
    assert!(rows.len() > 25, "{rows:?}");
    // This case stops the registry, which others need.
    rows.sort_by_key(|row| row.case == "registry away");
    for (index, row) in rows.iter().enumerate() {
        let root = network.copy_node(&format!("case-{index}"));
        if row.case == "registry away" {
            network.stop_registry();
            check(row, &root, &run_until_printed(&root, &row.message));
            continue;
        }
        if row.case == "network document altered" {
            identity_cases::alter_payload(&root);
            check(row, &root, &run_until_printed(&root, &row.message));
            continue;
        }
        let case = case(&network, &row.case, &root);
        // A case may use a root of its own.
        let root = root_argument(&case.command).unwrap_or(root);
        check(row, &root, &run(case.command));
    }
}
