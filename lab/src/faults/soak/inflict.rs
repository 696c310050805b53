//! The kinds of fault of a soak, and how each is inflicted and healed.

use super::history::Reach;
use crate::{
    Lab, Node,
    actor_panics::{make_panic, parse_restarts},
    host_snapshot::HostSnapshot,
    measure::soak::faults::choose_child,
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result};
use fastrand::Rng;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::time::Duration;

/// Time within which the children of a killed daemon must be gone.
const CHILDREN_GONE: Duration = Duration::from_secs(2);
/// Longest wait for that.
const CHILDREN_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for which a daemon stays away after SIGKILL or a stop.
const ABSENCE: Duration = Duration::from_millis(500);
/// Time for which a process is frozen, or a cable unplugged.
const FREEZE_SPAN: Duration = Duration::from_secs(3);

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// SIGKILL of a random child.
    KillChild,
    /// SIGSTOP of a random child for three seconds.
    FreezeChild,
    /// SIGKILL of the daemon, which is started again.
    KillDaemon,
    /// SIGTERM of the daemon, which is started again.
    RestartDaemon,
    /// SIGSTOP of the daemon for three seconds.
    FreezeDaemon,
    /// A random actor panics.
    PanicActor,
    /// The node's cable is unplugged for three seconds.
    UnplugCable,
    /// The registry is frozen for three seconds.
    FreezeRegistry,
    /// The registry is stopped and started again.
    RestartRegistry,
}

/// All kinds; each is as likely as the others.
const KINDS: [Kind; 9] = [
    Kind::KillChild,
    Kind::FreezeChild,
    Kind::KillDaemon,
    Kind::RestartDaemon,
    Kind::FreezeDaemon,
    Kind::PanicActor,
    Kind::UnplugCable,
    Kind::FreezeRegistry,
    Kind::RestartRegistry,
];

/// What must never happen, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Damage {
    /// Daemons whose children lived on for more than two seconds.
    pub(super) orphans: usize,
    /// Differences of a host to its state before the first start, after an orderly stop.
    pub(super) residues: usize,
    /// Stops that needed SIGKILL, or failed.
    pub(super) unclean_stops: usize,
    /// Daemons that exited by themselves.
    pub(super) exits: usize,
}

impl Damage {
    pub(super) fn add(&mut self, other: Self) {
        self.orphans += other.orphans;
        self.residues += other.residues;
        self.unclean_stops += other.unclean_stops;
        self.exits += other.exits;
    }
}

impl Kind {
    pub(super) fn choose(rng: &mut Rng) -> Self {
        let chosen = KINDS.get(rng.usize(..KINDS.len()));
        *chosen.unwrap_or(&Self::KillChild)
    }

    /// The pairs that the fault may hit. An orderly stop drains first, so no transit is lost.
    pub(super) fn reach(self) -> Reach {
        match self {
            Self::KillChild | Self::FreezeChild | Self::KillDaemon | Self::UnplugCable => {
                Reach::Paths
            }
            Self::RestartDaemon => Reach::Ends,
            Self::FreezeDaemon
            | Self::PanicActor
            | Self::FreezeRegistry
            | Self::RestartRegistry => Reach::Nothing,
        }
    }

    /// Inflicts the fault, and heals it.
    pub(super) fn inflict(
        self,
        lab: &Lab,
        index: usize,
        before: &HostSnapshot,
        rng: &mut Rng,
    ) -> Result<Damage> {
        let node = lab.node(index)?;
        match self {
            Self::KillChild => {
                // A daemon that has just started has no child yet.
                if let Ok((name, pid)) = choose_child(node, rng) {
                    progress(format!("killing {name}"));
                    kill(pid, Signal::SIGKILL).ok();
                }
            }
            Self::FreezeChild => {
                if let Ok((name, pid)) = choose_child(node, rng) {
                    progress(format!("freezing {name}"));
                    freeze(pid);
                }
            }
            Self::KillDaemon => return kill_daemon(node),
            Self::RestartDaemon => return restart_daemon(node, before),
            Self::FreezeDaemon => {
                let pid = node.pid().with_context(|| node.describe("has exited"))?;
                freeze(Pid::from_raw(i32::try_from(pid)?));
            }
            Self::PanicActor => panic_actor(node, rng)?,
            Self::UnplugCable => {
                lab.unplug(index)?;
                pause(FREEZE_SPAN);
                lab.plug_in(index)?;
            }
            Self::FreezeRegistry => {
                lab.freeze_registry(true);
                pause(FREEZE_SPAN);
                lab.freeze_registry(false);
            }
            Self::RestartRegistry => {
                lab.stop_registry();
                lab.start_registry()?;
            }
        }
        Ok(Damage::default())
    }
}

/// Stops a process for three seconds. One that is gone by then needs no signal.
fn freeze(pid: Pid) {
    kill(pid, Signal::SIGSTOP).ok();
    pause(FREEZE_SPAN);
    kill(pid, Signal::SIGCONT).ok();
}

fn kill_daemon(node: &Node) -> Result<Damage> {
    node.kill();
    let is_empty = || node.processes().is_empty().then_some(());
    let in_time = wait_until(CHILDREN_GONE, is_empty).is_some();
    wait_until(CHILDREN_TIMEOUT, is_empty)
        .with_context(|| node.describe("was killed, but its children live on after 10 s"))?;
    pause(ABSENCE);
    node.start()?;
    Ok(Damage {
        orphans: usize::from(!in_time),
        ..Damage::default()
    })
}

fn restart_daemon(node: &Node, before: &HostSnapshot) -> Result<Damage> {
    let stopped = node.stop_cleanly();
    if let Err(error) = &stopped {
        progress(format!("{error:#}"));
    }
    let residues = before.changes_to(&HostSnapshot::take(node.namespace())?);
    residues.iter().for_each(progress);
    pause(ABSENCE);
    node.start()?;
    Ok(Damage {
        residues: residues.len(),
        unclean_stops: usize::from(stopped.is_err()),
        ..Damage::default()
    })
}

/// Makes a random actor panic; a daemon that has just started serves no metrics yet.
fn panic_actor(node: &Node, rng: &mut Rng) -> Result<()> {
    let Ok(metrics) = node.scrape() else {
        return Ok(());
    };
    let actors = parse_restarts(&metrics);
    let (actor, _) = actors
        .get(rng.usize(..actors.len().max(1)))
        .with_context(|| node.describe("shows no actor"))?;
    progress(format!("{actor} panics"));
    make_panic(node, actor)
}
