//! Faults of the network as a whole: a node is revoked, the internet falls in two halves, routers map ports wrongly.

use super::{Figure, Outcome};
use crate::{
    Lab, Options, PingSchedule,
    measure::{gateways, revoke},
    ping_record::LOST_AFTER,
    pinger::all_pairs,
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::Result;
use std::time::Duration;

/// Nodes of the network in which nodes are revoked, and number of revoked ones: three while connected, and an absent one.
const REVOKING: usize = 8;
const REVOKED: usize = 4;
/// Promised time until a revoked node is reached no more.
const REVOKED_WITHIN: Duration = Duration::from_secs(60);
/// Nodes of the network that falls in halves.
const SPLIT: usize = 6;
/// Time for which it does.
const SPLIT_SPAN: Duration = Duration::from_secs(30);
/// Promised time until all pairs reach each other again after that.
const WHOLE_AGAIN: Duration = Duration::from_secs(60);
/// The faults of routers that are tried here; `warren-lab measure gateways` tries all.
const ROUTERS: [&str; 6] = [
    "description-replaced",
    "lease-shortened",
    "location-loopback",
    "document-hangs",
    "external-address-private",
    "node-killed",
];

pub(super) fn run() -> Result<Vec<Outcome>> {
    Ok(vec![revoke_nodes()?, split()?, map_ports()?])
}

fn revoke_nodes() -> Result<Outcome> {
    progress("nodes are revoked");
    let found = revoke::measure(REVOKING)?;
    let seconds = |value: f64| Some(Duration::from_secs_f64(value));
    Ok(Outcome {
        id: "revoked-node",
        fault: "nodes are revoked: those that others need, and one that is absent and comes back",
        tries: REVOKED,
        figures: vec![
            Figure::time(
                "last answered ping",
                seconds(found.seconds_max),
                REVOKED_WITHIN,
            ),
            Figure::count("pings lost by pairs of others", found.others_lost, 0),
            Figure::count("answered pings of the absent one", found.absent_answered, 0),
        ],
    })
}

fn split() -> Result<Outcome> {
    let fault =
        "the internet of six nodes falls in two halves for 30 s, the registry in one of them";
    progress(fault);
    let lab = Lab::build_converged(Options::with_nodes(SPLIT))?;
    let pinger = lab.start_pings(PingSchedule::Every(Duration::from_millis(100)))?;
    let half = 0..SPLIT / 2;
    lab.split(half.clone())?;
    // What fails over within a half does so before.
    pause(SPLIT_SPAN / 2);
    let start = pinger.now();
    pause(SPLIT_SPAN / 2);
    let end = pinger.now();
    pause(LOST_AFTER);
    let same_half = |from: usize, to: usize| half.contains(&from) == half.contains(&to);
    let inside = pinger.summarize(start, end, same_half);
    lab.join_parts(half.clone())?;
    let start = pinger.now();
    let whole = wait_until(2 * WHOLE_AGAIN, || pinger.all_answered(start, all_pairs));
    Ok(Outcome {
        id: "split",
        fault,
        tries: 1,
        figures: vec![
            Figure::count("pings lost within a half", inside.lost, 0),
            Figure::time(
                "all pairs reach each other",
                whole.map(|at| at.saturating_sub(start)),
                WHOLE_AGAIN,
            ),
        ],
    })
}

fn map_ports() -> Result<Outcome> {
    progress("routers map ports wrongly");
    let found = gateways::measure(&ROUTERS.map(str::to_owned))?;
    let count =
        |name, value: usize| Ok::<_, anyhow::Error>(Figure::count(name, value.try_into()?, 0));
    Ok(Outcome {
        id: "routers",
        fault: "routers that map ports: another description, a shorter lease, a document elsewhere or without end, a private address, a node that is killed",
        tries: found.cases.len(),
        figures: vec![
            count("ports not mapped as far as possible", found.failed)?,
            count("failures without a report", found.silent)?,
            count("mappings left behind", found.mappings_left)?,
            count("wrong addresses announced", found.wrong_addresses)?,
        ],
    })
}
