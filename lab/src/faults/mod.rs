//! Injects faults and attacks into networks of real nodes, and compares what follows with what the documents promise.
//!
//! Each group of faults is a module. It builds a network, attacks it, and returns one [`Outcome`] for each fault.
//! [`run`] runs groups and prints a table; [`report`] formats it, and the page `docs/RELIABILITY.md`.
//!
//! To add a fault: add it to a group, or write a module with a function that returns outcomes and add a variant to
//! [`Group`].

mod authority;
mod daemons;
mod exposure;
mod fault_points;
mod flapping;
mod floods;
mod forged_icmp;
mod host_limits;
mod kernel_views;
mod kills;
pub mod liar;
mod local_user;
mod lossy_paths;
mod members;
mod network;
mod orphans;
mod prefix_theft;
mod pushed_options;
mod registry;
mod registry_files;
mod replay;
pub mod report;
mod soak;
mod square;
pub mod state_files;
mod strangers;

use crate::progress::progress;
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use std::{path::Path, thread, time::Duration};

/// Faults that share a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "kebab-case")]
pub enum Group {
    /// A member announces ranges that are not its own.
    PrefixTheft,
    /// A member pushes options, or lies on its link.
    Members,
    /// Twenty members connect and leave, ten a second.
    Flapping,
    /// A wrong clock, no descriptors, a full disk.
    HostLimits,
    /// Lost notifications of the kernel; links that are renamed, deleted and replaced.
    KernelViews,
    /// A host on a LAN of the nodes that does not belong to the network.
    Strangers,
    /// A local user without rights sends Babel packets and notices, reads files and connects to sockets; a neighbour connects to ports.
    LocalUser,
    /// Too many packets, log lines, routes and connections.
    Floods,
    /// A member's first packet, sent again and again.
    Replay,
    /// SIGKILL of child processes, and of a daemon at random moments.
    Kills,
    /// A daemon is restarted in place, or stands still; children hang; actors panic.
    Daemons,
    /// Paths that lose and delay packets.
    LossyPaths,
    /// SIGKILL of a daemon while only one mechanism ends its children.
    Orphans,
    /// A node is revoked; the network falls in halves; routers map ports wrongly.
    Network,
    /// Attacks on a registry, and its death.
    Registry,
    /// A registry that cannot be found or comes back older, and what callers and other nodes make of it.
    Authority,
    /// Damaged state files of a node.
    StateFiles,
    /// Damaged files and rows of a registry.
    RegistryFiles,
    /// SIGKILL of a daemon between each two side effects.
    FaultPoints,
    /// A random fault every five seconds, and a check of the history.
    Soak,
}

/// How far the faults go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Whether the long forms are run: a soak of ten minutes instead of two.
    pub is_long: bool,
    /// How often a member tries each lie.
    pub tries: usize,
    /// The seed of all random choices of the soak.
    pub seed: u64,
}

impl Group {
    /// Whether the group runs beside the others: it measures no times of a network.
    fn is_aside(&self) -> bool {
        matches!(
            self,
            Self::StateFiles
                | Self::RegistryFiles
                | Self::Registry
                | Self::Authority
                | Self::Orphans
                | Self::Strangers
        )
    }

    fn run(self, extent: Extent) -> Result<Vec<Outcome>> {
        match self {
            Self::PrefixTheft => prefix_theft::run(extent.tries),
            Self::Members => members::run(),
            Self::Flapping => flapping::run(),
            Self::HostLimits => host_limits::run(),
            Self::KernelViews => kernel_views::run(),
            Self::Strangers => strangers::run(),
            Self::LocalUser => local_user::run(),
            Self::Floods => floods::run(),
            Self::Replay => replay::run(),
            Self::Kills => kills::run(),
            Self::Daemons => daemons::run(),
            Self::LossyPaths => lossy_paths::run(),
            Self::Orphans => orphans::run(),
            Self::Network => network::run(),
            Self::Registry => registry::run(),
            Self::Authority => authority::run(),
            Self::StateFiles => state_files::run(),
            Self::RegistryFiles => registry_files::run(),
            Self::FaultPoints => fault_points::run(),
            Self::Soak => soak::run(extent),
        }
    }
}

/// What followed from one fault.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// A short name, which stays the same from run to run.
    pub id: &'static str,
    /// The fault in words.
    pub fault: &'static str,
    /// How often it was injected.
    pub tries: usize,
    /// What was measured.
    pub figures: Vec<Figure>,
}

impl Outcome {
    /// Adds further tries of the same fault: the worst value of each figure stays.
    fn add(&mut self, other: Self) {
        self.tries += other.tries;
        for (figure, other) in self.figures.iter_mut().zip(other.figures) {
            figure.value = figure.value.max(other.value);
        }
    }

    /// Whether all promises were kept.
    pub fn is_held(&self) -> bool {
        self.figures.iter().all(Figure::is_held)
    }
}

/// One measured value, and the limit that is promised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// What was measured, such as `pings lost`.
    pub name: &'static str,
    /// The worst value of all tries; infinite if the awaited event did not happen.
    pub value: f64,
    /// The highest value that is promised.
    pub limit: f64,
    /// The unit of both, or nothing for a count.
    pub unit: &'static str,
}

impl Figure {
    /// A count, such as of processes that were killed.
    fn count(name: &'static str, value: u64, limit: u64) -> Self {
        let [value, limit] = [value, limit].map(|count| {
            // Counts of a lab are far below 2^32.
            f64::from(u32::try_from(count).unwrap_or(u32::MAX))
        });
        Self {
            name,
            value,
            limit,
            unit: "",
        }
    }

    /// A time since the fault; `None` if the event did not happen.
    fn time(name: &'static str, value: Option<Duration>, limit: Duration) -> Self {
        Self {
            name,
            value: value.map_or(f64::INFINITY, |span| span.as_secs_f64()),
            limit: limit.as_secs_f64(),
            unit: "s",
        }
    }

    /// The part of all pings that was lost, in percent.
    fn lost(pings: crate::ping_record::PingSummary, limit_percent: f64) -> Self {
        let [lost, sent] = [pings.lost, pings.sent]
            .map(|count| f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
        Self {
            name: "pings lost",
            value: 100.0 * lost / sent.max(1.0),
            limit: limit_percent,
            unit: "%",
        }
    }

    /// Whether the promise was kept.
    pub fn is_held(&self) -> bool {
        self.value <= self.limit
    }
}

/// Runs these groups, all if there is none, prints a table with one line for each figure, and writes it to `page`.
///
/// # Errors
/// Fails if a network cannot be built, if a line cannot be printed, if the page cannot be written, or if a promise was broken.
pub fn run(
    groups: &[Group],
    extent: Extent,
    page: Option<&Path>,
    print: impl Fn(&str) -> Result<()>,
) -> Result<()> {
    let groups = if groups.is_empty() {
        Group::value_variants()
    } else {
        groups
    };
    print(&report::table_head())?;
    let (aside, main): (Vec<_>, Vec<_>) = groups.iter().copied().partition(Group::is_aside);
    let (outcomes, failed) = thread::scope(|scope| {
        let aside = scope.spawn(|| run_all(&aside, extent));
        let (mut outcomes, mut failed) = run_all(&main, extent);
        let (more, more_failed) = aside.join().unwrap_or_default();
        outcomes.extend(more);
        failed.extend(more_failed);
        (outcomes, failed)
    });
    for outcome in &outcomes {
        print(&report::table_rows(outcome))?;
    }
    if let Some(page) = page {
        let previous = std::fs::read_to_string(page).unwrap_or_default();
        std::fs::write(page, report::page(&outcomes, &previous))
            .with_context(|| format!("cannot write {}", page.display()))?;
    }
    ensure!(
        failed.is_empty(),
        "not run to the end: {}",
        failed.join("; ")
    );
    let broken: Vec<_> = outcomes
        .iter()
        .filter(|outcome| !outcome.is_held())
        .map(|outcome| outcome.id)
        .collect();
    ensure!(
        broken.is_empty(),
        "promises were broken by: {}",
        broken.join(", ")
    );
    Ok(())
}

/// Runs groups one after the other; returns what followed, and which groups could not be run to their end.
fn run_all(groups: &[Group], extent: Extent) -> (Vec<Outcome>, Vec<String>) {
    let (mut outcomes, mut failed) = (Vec::new(), Vec::new());
    for group in groups {
        progress(format!("group {group:?}"));
        match group.run(extent) {
            Ok(found) => {
                found
                    .iter()
                    .for_each(|found| progress(report::table_rows(found)));
                outcomes.extend(found);
            }
            Err(error) => {
                progress(format!("{group:?}: {error:#}"));
                failed.push(format!("{group:?}: {error:#}"));
            }
        }
    }
    (outcomes, failed)
}
