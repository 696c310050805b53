//! Measures what pings are lost while node certificates, the CA and the keys that all share are changed.

use super::{PACE, certificate_end, pause, prepare, short_lived, start_whole, tell};
use crate::{Lab, Pinger, ping_record::LOST_AFTER, process::wait_until};
use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use std::time::Duration;

/// How many nodes the lab has.
const NODES: usize = 6;
/// Stands for a year: certificates are renewed and processes started anew in its last third.
const LIFE: Duration = Duration::from_secs(600);
/// Between convergence and the first ping.
const SETTLE: Duration = Duration::from_secs(15);
/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// After a step all is quiet for so long.
const REST: Duration = Duration::from_secs(5);

/// What `measure rotate` prints: pings lost by what was changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rotate {
    /// Pings sent between all pairs at 10 ms.
    pub sent: u64,
    /// Lost in all.
    pub lost: u64,
    /// While all node certificates were renewed, and all OpenVPN processes started anew.
    pub lost_certificates: u64,
    /// While the CA was changed, in three steps.
    pub lost_ca: u64,
    /// While the `tls-crypt` key was changed, in three steps.
    pub lost_tls_crypt: u64,
    /// While Babel's key was changed, in three steps; no tunnel uses it.
    pub lost_babel: u64,
    /// Processes that were started anew meanwhile, over all nodes.
    pub restarts: u64,
}

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Change {
    /// Node certificates, in the last third of their lives.
    Certificates,
    /// The CA, in three steps.
    Ca,
    /// The `tls-crypt` key, in three steps.
    TlsCrypt,
    /// Babel's key, in three steps.
    Babel,
}

/// Measures once.
///
/// # Errors
/// Where the lab cannot be built, or a step does not reach all nodes.
pub fn measure(changes: &[Change]) -> Result<Rotate> {
    let lab = prepare(short_lived(NODES, LIFE))?;
    start_whole(&lab)?;
    pause(SETTLE);
    let pinger = lab.ping(PACE)?;
    let before = starts(&lab)?;
    let mut told = Rotate::default();
    let mut phase = Phase {
        lab: &lab,
        pinger: &pinger,
        told: &mut told,
    };
    for change in changes {
        let steps = |verb: &str, words: &[&str]| {
            ["stage", "activate", "retire"].iter().try_for_each(|step| {
                rotate(&lab, verb, &[words, &[*step]].concat())?;
                none_stale(&lab)
            })
        };
        match change {
            Change::Certificates => phase.run(
                "node certificates",
                |told| &mut told.lost_certificates,
                || {
                    all_renewed(&lab)?;
                    none_stale(&lab)
                },
            )?,
            Change::Ca => phase.run("CA", |told| &mut told.lost_ca, || steps("rotate-ca", &[]))?,
            Change::TlsCrypt => phase.run(
                "tls-crypt",
                |told| &mut told.lost_tls_crypt,
                || steps("rotate-key", &["tls-crypt"]),
            )?,
            Change::Babel => {
                phase.run(
                    "babel",
                    |told| &mut told.lost_babel,
                    || steps("rotate-key", &["babel"]),
                )?;
            }
        }
    }
    told.restarts = starts(&lab)?.saturating_sub(before);
    Ok(told)
}

/// Waits until each node's certificate ends later than it does now.
fn all_renewed(lab: &Lab) -> Result<()> {
    let ends = lab
        .nodes()
        .iter()
        .map(certificate_end)
        .collect::<Result<Vec<_>>>()?;
    let renewed = || {
        let now = lab
            .nodes()
            .iter()
            .map(certificate_end)
            .collect::<Result<Vec<_>>>()
            .ok()?;
        now.iter()
            .zip(&ends)
            .all(|(now, before)| now > before)
            .then_some(())
    };
    wait_until(PATIENCE, renewed).context("not all certificates were renewed")
}

/// Which of the counts.
type Counter = fn(&mut Rotate) -> &mut u64;

struct Phase<'a> {
    lab: &'a Lab,
    pinger: &'a Pinger,
    told: &'a mut Rotate,
}

impl Phase<'_> {
    fn run(
        &mut self,
        what: &str,
        lost: Counter,
        change: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let begun = self.pinger.now();
        tell(format!(
            "{what}: begun at second {:.1} of the pings",
            begun.as_secs_f64()
        ));
        let done = change();
        let ended = self.pinger.now();
        pause(REST + LOST_AFTER);
        let sum = self.pinger.sum_up(begun, self.pinger.now(), |_, _| true);
        tell(format!(
            "{what}: {} of {} pings lost in {:.0} s",
            sum.lost,
            sum.sent,
            (ended - begun).as_secs_f64()
        ));
        self.pinger
            .losses(begun, self.pinger.now(), |_, _| true)
            .into_iter()
            .for_each(tell);
        *lost(self.told) += sum.lost;
        self.told.lost += sum.lost;
        self.told.sent += sum.sent;
        done.with_context(|| format!("{what}; spread: {}", spread(self.lab)))
    }
}

/// One step; tried until all nodes are ready for it.
fn rotate(lab: &Lab, verb: &str, words: &[&str]) -> Result<()> {
    let words: Vec<String> = words.iter().map(ToString::to_string).collect();
    let mut said = None;
    let done = wait_until(PATIENCE, || match lab.registry_command(verb, &words) {
        Ok(_) => Some(()),
        Err(error) => {
            said = Some(error);
            pause(Duration::from_secs(1));
            None
        }
    });
    tell(format!("{verb} {}", words.join(" ")));
    match (done, said) {
        (None, Some(error)) => Err(error),
        _ => Ok(()),
    }
}

fn spread(lab: &Lab) -> String {
    lab.registry_command("spread", &["--json".to_owned()])
        .unwrap_or_else(|error| format!("{error:#}"))
}

/// Waits until every process of every node runs with the files that are on disk, and the document of the registry.
fn none_stale(lab: &Lab) -> Result<()> {
    // The news travels first.
    pause(Duration::from_secs(3));
    let fresh = || {
        let texts: Vec<String> = lab
            .nodes()
            .iter()
            .filter_map(|node| node.scrape().ok())
            .collect();
        let stale = |line: &str| line.starts_with("warren_process_stale{") && !line.ends_with(" 0");
        let whole = texts.len() == lab.nodes().len();
        (whole && !texts.iter().any(|text| text.lines().any(stale))).then_some(())
    };
    wait_until(PATIENCE, fresh).context("some processes still have old files")
}

/// Starts of all processes of all nodes.
fn starts(lab: &Lab) -> Result<u64> {
    let mut sum = 0;
    for node in lab.nodes() {
        let text = node.scrape()?;
        let counts = text
            .lines()
            .filter_map(|line| line.strip_prefix("warren_process_starts_total{"));
        sum += counts
            .filter_map(|rest| rest.rsplit(' ').next()?.parse::<u64>().ok())
            .sum::<u64>();
    }
    Ok(sum)
}
