//! Nodes of one LAN find each other there, and do without its router, the internet and the registry; many of them make no mesh.

use anyhow::{Result, ensure};
use lab::{
    is_skipped_without_root,
    measure::lan::{measure_crowd, measure_site},
};

/// Nodes on the crowded LAN.
const CROWD: usize = 10;

#[test]
fn nodes_of_one_lan_reach_each_other_without_router_internet_and_registry() -> Result<()> {
    if is_skipped_without_root("lan") {
        return Ok(());
    }
    let site = measure_site()?;
    ensure!(site.router_hairpin_bytes == 0, "{site:?}");
    // The router gets what concerns the registry and the node on the internet, whether the nodes of the LAN speak or not.
    let by_router = site.router_bytes.saturating_sub(site.router_idle_bytes);
    ensure!(by_router < site.pair_bytes / 10, "{site:?}");
    ensure!(
        site.outage_pings > 0 && site.outage_pings_lost == 0,
        "{site:?}"
    );
    ensure!(site.found_from_internet == 0, "{site:?}");
    ensure!(site.restart_seconds < 30.0, "{site:?}");
    Ok(())
}

#[test]
fn many_nodes_on_one_lan_all_find_each_other_and_make_no_mesh() -> Result<()> {
    if is_skipped_without_root("lan: many nodes") {
        return Ok(());
    }
    let crowd = measure_crowd(CROWD)?;
    ensure!(crowd.least_found == CROWD - 1, "{crowd:?}");
    // Each dials three.
    ensure!(crowd.mean_tunnels <= 6.5, "{crowd:?}");
    Ok(())
}
