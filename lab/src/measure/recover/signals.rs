//! Signals to the children of a daemon.

use crate::{Node, progress::progress, wait::wait_until};
use anyhow::{Context, Result};
use clap::ValueEnum;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use policies::names::Slot;
use serde::Serialize;
use std::time::{Duration, Instant};
use wire::control::{STATUS_PATH, StatusDocument};

/// Longest time until a daemon removes a child that hangs.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// The signal by which a child process ends or hangs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FatalSignal {
    /// SIGKILL, as the kernel sends it when memory is short.
    #[default]
    Kill,
    /// SIGTERM, an orderly exit.
    Term,
    /// SIGSEGV, a crash.
    Segv,
    /// SIGSTOP: the process hangs, until its daemon kills it.
    Stop,
}

impl FatalSignal {
    fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::SIGKILL,
            Self::Term => Signal::SIGTERM,
            Self::Segv => Signal::SIGSEGV,
            Self::Stop => Signal::SIGSTOP,
        }
    }
}

/// Sends a signal to a child of a node's daemon, which is known by the name that `warren status`
/// shows, and returns its pid.
///
/// # Errors
/// Fails if the daemon does not answer, or if the child does not run.
pub fn kill_child(node: &Node, name: &str, signal: FatalSignal) -> Result<Pid> {
    let status: StatusDocument = node.control_document(STATUS_PATH)?;
    let child = status
        .processes
        .iter()
        .find(|child| child.name == name)
        .and_then(|child| child.pid);
    let pid = child.with_context(|| format!("node {} has no child {name}", node.index()))?;
    progress(format!(
        "sending {} to {name} of node {}, pid {pid}",
        signal.signal(),
        node.index()
    ));
    let pid = Pid::from_raw(i32::try_from(pid)?);
    kill(pid, signal.signal()).with_context(|| format!("cannot kill {name}, pid {pid}"))?;
    Ok(pid)
}

/// Returns the name of the first client that the node runs.
///
/// # Errors
/// Fails if the daemon does not answer, or if it runs no client.
pub fn first_client(node: &Node) -> Result<String> {
    let status: StatusDocument = node.control_document(STATUS_PATH)?;
    let mut names = status.processes.into_iter().map(|process| process.name);
    let client = names.find(|name| matches!(name.parse(), Ok(Slot::Dialling(_))));
    client.with_context(|| node.describe("runs no client"))
}

/// Waits until a child that hangs is gone, and returns how long that took.
pub(in crate::measure) fn wait_until_removed(pid: Pid) -> Result<Duration> {
    let hung_at = Instant::now();
    let is_gone = || (kill(pid, None).is_err()).then_some(());
    wait_until(REMOVAL_TIMEOUT, is_gone).with_context(|| {
        let seconds = REMOVAL_TIMEOUT.as_secs();
        format!("the daemon has not removed its child {pid}, which hangs, within {seconds} s")
    })?;
    let duration = hung_at.elapsed();
    progress(format!("removed after {:.1} s", duration.as_secs_f64()));
    Ok(duration)
}
