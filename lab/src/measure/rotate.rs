//! Measures which pings are lost while node certificates, the CA and the keys that all nodes share are changed.

use super::short_lived_certificates;
use crate::{
    Lab, Node, Pinger,
    ping_record::LOST_AFTER,
    pinger::{PingSchedule, all_pairs},
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use serde::Serialize;
use std::time::Duration;

/// Nodes of the lab.
const NODES: usize = 6;
/// Lifetime of a certificate. It stands for a year; renewals and restarts happen in its last third.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(600);
/// Pause between convergence and the first ping.
const SETTLING_TIME: Duration = Duration::from_secs(15);
/// Longest time that one step may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(600);
/// Pause before a step that the registry rejected is tried again, because some node is not ready yet.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Time after a change whose pings still count for the change.
const AFTERMATH: Duration = Duration::from_secs(5);
/// Time that a new document takes to reach all nodes.
const ROLLOUT_TIME: Duration = Duration::from_secs(3);
/// The steps of changing the CA or a key.
const STEPS: [&str; 3] = ["stage", "activate", "retire"];

/// The output of `measure rotate`: lost pings by what was changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct RotationLosses {
    /// Pings sent between all pairs, at intervals of 10 ms.
    pub sent: u64,
    /// Pings lost during all changes together.
    pub lost: u64,
    /// Pings lost while all node certificates were renewed and all OpenVPN processes restarted.
    pub lost_certificates: u64,
    /// Pings lost while the CA was changed, in three steps.
    pub lost_ca: u64,
    /// Pings lost while the `tls-crypt` key was changed, in three steps.
    pub lost_tls_crypt: u64,
    /// Pings lost while Babel's key was changed, in three steps. No tunnel uses this key.
    pub lost_babel: u64,
    /// Starts of processes meanwhile, over all nodes.
    pub restarts: u64,
}

/// A credential that can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Change {
    /// The node certificates, in the last third of their lifetime.
    Certificates,
    /// The CA, in three steps.
    Ca,
    /// The `tls-crypt` key, in three steps.
    TlsCrypt,
    /// Babel's key, in three steps.
    Babel,
}

impl Change {
    /// The change's name in progress lines and errors.
    fn name(self) -> &'static str {
        match self {
            Self::Certificates => "node certificates",
            Self::Ca => "CA",
            Self::TlsCrypt => "tls-crypt key",
            Self::Babel => "Babel's key",
        }
    }

    /// Carries the change out, and waits until no process uses old files any more.
    fn carry_out(self, lab: &Lab) -> Result<()> {
        match self {
            Self::Certificates => {
                wait_for_renewals(lab)?;
                wait_for_restarts(lab)
            }
            Self::Ca => rotate(lab, "rotate-ca", &[]),
            Self::TlsCrypt => rotate(lab, "rotate-key", &["tls-crypt"]),
            Self::Babel => rotate(lab, "rotate-key", &["babel"]),
        }
    }

    /// The count of the pings that this change lost.
    fn lost(self, losses: &mut RotationLosses) -> &mut u64 {
        match self {
            Self::Certificates => &mut losses.lost_certificates,
            Self::Ca => &mut losses.lost_ca,
            Self::TlsCrypt => &mut losses.lost_tls_crypt,
            Self::Babel => &mut losses.lost_babel,
        }
    }
}

/// Measures once.
///
/// # Errors
/// Fails if the lab cannot be built, or if a step does not reach all nodes.
pub fn measure(changes: &[Change]) -> Result<RotationLosses> {
    let lab = Lab::build_converged(short_lived_certificates(NODES, CERTIFICATE_LIFE))?;
    pause(SETTLING_TIME);
    let pinger = lab.start_pings(PingSchedule::STEADY)?;
    let starts_before = count_process_starts(&lab)?;
    let mut losses = RotationLosses::default();
    for change in changes {
        measure_change(&lab, &pinger, *change, &mut losses)?;
    }
    losses.restarts = count_process_starts(&lab)?.saturating_sub(starts_before);
    Ok(losses)
}

fn measure_change(
    lab: &Lab,
    pinger: &Pinger,
    change: Change,
    losses: &mut RotationLosses,
) -> Result<()> {
    let name = change.name();
    let start = pinger.now();
    progress(format!(
        "{name}: started at second {:.1} of the pings",
        start.as_secs_f64()
    ));
    let outcome = change.carry_out(lab);
    let duration = pinger.now().saturating_sub(start);
    pause(AFTERMATH + LOST_AFTER);
    let summary = pinger.summarize(start, pinger.now(), all_pairs);
    progress(format!(
        "{name}: {} of {} pings lost in {:.0} s",
        summary.lost,
        summary.sent,
        duration.as_secs_f64()
    ));
    for line in pinger.describe_losses(start, pinger.now(), all_pairs) {
        progress(line);
    }
    *change.lost(losses) += summary.lost;
    losses.lost += summary.lost;
    losses.sent += summary.sent;
    outcome.with_context(|| format!("{name}; rollout: {}", describe_rollout(lab)))
}

fn certificate_expiries(lab: &Lab) -> Result<Vec<u64>> {
    lab.nodes().iter().map(Node::certificate_expiry).collect()
}

/// Waits until each node's certificate expires later than the present one.
fn wait_for_renewals(lab: &Lab) -> Result<()> {
    let before = certificate_expiries(lab)?;
    let all_renewed = || {
        let now = certificate_expiries(lab).ok()?;
        let mut pairs = now.iter().zip(&before);
        pairs.all(|(now, before)| now > before).then_some(())
    };
    wait_until(STEP_TIMEOUT, all_renewed).context("some node has not renewed its certificate")
}

/// Carries out the three steps of a change, each once all processes use the files of the step before.
fn rotate(lab: &Lab, verb: &str, arguments: &[&str]) -> Result<()> {
    for step in STEPS {
        take_step(lab, verb, &[arguments, &[step]].concat())?;
        wait_for_restarts(lab)?;
    }
    Ok(())
}

/// Runs one command of the registry, again and again until all nodes are ready for it.
fn take_step(lab: &Lab, verb: &str, arguments: &[&str]) -> Result<()> {
    let mut last_error = None;
    let done = wait_until(STEP_TIMEOUT, || {
        match lab.registry_command(verb, arguments) {
            Ok(_) => Some(()),
            Err(error) => {
                last_error = Some(error);
                pause(RETRY_PAUSE);
                None
            }
        }
    });
    progress(format!("{verb} {}", arguments.join(" ")));
    done.ok_or_else(|| last_error.unwrap_or_else(|| anyhow!("{verb} was not tried")))
}

fn describe_rollout(lab: &Lab) -> String {
    lab.registry_command("rollout", &["--json"])
        .unwrap_or_else(|error| format!("{error:#}"))
}

/// Waits until every process of every node uses the files on its disk, and these are of the registry's documents.
fn wait_for_restarts(lab: &Lab) -> Result<()> {
    pause(ROLLOUT_TIME);
    let is_stale = |line: &str| line.starts_with("warren_process_stale{") && !line.ends_with(" 0");
    let all_current = || {
        let has_no_stale_process = |node: &Node| {
            let metrics = node.scrape();
            metrics.is_ok_and(|metrics| !metrics.lines().any(is_stale))
        };
        lab.nodes().iter().all(has_no_stale_process).then_some(())
    };
    wait_until(STEP_TIMEOUT, all_current).context("some processes still use old files")
}

/// How often processes have been started so far, over all nodes.
fn count_process_starts(lab: &Lab) -> Result<u64> {
    let mut starts = 0;
    for node in lab.nodes() {
        let metrics = node.scrape()?;
        let samples = metrics
            .lines()
            .filter_map(|line| line.strip_prefix("warren_process_starts_total{"));
        starts += samples
            .filter_map(|sample| sample.rsplit(' ').next()?.parse::<u64>().ok())
            .sum::<u64>();
    }
    Ok(starts)
}
