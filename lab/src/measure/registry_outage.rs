//! Measures whether a network outlives a long absence of its registry, in scaled time.

use super::{certificate_end, pause, prepare, seconds, short_lived, start_whole, tell};
use crate::{Lab, Pace, Pinger, process::wait_until};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::time::{Duration, Instant};

/// How many nodes the lab has.
const NODES: usize = 6;
/// Stands for the year of an ordinary certificate, so that a day is about a second.
const LIFE: Duration = Duration::from_secs(365);
/// The registry goes before the last third of the certificates' lives begins, when they would be renewed.
const GONE_FROM: Duration = Duration::from_secs(225);
/// And stays away for thirty days.
const DAYS_AWAY: u32 = 30;
/// One day.
const DAY: Duration = Duration::from_secs(1);
/// These lose all their tunnels meanwhile.
const CUT: [usize; 2] = [NODES - 2, NODES - 1];
/// So long their cables are out.
const CUT_FOR: Duration = Duration::from_secs(12);
/// How long they may look for the others, and how long renewals may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What `measure registry-away` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct RegistryAway {
    /// A virtual day lasts so many seconds; a certificate lives 365 of them.
    pub seconds_per_day: u64,
    /// Virtual days without the registry; renewals became due meanwhile.
    pub days_away: u32,
    /// Nodes that renewed their certificate after its return.
    pub renewed: usize,
    /// Nodes that somebody did not reach after the end of the first certificates.
    pub nodes_lost: usize,
    /// Nodes that lost all tunnels while the registry was away, and found the network again without it.
    pub found_again: usize,
    /// How long that took, from the moment when their cables were back.
    pub seconds_found_again_max: f64,
}

/// Measures once.
///
/// # Errors
/// Where the lab cannot be built.
pub fn measure() -> Result<RegistryAway> {
    let begun = Instant::now();
    let lab = prepare(short_lived(NODES, LIFE))?;
    start_whole(&lab)?;
    let pinger = lab.ping(Pace::Every(Duration::from_millis(100)))?;
    let mut told = RegistryAway {
        seconds_per_day: DAY.as_secs(),
        days_away: DAYS_AWAY,
        ..RegistryAway::default()
    };
    let ends = lab
        .nodes()
        .iter()
        .map(certificate_end)
        .collect::<Result<Vec<_>>>()?;
    tell("the registry goes soon; until then all is ordinary");
    pause(GONE_FROM.saturating_sub(begun.elapsed()));
    let early = lab
        .nodes()
        .iter()
        .zip(&ends)
        .filter(|(node, end)| certificate_end(node).ok() != Some(**end));
    if early.count() > 0 {
        bail!("certificates were renewed before the registry went: nothing is measured");
    }
    lab.stop_registry();
    tell("the registry is gone");
    let gone = Instant::now();
    lose_tunnels(&lab, &pinger, &mut told)?;
    pause((DAY * DAYS_AWAY).saturating_sub(gone.elapsed()));
    lab.start_registry()?;
    tell(format!(
        "the registry is back after {:.0} s",
        gone.elapsed().as_secs_f64()
    ));
    let renewed = || {
        lab.nodes()
            .iter()
            .zip(&ends)
            .filter(|(node, end)| certificate_end(node).ok() > Some(**end))
            .count()
    };
    wait_until(PATIENCE, || (renewed() == NODES).then_some(()));
    told.renewed = renewed();
    tell(format!("{} of {NODES} nodes have renewed", told.renewed));
    // The first certificates end, and all that was let in with them must hold.
    pause((LIFE + Duration::from_secs(20)).saturating_sub(begun.elapsed()));
    let from = pinger.now();
    pause(Duration::from_secs(10));
    told.nodes_lost = (0..NODES)
        .filter(|node| {
            pinger
                .all_answered(from, |one, other| one == *node || other == *node)
                .is_none()
        })
        .count();
    Ok(told)
}

/// Two nodes are off the underlay until they have no tunnel, and then find the others without the registry.
fn lose_tunnels(lab: &Lab, pinger: &Pinger, told: &mut RegistryAway) -> Result<()> {
    CUT.iter().try_for_each(|node| lab.cut(*node))?;
    pause(CUT_FOR);
    for node in CUT {
        let tunnels: wire::control::TunnelsDocument =
            lab.node(node)?.ask(wire::control::TUNNELS_PATH)?;
        if tunnels.tunnels.iter().any(|tunnel| tunnel.phase == "up") {
            tell(format!("node {node} still takes some tunnel for good"));
        }
    }
    CUT.iter().try_for_each(|node| lab.mend(*node))?;
    let back = pinger.now();
    for node in CUT {
        let whole = || pinger.all_answered(back, |one, other| one == node || other == node);
        let found = wait_until(PATIENCE, whole).with_context(|| format!("node {node} is lost"))?;
        let span = seconds(found.saturating_sub(back));
        told.found_again += 1;
        told.seconds_found_again_max = told.seconds_found_again_max.max(span);
        tell(format!(
            "node {node} has found the network again after {span} s"
        ));
    }
    Ok(())
}
