//! Tells by which kind of kernel link this machine's nodes accept tunnels, and whether frames pass.

use super::{prepare, seconds, start_whole};
use crate::{Lab, Options, ip};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What `measure slots` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slots {
    /// `vlan` where the kernel has 8021q, else `macvlan`.
    pub kind: String,
    /// Accepting slots that carried frames both ways.
    pub used: usize,
    /// From the start until all three nodes reached each other.
    pub seconds: f64,
}

/// As `ip -json -details -stats link` tells it.
#[derive(Deserialize)]
struct Link {
    ifname: String,
    linkinfo: Option<Info>,
    stats64: Option<Counters>,
}

#[derive(Deserialize)]
struct Info {
    info_kind: Option<String>,
}

#[derive(Deserialize)]
struct Counters {
    rx: Counter,
    tx: Counter,
}

#[derive(Deserialize)]
struct Counter {
    packets: u64,
}

/// Three nodes, each a tunnel away from each other.
///
/// # Errors
/// Where the network does not become whole, the kinds differ, or no accepting slot carried anything.
pub fn measure() -> Result<Slots> {
    let lab = prepare(Options {
        nodes: 3,
        dial: Some(2),
        ..Options::default()
    })?;
    let whole = start_whole(&lab)?;
    let mut kinds = BTreeSet::new();
    let mut used = 0;
    for (kind, counters) in accepting(&lab)? {
        used += usize::from(counters.rx.packets > 0 && counters.tx.packets > 0);
        kinds.insert(kind);
    }
    let kind = kinds.pop_first().context("there are no accepting slots")?;
    if !kinds.is_empty() {
        bail!("accepting slots are of more than one kind: {kind} and {kinds:?}");
    }
    if used == 0 {
        bail!("no accepting slot carried frames both ways");
    }
    Ok(Slots {
        kind,
        used,
        seconds: seconds(whole),
    })
}

fn accepting(lab: &Lab) -> Result<Vec<(String, Counters)>> {
    let mut found = Vec::new();
    for node in lab.nodes() {
        let told = ip::read(node.namespace(), &["-json", "-details", "-stats", "link"])?;
        let links: Vec<Link> =
            serde_json::from_str(&told).context("ip told of its links strangely")?;
        for link in links {
            if !link.ifname.starts_with("wrnu.") && !link.ifname.starts_with("wrnt.") {
                continue;
            }
            let kind = link.linkinfo.and_then(|info| info.info_kind);
            let (Some(kind), Some(counters)) = (kind, link.stats64) else {
                continue;
            };
            found.push((kind, counters));
        }
    }
    Ok(found)
}
