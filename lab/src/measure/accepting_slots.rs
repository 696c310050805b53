//! Measures by which kind of kernel link this machine's nodes accept tunnels, and whether frames pass.

use crate::{Lab, Options, ip, kernel_routes::is_accepting_slot, progress::seconds};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The output of `measure accepting-slots`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcceptingSlots {
    /// The kind of link: `vlan` if the kernel has 8021q, `macvlan` otherwise.
    pub link_kind: String,
    /// Accepting slots that carried frames in both directions.
    pub used_slots: usize,
    /// Time from the start until all three nodes reached each other.
    pub seconds: f64,
}

/// One link, as `ip -json -details -stats link` prints it.
#[derive(Deserialize)]
struct Link {
    ifname: String,
    linkinfo: Option<LinkInfo>,
    stats64: Option<LinkStatistics>,
}

#[derive(Deserialize)]
struct LinkInfo {
    info_kind: Option<String>,
}

#[derive(Deserialize)]
struct LinkStatistics {
    rx: DirectionStatistics,
    tx: DirectionStatistics,
}

#[derive(Deserialize)]
struct DirectionStatistics {
    packets: u64,
}

/// Measures once, with three nodes that each have a tunnel to each other.
///
/// # Errors
/// Fails if the network does not converge, if the kinds differ, or if no accepting slot carried frames in both directions.
pub fn measure() -> Result<AcceptingSlots> {
    let lab = Lab::build_joined(Options::with_nodes(3))?;
    let duration = lab.start_and_converge()?;
    let mut kinds = BTreeSet::new();
    let mut used_slots = 0;
    for (kind, statistics) in read_accepting_slots(&lab)? {
        let is_used = statistics.rx.packets > 0 && statistics.tx.packets > 0;
        used_slots += usize::from(is_used);
        kinds.insert(kind);
    }
    let link_kind = kinds.pop_first().context("there are no accepting slots")?;
    ensure!(
        kinds.is_empty(),
        "accepting slots are of more than one kind: {link_kind} and {kinds:?}"
    );
    ensure!(
        used_slots > 0,
        "no accepting slot carried frames in both directions"
    );
    Ok(AcceptingSlots {
        link_kind,
        used_slots,
        seconds: seconds(duration),
    })
}

/// Kind and statistics of all nodes' accepting slots.
fn read_accepting_slots(lab: &Lab) -> Result<Vec<(String, LinkStatistics)>> {
    let mut slots = Vec::new();
    for node in lab.nodes() {
        let listing = ip::output(node.namespace(), &["-json", "-details", "-stats", "link"])?;
        let links: Vec<Link> = serde_json::from_str(&listing)
            .with_context(|| format!("cannot parse ip's links of node {}", node.index()))?;
        for link in links
            .into_iter()
            .filter(|link| is_accepting_slot(&link.ifname))
        {
            let kind = link.linkinfo.and_then(|info| info.info_kind);
            if let (Some(kind), Some(statistics)) = (kind, link.stats64) {
                slots.push((kind, statistics));
            }
        }
    }
    Ok(slots)
}
