//! Signals to the children of a daemon.

use crate::{Node, progress::progress, wait::wait_until};
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use policies::names::Prefix;
use serde::Serialize;
use std::time::{Duration, Instant};
use wire::control::{STATUS_PATH, StatusDocument, TUNNELS_PATH, TunnelEntry, TunnelsDocument};

/// Longest time until a daemon removes a child that hangs.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for a child to which a signal can be sent.
const CHILD_TIMEOUT: Duration = Duration::from_secs(30);

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

/// The child of a daemon that gets a signal.
#[derive(Clone, Copy, Debug)]
pub enum Child<'a> {
    /// The child that `warren status` shows by this name.
    Named(&'a str),
    /// The client of a tunnel that the node dialled, and that is up.
    Client,
}

impl Child<'_> {
    /// Sends a signal to this child of a node's daemon, and returns its name and pid.
    ///
    /// # Errors
    /// Fails if the child does not run within 30 s.
    pub fn send_signal(self, node: &Node, signal: FatalSignal) -> Result<(String, Pid)> {
        let name = || match self {
            Self::Named(name) => Ok(name.to_owned()),
            Self::Client => lasting_client(node),
        };
        let mut last = None;
        let sent = wait_until(CHILD_TIMEOUT, || {
            let sent = name().and_then(|name| Ok((send(node, &name, signal)?, name)));
            last = sent.as_ref().err().map(|error| format!("{error:#}"));
            sent.ok()
        });
        let (pid, name) = sent
            .with_context(|| last.unwrap_or_default())
            .with_context(|| node.describe(&format!("does not run {self:?}")))?;
        Ok((name, pid))
    }
}

/// Sends a signal to a child of a node's daemon, which is known by the name that `warren status`
/// shows, and returns its pid.
///
/// # Errors
/// Fails if the child does not run within 30 s.
pub fn kill_child(node: &Node, name: &str, signal: FatalSignal) -> Result<Pid> {
    let (_, pid) = Child::Named(name).send_signal(node, signal)?;
    Ok(pid)
}

/// Sends a signal to the child of this name. The daemon's list of its processes may be seconds old, so the child must still run.
fn send(node: &Node, name: &str, signal: FatalSignal) -> Result<Pid> {
    let status: StatusDocument = node.control_document(STATUS_PATH)?;
    let child = status
        .processes
        .iter()
        .find(|child| child.name == name)
        .and_then(|child| child.pid);
    let pid = child.with_context(|| format!("node {} has no child {name}", node.index()))?;
    ensure!(
        node.children().contains_key(&pid),
        "{name} with pid {pid} has exited"
    );
    progress(format!(
        "sending {} to {name} of node {}, pid {pid}",
        signal.signal(),
        node.index()
    ));
    let pid = Pid::from_raw(i32::try_from(pid)?);
    kill(pid, signal.signal()).with_context(|| format!("cannot kill {name}, pid {pid}"))?;
    Ok(pid)
}

/// The name of the client of a tunnel that is up and that the node dialled. Of two nodes that dialled each other the one with the lower
/// prefix closes its tunnel, so one to a lower prefix is preferred.
fn lasting_client(node: &Node) -> Result<String> {
    let document: TunnelsDocument = node.control_document(TUNNELS_PATH)?;
    let own: Option<Prefix> = node.prefix()?.parse().ok();
    let is_to_lower_prefix = |tunnel: &TunnelEntry| {
        let peer: Option<Prefix> = tunnel.peer.parse().ok();
        peer < own
    };
    let is_dialled = |tunnel: &TunnelEntry| tunnel.phase == "up" && tunnel.role == "dialled";
    let dialled = document.tunnels.into_iter().filter(is_dialled);
    let lasting = dialled.max_by_key(is_to_lower_prefix);
    Ok(lasting.context("no tunnel that it dialled is up")?.slot)
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
