//! A restart in place that cannot succeed: a program that cannot be executed leaves the daemon running, one that ends at once
//! leaves no process behind, and one that does not understand the handed-over state replaces the children.

use anyhow::{Context, Result, ensure};
use lab::{Lab, Node, Options, is_skipped_without_root, process::warren_program, wait::wait_until};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};
use wire::control::{TUNNELS_PATH, TunnelsDocument};

/// Longest wait until the children of a daemon that ended have exited.
const EXIT_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest wait until two nodes have one tunnel.
const SETTLED_TIMEOUT: Duration = Duration::from_secs(60);

/// The program of the nodes, which the tests replace.
struct Program(PathBuf);

impl Program {
    /// Installs the real program.
    fn install(&self) -> Result<()> {
        self.remove();
        let real = warren_program();
        fs::hard_link(&real, &self.0)
            .or_else(|_| fs::copy(&real, &self.0).map(drop))
            .context("cannot install the program")
    }

    /// Installs another file with this text.
    fn replace(&self, text: &str) -> Result<()> {
        self.remove();
        fs::write(&self.0, text)?;
        fs::set_permissions(&self.0, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    fn remove(&self) {
        fs::remove_file(&self.0).ok();
    }
}

fn children(node: &Node) -> BTreeSet<u32> {
    node.children().into_keys().collect()
}

/// Waits until no node dials or closes a tunnel: two nodes that start together dial each other, and close one of the two tunnels.
fn wait_for_one_tunnel(lab: &Lab) -> Result<()> {
    let has_one = |node: &Node| {
        let document = node.control_document::<TunnelsDocument>(TUNNELS_PATH);
        let tunnels = document.ok().map(|document| document.tunnels);
        tunnels.is_some_and(|tunnels| {
            tunnels.len() == 1 && tunnels.iter().all(|tunnel| tunnel.phase == "up")
        })
    };
    let is_settled = || lab.nodes().iter().all(has_one).then_some(());
    wait_until(SETTLED_TIMEOUT, is_settled).context("the nodes keep more than one tunnel")
}

/// Runs `warren restart` with the real program; returns what it printed, or its error.
fn restart(node: &Node) -> Result<String> {
    let (program, root) = (warren_program(), node.root().to_string_lossy().into_owned());
    node.command(&program.to_string_lossy(), &["restart", "--root", &root])
}

/// Checks that a restart fails with this error, and that the daemon goes on with its children.
fn check_refused(node: &Node, expected: &str) -> Result<()> {
    let (before, daemon) = (children(node), node.pid());
    let Err(error) = restart(node) else {
        anyhow::bail!("the daemon restarted");
    };
    let error = format!("{error:#}");
    ensure!(error.contains(expected), "{error}");
    ensure!(
        node.pid() == daemon,
        "{}",
        node.describe("is another process")
    );
    ensure!(
        children(node) == before,
        "{}",
        node.describe("has other children")
    );
    Ok(())
}

#[test]
fn a_restart_that_cannot_succeed_loses_nothing_or_leaves_nothing() -> Result<()> {
    if is_skipped_without_root("restart_refused") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let program = Program(folder.path().join("warren"));
    program.install()?;
    let lab = Lab::build_converged(Options {
        program: Some(program.0.clone()),
        ..Options::with_nodes(2)
    })?;
    let node = lab.node(0)?;
    wait_for_one_tunnel(&lab)?;
    check_program_that_cannot_run(node, &program)?;
    check_program_that_ends(node, &program)?;
    program.install()?;
    node.start()?;
    lab.wait_for_complete_routes()?;
    wait_for_one_tunnel(&lab)?;
    check_state_that_is_refused(node, &program, &warren_program())?;
    lab.wait_for_complete_routes()?;
    program.install()?;
    node.stop_cleanly()?;
    ensure!(
        node.processes().is_empty(),
        "{}",
        node.describe("left processes")
    );
    Ok(())
}

fn check_program_that_cannot_run(node: &Node, program: &Program) -> Result<()> {
    program.remove();
    check_refused(node, "cannot be executed: No such file or directory")?;
    // The children were released before exec failed, and are followed again.
    program.replace("no program\n")?;
    check_refused(node, "cannot be executed: Exec format error")?;
    program.install()?;
    restart(node)?;
    Ok(())
}

fn check_program_that_ends(node: &Node, program: &Program) -> Result<()> {
    program.replace("#!/bin/sh\nexit 1\n")?;
    ensure!(restart(node).is_err(), "the daemon came back");
    ensure!(node.exit_status().is_some(), "the daemon still runs");
    let is_empty = || node.processes().is_empty().then_some(());
    wait_until(EXIT_TIMEOUT, is_empty).with_context(|| node.describe("left children behind"))
}

fn check_state_that_is_refused(node: &Node, program: &Program, real: &Path) -> Result<()> {
    let (before, daemon) = (children(node), node.pid());
    let script = format!(
        "#!/bin/sh\nWARREN_HANDED_STATE=4000 exec '{}' \"$@\"\n",
        real.display()
    );
    program.replace(&script)?;
    let printed = restart(node)?;
    ensure!(printed.contains("started again: babeld"), "{printed}");
    ensure!(
        node.pid() == daemon,
        "{}",
        node.describe("is another process")
    );
    let log = fs::read_to_string(node.log_file())?;
    ensure!(
        log.contains("is refused"),
        "{}",
        node.describe("refused nothing")
    );
    let kept: Vec<_> = before.intersection(&children(node)).copied().collect();
    ensure!(
        kept.is_empty(),
        "{}",
        node.describe(&format!("kept {kept:?}"))
    );
    Ok(())
}
