//! Made-up networks of any size, for tests and for pictures.

use time::OffsetDateTime;
use wire::{
    control::{TunnelEntry, VERSION},
    map::{MapDocument, MapGroup, MapNode},
};

/// A network of that many nodes, the viewer included: some neighbours, the others behind them, and a few lost ones.
pub fn sample(nodes: usize) -> MapDocument {
    let others = nodes.saturating_sub(1);
    let tunnels = others.min(if others < 8 { 3 } else { 12 });
    let lost = others / 60;
    let mut groups: Vec<_> = (0..tunnels).map(tunnel).collect();
    for number in tunnels..others.saturating_sub(lost) {
        // Some neighbours lead to more nodes than others.
        let spread = number * number % 7 + number;
        if let Some(group) = groups.get_mut(spread % tunnels.max(1)) {
            group
                .nodes
                .push(node(number, Some(96 + u16::try_from(number).unwrap_or(0))));
        }
    }
    for group in &mut groups {
        let behind = u64::try_from(group.nodes.len()).unwrap_or(0);
        if let Some(tunnel) = &mut group.tunnel {
            tunnel.nodes_served = behind + 1;
        }
    }
    if lost > 0 {
        groups.push(MapGroup {
            title: "no route".to_owned(),
            tunnel: None,
            is_lost: true,
            nodes: (others - lost..others)
                .map(|number| node(number, None))
                .collect(),
        });
    }
    MapDocument {
        version: VERSION,
        at: OffsetDateTime::UNIX_EPOCH,
        network: "fd12:3456:789a::/48".to_owned(),
        viewer: MapNode {
            prefix: "1/16".to_owned(),
            name: Some("gateway".to_owned()),
            metric: Some(0),
        },
        summary: format!("{tunnels} tunnels, {} nodes reachable", others - lost),
        groups,
    }
}

fn node(number: usize, metric: Option<u16>) -> MapNode {
    const KINDS: [&str; 7] = [
        "printer",
        "scanner",
        "camera",
        "rack",
        "laptop",
        "build-server",
        "sensor",
    ];
    let kind = KINDS.get(number % KINDS.len()).unwrap_or(&"node");
    MapNode {
        prefix: format!("{}/16", number + 2),
        // Every ninth node has no name.
        name: (number % 9 != 8).then(|| format!("{kind}-{}", number + 2)),
        metric,
    }
}

fn tunnel(number: usize) -> MapGroup {
    let peer = node(number, None);
    let scale = f64::from(u32::try_from(number * number).unwrap_or(0));
    let slot = if number % 3 == 2 {
        format!("wrnu.{}", number + 2)
    } else {
        format!("wrn{number}")
    };
    let is_draining = number == 4;
    let entry = TunnelEntry {
        slot: slot.clone(),
        peer: peer.prefix,
        peer_name: peer.name,
        role: if slot.starts_with("wrnu") {
            "accepted"
        } else {
            "dialled"
        }
        .to_owned(),
        transport: Some("udp".to_owned()),
        endpoint: None,
        phase: if is_draining { "draining" } else { "up" }.to_owned(),
        drain_reason: is_draining.then(|| "unused".to_owned()),
        age_seconds: Some(4_000.0 * (scale + 1.0)),
        rx_bytes: 1_500_000 * u64::try_from(number + 1).unwrap_or(0),
        tx_bytes: 70_000,
        rx_bytes_per_second: 40.0 * scale * scale,
        tx_bytes_per_second: 90.0 * scale,
        nodes_served: 0,
        routes: 0,
        rtt_seconds: Some(0.003 + scale / 10_000.0),
        loss_ratio: Some(if number == 3 { 0.04 } else { 0.0 }),
        full_size_packets: "carried".to_owned(),
        hole_punched: false,
        verdict: Some("kept: carries its share".to_owned()),
    };
    MapGroup {
        title: slot,
        tunnel: Some(entry),
        is_lost: false,
        nodes: Vec::new(),
    }
}
