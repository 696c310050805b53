//! Measures which pings are lost while node certificates, the CA and the keys that all nodes share are changed.

mod step_times;

pub use step_times::{NodeTimes, StepTimes};

use super::short_lived_certificates;
use crate::{
    Lab, Pinger,
    ping_record::LOST_AFTER,
    pinger::{PingSchedule, all_pairs},
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use serde::Serialize;
use std::time::{Duration, Instant};
use step_times::{STEP_TIMEOUT, Target, certificate_expiries, time_step};

/// Nodes of the lab.
const NODES: usize = 6;
/// Lifetime of a certificate. It stands for a year; renewals and restarts happen in its last third.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(600);
/// Pause between convergence and the first ping.
const SETTLING_TIME: Duration = Duration::from_secs(15);
/// Pause before a step that the registry rejected is tried again, because some node is not ready yet.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Time after a change whose pings still count for the change.
const AFTERMATH: Duration = Duration::from_secs(5);
/// The steps of changing the CA or a key.
const STEPS: [&str; 3] = ["stage", ACTIVATE, "retire"];
/// The step of changing the CA in which all nodes get a certificate of the new one.
const ACTIVATE: &str = "activate";

/// The output of `measure rotate`: lost pings by what was changed, and the time that each step took.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
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
    /// The time that each step took at each node, in the order of the steps.
    pub steps: Vec<StepTimes>,
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

    /// Carries the change out, each step once no process uses the files of the step before any more, and notes the times.
    fn carry_out(self, lab: &Lab, times: &mut Vec<StepTimes>) -> Result<()> {
        let (verb, arguments): (_, &[&str]) = match self {
            Self::Certificates => return self.wait_for_renewals(lab, times),
            Self::Ca => ("rotate-ca", &[]),
            Self::TlsCrypt => ("rotate-key", &["tls-crypt"]),
            Self::Babel => ("rotate-key", &["babel"]),
        };
        for step in STEPS {
            let renews_certificates = self == Self::Ca && step == ACTIVATE;
            let old_expiries = renews_certificates.then(|| certificate_expiries(lab));
            let old_expiries = old_expiries.transpose()?;
            let (start, rejected) = take_step(lab, verb, &[arguments, &[step]].concat())?;
            let target = Target {
                old_expiries,
                ..Target::current_document(lab)?
            };
            let step = format!("{} {step}", self.name());
            times.push(time_step(lab, &step, &target, rejected, start)?);
        }
        Ok(())
    }

    /// Waits until each node has a later certificate than the present one, and uses it.
    fn wait_for_renewals(self, lab: &Lab, times: &mut Vec<StepTimes>) -> Result<()> {
        let target = Target {
            old_expiries: Some(certificate_expiries(lab)?),
            ..Target::default()
        };
        let start = Instant::now();
        times.push(time_step(lab, self.name(), &target, Duration::ZERO, start)?);
        Ok(())
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
    let outcome = change.carry_out(lab, &mut losses.steps);
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

/// Runs one command of the registry, again and again until all nodes are ready for it. Returns when it was accepted, and for
/// how long it was rejected before.
pub(super) fn take_step(lab: &Lab, verb: &str, arguments: &[&str]) -> Result<(Instant, Duration)> {
    let (first_attempt, mut last_error) = (Instant::now(), None);
    let accepted = wait_until(STEP_TIMEOUT, || {
        let start = Instant::now();
        match lab.registry_command(verb, arguments) {
            Ok(_) => Some((start, start - first_attempt)),
            Err(error) => {
                last_error = Some(error);
                pause(RETRY_PAUSE);
                None
            }
        }
    });
    progress(format!("{verb} {}", arguments.join(" ")));
    accepted.ok_or_else(|| last_error.unwrap_or_else(|| anyhow!("{verb} was not tried")))
}

fn describe_rollout(lab: &Lab) -> String {
    lab.registry_command("rollout", &["--json"])
        .unwrap_or_else(|error| format!("{error:#}"))
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
