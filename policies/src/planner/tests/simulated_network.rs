//! Planners in one network with an idealised router: no sockets, no Babel, no chance but a seed.

mod network;
mod routing;

use crate::names::Role;
use network::Network;

/// The seeds of the runs. One is enough to see that nothing broke; a change of the policy deserves more.
const SEEDS: std::ops::Range<u64> = 0..1;

/// Runs a network whose nodes all start at once for that number of refreshes, and checks that it settles.
#[track_caller]
fn check(
    nodes: usize,
    dial: u16,
    rate: u64,
    refreshes: u64,
    planned_closings: std::ops::RangeInclusive<usize>,
) {
    for seed in SEEDS {
        let mut network = Network::new(nodes, dial, 60, rate, seed);
        let seconds = network.converge();
        assert!(seconds <= 5, "whole after {seconds} s");
        network.run(60);
        let hops_before = network.mean_hops();
        network.run(60 * refreshes);
        let hops = network.mean_hops();
        assert!(
            hops <= hops_before * 1.15,
            "mean hops rose from {hops_before:.2} to {hops:.2}"
        );
        assert_eq!(network.closed_in_use, 0, "a tunnel was closed while in use");
        let max_dialled = network.max_dialled;
        assert!(
            max_dialled <= usize::from(dial) + 1,
            "{max_dialled} dialled"
        );
        assert!(
            planned_closings.contains(&network.planned_closings()),
            "closed {:?}, opened {}, abandoned {}",
            network.closed,
            network.opened,
            network.abandoned
        );
        let dialled = |node| {
            let tunnels = network
                .links(node)
                .map(|(index, ..)| &network.tunnels[index]);
            tunnels.filter(|tunnel| tunnel.ends[0] == node).count()
        };
        assert!(
            (0..nodes).all(|node| dialled(node) >= 1),
            "a node stopped dialling"
        );
        let mut tunnels = network.tunnels.iter();
        assert!(tunnels.all(|tunnel| tunnel.slots[0].role() == Role::Dialled));
    }
}

#[test]
fn twelve_nodes_without_traffic_settle_and_do_not_churn() {
    // 12 nodes run for 26 refreshes; rotation alone would close one tunnel per node and 12 refreshes.
    check(12, 3, 0, 26, 1..=40);
}

#[test]
fn eight_nodes_with_traffic_close_unused_tunnels_and_lose_nothing() {
    check(8, 2, 100, 16, 1..=80);
}

#[test]
fn twelve_nodes_with_traffic_close_unused_tunnels_and_lose_nothing() {
    check(12, 3, 100, 12, 1..=100);
}
