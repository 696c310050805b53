//! A registry that is away while certificates fall due, and comes back with an older copy of its database.

use crate::{
    Lab, Node, Options,
    faults::{Figure, Outcome},
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use wire::control::{STATUS_PATH, StatusDocument};

/// Lifetime of certificates. They fall due in its last third.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(36);
/// How long the registry keeps announcements. Each node announces itself after a third of it.
const ANNOUNCEMENT_TTL: Duration = Duration::from_secs(15);
/// How long before the first certificate expires the registry comes back: six seconds after it has fallen due.
const BACK_BEFORE_EXPIRY: Duration = Duration::from_secs(6);
/// How long after the last of these certificates has expired all nodes must reach each other.
const EXPIRY_MARGIN: Duration = Duration::from_secs(5);
/// The nodes that the copy contains.
const KNOWN: usize = 3;
/// The node that joins after the copy was made, and again after it was restored.
const LATER: usize = KNOWN;
/// The node that joins after the copy was restored.
const NEW: usize = LATER + 1;
/// Time after which a node counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// Promised time from the registry's return until all nodes of the copy have renewed their certificates.
const RENEWED: Duration = Duration::from_secs(90);

pub(super) fn run() -> Result<Outcome> {
    let lab = Lab::build(Options {
        certificate_life: Some(CERTIFICATE_LIFE),
        announcement_ttl: Some(ANNOUNCEMENT_TTL),
        ..Options::with_nodes(NEW + 1)
    })?;
    lab.init_registry()?;
    lab.start_registry()?;
    (0..KNOWN).try_for_each(|index| join_and_start(&lab, index))?;
    let copy = lab.registry_root().join("copy.sqlite");
    let copy = copy.to_string_lossy();
    lab.registry_command("backup", &[&copy])?;
    join_and_start(&lab, LATER)?;
    wait_until(LOST_AFTER, || {
        (count_lost(&lab, 0..NEW, LATER) == 0).then_some(())
    })
    .context("the nodes do not reach each other")?;
    let known = lab.nodes().get(..KNOWN).unwrap_or_default();
    wait_for_renewals(known, &expiries(known)?)
        .context("the nodes do not renew their certificates")?;
    let before = expiries(known)?;
    let [earliest, latest] = [before.iter().min(), before.iter().max()]
        .map(|expiry| Duration::from_secs(expiry.copied().unwrap_or_default()));
    progress("the registry is away until certificates have fallen due");
    lab.stop_registry();
    pause_until(earliest.saturating_sub(BACK_BEFORE_EXPIRY));
    lab.registry_command("restore", &[&copy])?;
    lab.start_registry()?;
    let back_at = Instant::now();
    progress("the registry is back with the older copy");
    let later = lab.node(LATER)?;
    let old_prefix = later.prefix()?.to_owned();
    later.stop_cleanly()?;
    later.warren_command(&["join", "--replace", &lab.invite(&[])?])?;
    later.start()?;
    join_and_start(&lab, NEW)?;
    let renewed = wait_for_renewals(known, &before).map(|()| back_at.elapsed());
    pause_until(latest + EXPIRY_MARGIN);
    let all = 0..=NEW;
    wait_until(LOST_AFTER, || {
        (count_lost(&lab, all.clone(), NEW) == 0).then_some(())
    });
    let mut prefixes = BTreeSet::from([old_prefix]);
    for node in lab.nodes() {
        prefixes.insert(node.control_document::<StatusDocument>(STATUS_PATH)?.prefix);
    }
    let owners = lab.nodes().len() + 1;
    Ok(Outcome {
        id: "older-copy",
        fault: "the registry is away until certificates have fallen due, and comes back with a copy from before they were renewed last, and from before another node joined, which joins again",
        tries: 1,
        figures: vec![
            Figure::count("nodes lost", u64::try_from(count_lost(&lab, all, NEW))?, 0),
            Figure::count("prefixes twice", u64::try_from(owners - prefixes.len())?, 0),
            Figure::time("certificates renewed", renewed, RENEWED),
        ],
    })
}

/// When the certificates of these nodes expire, in seconds since 1970.
fn expiries(nodes: &[Node]) -> Result<Vec<u64>> {
    nodes.iter().map(Node::certificate_expiry).collect()
}

/// Waits until the certificates of all these nodes expire later than before; returns `None` if that takes too long.
fn wait_for_renewals(nodes: &[Node], before: &[u64]) -> Option<()> {
    wait_until(RENEWED * 2, || {
        let now = expiries(nodes).ok()?;
        let are_renewed = now.iter().zip(before).all(|(now, before)| now > before);
        are_renewed.then_some(())
    })
}

fn join_and_start(lab: &Lab, index: usize) -> Result<()> {
    let node = lab.node(index)?;
    node.join(&lab.invite(&["--name", &node.name()])?)?;
    node.start()
}

/// The number of these nodes that do not reach so many others.
fn count_lost(lab: &Lab, nodes: impl IntoIterator<Item = usize>, others: usize) -> usize {
    let is_lost = |index: &usize| {
        let status = lab
            .node(*index)
            .and_then(|node| node.control_document::<StatusDocument>(STATUS_PATH));
        status.map_or(true, |status| {
            usize::try_from(status.nodes_reachable) != Ok(others)
        })
    };
    nodes.into_iter().filter(is_lost).count()
}

/// Waits until this time since 1970.
fn pause_until(moment: Duration) {
    let left = (UNIX_EPOCH + moment).duration_since(SystemTime::now());
    pause(left.unwrap_or_default());
}
