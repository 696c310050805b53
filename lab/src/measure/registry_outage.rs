//! Measures whether a network survives a long outage of its registry, in scaled time.

use super::short_lived_certificates;
use crate::{
    Lab, Node, Pinger,
    pinger::{PingSchedule, pairs_with},
    progress::{progress, seconds},
    wait::{pause, wait_until},
};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::time::{Duration, Instant};
use wire::control::{TUNNELS_PATH, TunnelsDocument};

/// Nodes of the lab.
const NODES: usize = 6;
/// Lifetime of a certificate. It stands for a year, so that a day is one second.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(365);
/// Length of a scaled day.
const DAY: Duration = Duration::from_secs(1);
/// When the outage starts: just before the last third of the certificates' lifetime, in which they would be renewed.
const OUTAGE_START: Duration = Duration::from_secs(225);
/// Length of the outage in days.
const OUTAGE_DAYS: u32 = 30;
/// The nodes that lose all their tunnels during the outage.
const ISOLATED_NODES: [usize; 2] = [NODES - 2, NODES - 1];
/// Time for which these nodes are unplugged.
const ISOLATION: Duration = Duration::from_secs(12);
/// Longest wait until an isolated node reaches all others again.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest wait until all nodes have renewed their certificates after the outage.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(120);
/// Time after the first certificates' expiry before reachability is checked.
const EXPIRY_MARGIN: Duration = Duration::from_secs(20);
/// Time for which reachability is checked.
const REACHABILITY_CHECK: Duration = Duration::from_secs(10);
/// Interval between two pings of a pair.
const PING_INTERVAL: Duration = Duration::from_millis(100);

/// The output of `measure registry-outage`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct RegistryOutage {
    /// Length of a scaled day in seconds; a certificate lives 365 of them.
    pub seconds_per_day: u64,
    /// Scaled days without the registry; renewals became due meanwhile.
    pub outage_days: u32,
    /// Nodes that renewed their certificate after the outage.
    pub renewed_nodes: usize,
    /// Nodes that some other node did not reach after the first certificates had expired.
    pub unreachable_nodes: usize,
    /// Nodes that lost all tunnels during the outage, and reached the network again without the registry.
    pub reconnected_nodes: usize,
    /// The longest time that this took, from the moment when the nodes were plugged in again.
    pub reconnect_seconds_max: f64,
}

/// Measures once.
///
/// # Errors
/// Fails if the lab cannot be built, if certificates are renewed before the outage, or if an isolated node does not
/// reconnect.
pub fn measure() -> Result<RegistryOutage> {
    let start = Instant::now();
    let lab = Lab::build_converged(short_lived_certificates(NODES, CERTIFICATE_LIFE))?;
    let pinger = lab.start_pings(PingSchedule::Every(PING_INTERVAL))?;
    let mut outage = RegistryOutage {
        seconds_per_day: DAY.as_secs(),
        outage_days: OUTAGE_DAYS,
        ..RegistryOutage::default()
    };
    let first_expiries = certificate_expiries(&lab)?;
    progress("waiting for the start of the outage");
    pause(OUTAGE_START.saturating_sub(start.elapsed()));
    ensure!(
        certificate_expiries(&lab)? == first_expiries,
        "certificates were renewed before the outage, so that nothing can be measured"
    );
    lab.stop_registry();
    progress("the registry is stopped");
    let stopped_at = Instant::now();
    isolate_nodes(&lab, &pinger, &mut outage)?;
    pause((DAY * OUTAGE_DAYS).saturating_sub(stopped_at.elapsed()));
    lab.start_registry()?;
    progress(format!(
        "the registry runs again after {:.0} s",
        stopped_at.elapsed().as_secs_f64()
    ));
    outage.renewed_nodes = wait_for_renewals(&lab, &first_expiries);
    progress(format!(
        "{} of {NODES} nodes have renewed their certificates",
        outage.renewed_nodes
    ));
    // After the expiry of the first certificates, tunnels that were accepted with them must still work.
    pause((CERTIFICATE_LIFE + EXPIRY_MARGIN).saturating_sub(start.elapsed()));
    let check_start = pinger.now();
    pause(REACHABILITY_CHECK);
    let is_unreachable = |node: &usize| {
        pinger
            .all_answered(check_start, pairs_with(*node))
            .is_none()
    };
    outage.unreachable_nodes = (0..NODES).filter(is_unreachable).count();
    Ok(outage)
}

fn certificate_expiries(lab: &Lab) -> Result<Vec<u64>> {
    lab.nodes().iter().map(Node::certificate_expiry).collect()
}

/// Waits until all nodes have renewed their certificates, or until the timeout. Returns how many have.
fn wait_for_renewals(lab: &Lab, first_expiries: &[u64]) -> usize {
    let renewed_nodes = || {
        let nodes = lab.nodes().iter().zip(first_expiries);
        nodes
            .filter(|(node, first)| node.certificate_expiry().ok() > Some(**first))
            .count()
    };
    wait_until(RENEWAL_TIMEOUT, || (renewed_nodes() == NODES).then_some(()));
    renewed_nodes()
}

/// Unplugs two nodes until they have no tunnel, and measures how soon they reach the others without the registry.
fn isolate_nodes(lab: &Lab, pinger: &Pinger, outage: &mut RegistryOutage) -> Result<()> {
    for node in ISOLATED_NODES {
        lab.unplug(node)?;
    }
    pause(ISOLATION);
    for index in ISOLATED_NODES {
        let tunnels: TunnelsDocument = lab.node(index)?.control_document(TUNNELS_PATH)?;
        if tunnels.tunnels.iter().any(|tunnel| tunnel.phase == "up") {
            progress(format!("node {index} still believes that a tunnel is up"));
        }
    }
    for node in ISOLATED_NODES {
        lab.plug_in(node)?;
    }
    let plugged_in_at = pinger.now();
    for index in ISOLATED_NODES {
        let reached_all = || pinger.all_answered(plugged_in_at, pairs_with(index));
        let reached_at = wait_until(RECONNECT_TIMEOUT, reached_all).with_context(|| {
            format!("node {index} does not reach the network again without the registry")
        })?;
        let span = seconds(reached_at.saturating_sub(plugged_in_at));
        outage.reconnected_nodes += 1;
        outage.reconnect_seconds_max = outage.reconnect_seconds_max.max(span);
        progress(format!(
            "node {index} reaches all others again after {span} s"
        ));
    }
    Ok(())
}
