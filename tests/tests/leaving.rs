//! A node leaves its network, joins again, and replaces its identity.

use anyhow::{Context, Result, ensure};
use lab::{
    is_skipped_without_root,
    process::{Process, warren_program},
    standalone_registry::StandaloneRegistry,
};
use std::{
    fs::{self, File},
    path::PathBuf,
    time::Duration,
};

/// Longest time that one command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);
/// The folder of the machine, below that of the run.
const MACHINE: &str = "machine";

/// A machine of the test, which joins and leaves.
struct Machine {
    registry: StandaloneRegistry,
}

impl Machine {
    fn root(&self) -> PathBuf {
        self.registry.folder().join(MACHINE)
    }

    /// Runs a command of `warren`, and compares its exit code and a part of what it prints.
    fn check(&self, arguments: &[&str], code: i32, part: &str) -> Result<()> {
        let (root, log) = (self.root(), self.registry.folder().join("command.log"));
        fs::write(&log, "")?;
        let root = root.to_string_lossy();
        let all = arguments.iter().copied().chain(["--root", &root]);
        let namespace = self.registry.namespace();
        let process = Process::start(namespace, &warren_program(), all, &log)?;
        let status = process
            .wait_for_exit(COMMAND_TIMEOUT)
            .context("the command did not end")?;
        let printed = fs::read_to_string(&log)?;
        ensure!(status.code() == Some(code), "{arguments:?}: {printed}");
        ensure!(printed.contains(part), "{arguments:?}: {printed}");
        Ok(())
    }

    fn join(&self, options: &[&str], code: i32, part: &str) -> Result<()> {
        let invitation = self.registry.create_invitation(1)?;
        let fixed = ["join", &invitation, "--child-uids", "60197,60198"];
        self.check(&[&fixed, options].concat(), code, part)
    }

    /// The names of the files in a folder of the machine, sorted.
    fn files(&self, folder: &str) -> Result<Vec<String>> {
        let entries = fs::read_dir(self.root().join(folder))?;
        let mut names: Vec<_> = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        names.sort();
        Ok(names)
    }

    /// Compares the states in the registry's list of certificates, sorted by prefix.
    fn check_states(&self, expected: &[&str]) -> Result<()> {
        let listing = self.registry.command("list", &[])?;
        let states: Vec<_> = listing
            .lines()
            .filter_map(|line| line.split_whitespace().nth(2))
            .collect();
        ensure!(states == expected, "{listing}");
        Ok(())
    }
}

#[test]
fn a_node_leaves_joins_again_and_replaces_its_identity() -> Result<()> {
    if is_skipped_without_root("leaving") {
        return Ok(());
    }
    let machine = Machine {
        registry: StandaloneRegistry::start(&[], &[])?,
    };
    machine.check(&["leave", "--yes"], 1, "this machine is not a node")?;
    machine.join(&[], 0, "1/16")?;
    machine.check(&["leave"], 2, "add --yes")?;

    // A daemon that systemd did not start is not stopped, and nothing is revoked or removed.
    let run = machine.root().join("run/warren");
    fs::create_dir_all(&run)?;
    let pid_file = File::create(run.join("warren.pid"))?;
    pid_file.lock()?;
    machine.check(&["leave", "--yes"], 1, "warren runs here")?;
    drop(pid_file);

    // Without the registry nothing is removed.
    machine.registry.kill();
    machine.check(&["leave", "--yes"], 1, "repeat the command")?;
    machine.registry.start_again()?;
    machine.check_states(&["live"])?;
    machine.check(&["leave", "--yes"], 0, "revoked 1 of its certificates")?;
    machine.check_states(&["revoked"])?;
    ensure!(machine.files("var/lib/warren")?.is_empty());
    ensure!(machine.files("etc/warren")? == ["warren.yaml.left"]);

    machine.join(&[], 0, "2/16")?;
    machine.join(&[], 1, "warren join --replace")?;
    // A new identity that the registry refuses leaves the former one as it is.
    machine.check(&["join", "--replace", "nonsense"], 1, "not an invitation")?;
    machine.join(&["--replace"], 0, "3/16")?;
    machine.check_states(&["revoked", "revoked", "live"])?;
    machine.check(
        &["leave", "--yes", "--offline"],
        0,
        "let an operator revoke the node",
    )?;
    machine.check_states(&["revoked", "revoked", "live"])?;
    Ok(())
}
