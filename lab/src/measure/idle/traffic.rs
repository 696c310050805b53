//! Sums up the frames of idle nodes.

use crate::{
    frame_counter::{FrameCount, NodeFrames, TunnelKind, UnderlayKind},
    progress::{progress, round},
};
use serde::Serialize;
use std::collections::BTreeMap;

/// Bytes per second of idle nodes, both directions together, with Ethernet headers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct IdleTraffic {
    /// On the underlay, of each node, by number.
    pub underlay_bytes_per_second: Vec<f64>,
    /// The worst node's figure of those.
    pub underlay_bytes_per_second_max: f64,
    /// The median of those.
    pub underlay_bytes_per_second_median: f64,
    /// The underlay by kind of frame: the mean over all nodes.
    pub underlay_by_kind: BTreeMap<UnderlayKind, f64>,
    /// The tunnels by kind of frame, as on the slots: the mean over all nodes.
    pub tunnels_by_kind: BTreeMap<TunnelKind, f64>,
    /// The tunnels by kind of frame, as on the underlay, where OpenVPN and IP have added their headers.
    pub tunnels_by_kind_encrypted: BTreeMap<TunnelKind, f64>,
    /// Frames of the tunnels a second by kind: the mean over all nodes.
    pub tunnel_frames_by_kind: BTreeMap<TunnelKind, f64>,
    /// Bytes that OpenVPN and the underlay add to one frame of a tunnel.
    pub overhead_bytes_per_frame: f64,
    /// Bytes per second of one tunnel, both directions, on the underlay: the mean over all tunnels.
    pub underlay_bytes_per_tunnel_second: f64,
}

/// Frames and bytes of all nodes by kind.
type Total<K> = BTreeMap<K, FrameCount>;

fn add<K: Copy + Ord>(total: &mut Total<K>, part: &Total<K>) {
    for (kind, count) in part {
        let sum = total.entry(*kind).or_default();
        *sum = sum.plus(*count);
    }
}

/// A count as a number that can be divided; exact below 2^32.
fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn bytes_of<K>(counts: &Total<K>) -> u64 {
    counts.values().map(|count| count.bytes).sum()
}

/// The bytes of all packets of OpenVPN.
fn openvpn_bytes(counts: &Total<UnderlayKind>) -> u64 {
    use UnderlayKind::{OpenvpnData, OpenvpnPing, OpenvpnReset, OpenvpnTls};
    [OpenvpnData, OpenvpnPing, OpenvpnReset, OpenvpnTls]
        .iter()
        .filter_map(|kind| counts.get(kind))
        .map(|count| count.bytes)
        .sum()
}

impl IdleTraffic {
    /// Sums up what all nodes sent and received in that many seconds.
    pub(super) fn new(nodes: &[NodeFrames], seconds: u64) -> Self {
        let (mut underlay, mut sent, mut tunnels) = (Total::new(), Total::new(), Total::new());
        let mut slots = 0;
        for (index, node) in nodes.iter().enumerate() {
            add(&mut underlay, &node.underlay);
            add(&mut sent, &node.underlay_sent);
            node.tunnels
                .values()
                .for_each(|slot| add(&mut tunnels, slot));
            slots += u64::try_from(node.tunnels.len()).unwrap_or_default();
            report(index, node, seconds);
        }
        let span = number(seconds);
        let per_node = span * number(u64::try_from(nodes.len()).unwrap_or_default()).max(1.0);
        let overhead = overhead_per_frame(&underlay, &tunnels);
        let mut each: Vec<f64> = nodes
            .iter()
            .map(|node| round(number(bytes_of(&node.underlay)) / span, 0))
            .collect();
        let underlay_bytes_per_second = each.clone();
        each.sort_unstable_by(f64::total_cmp);
        let tunnels_by = |value: &dyn Fn(&FrameCount) -> f64| {
            let value = |(kind, count): (&TunnelKind, &FrameCount)| {
                (*kind, round(value(count) / per_node, 2))
            };
            tunnels.iter().map(value).collect()
        };
        Self {
            underlay_bytes_per_second,
            underlay_bytes_per_second_max: each.last().copied().unwrap_or_default(),
            underlay_bytes_per_second_median: each.get(each.len() / 2).copied().unwrap_or_default(),
            underlay_by_kind: underlay
                .iter()
                .map(|(kind, count)| (*kind, round(number(count.bytes) / per_node, 2)))
                .collect(),
            tunnels_by_kind: tunnels_by(&|count| number(count.bytes)),
            tunnels_by_kind_encrypted: tunnels_by(&|count| {
                number(count.bytes) + overhead * number(count.frames)
            }),
            tunnel_frames_by_kind: tunnels_by(&|count| number(count.frames)),
            overhead_bytes_per_frame: round(overhead, 1),
            // Each tunnel has a slot at both ends.
            underlay_bytes_per_tunnel_second: round(
                number(openvpn_bytes(&sent)) / span / (number(slots) / 2.0).max(1.0),
                1,
            ),
        }
    }
}

/// What OpenVPN and the underlay add to one frame of a tunnel, as the counts at both places show.
fn overhead_per_frame(underlay: &Total<UnderlayKind>, tunnels: &Total<TunnelKind>) -> f64 {
    let encrypted = underlay.get(&UnderlayKind::OpenvpnData);
    let encrypted = encrypted.map_or(0, |count| count.bytes);
    let frames: u64 = tunnels.values().map(|count| count.frames).sum();
    number(encrypted.saturating_sub(bytes_of(tunnels))) / number(frames).max(1.0)
}

fn report(index: usize, node: &NodeFrames, seconds: u64) {
    let span = number(seconds);
    progress(format!(
        "node {index}: {:.0} bytes/s on the underlay, of which OpenVPN {:.0}",
        number(bytes_of(&node.underlay)) / span,
        number(openvpn_bytes(&node.underlay)) / span
    ));
    for (slot, counts) in &node.tunnels {
        let kinds = counts.iter().map(|(kind, count)| {
            format!(
                "{kind:?} {:.1} ({:.2}/s)",
                number(count.bytes) / span,
                number(count.frames) / span
            )
        });
        progress(format!(
            "  {slot}: {:.0} bytes/s: {}",
            number(bytes_of(counts)) / span,
            kinds.collect::<Vec<_>>().join(", ")
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(frames: u64, bytes: u64) -> FrameCount {
        FrameCount { frames, bytes }
    }

    /// A node that sent half of what it received on one tunnel.
    fn node(hellos: u64) -> NodeFrames {
        NodeFrames {
            underlay: BTreeMap::from([
                (UnderlayKind::OpenvpnData, count(hellos, hellos * 146)),
                (UnderlayKind::Registry, count(1, 100)),
            ]),
            underlay_sent: BTreeMap::from([(
                UnderlayKind::OpenvpnData,
                count(hellos / 2, hellos * 73),
            )]),
            tunnels: BTreeMap::from([(
                "wrn0".to_owned(),
                BTreeMap::from([(TunnelKind::BabelHello, count(hellos, hellos * 80))]),
            )]),
        }
    }

    #[test]
    fn the_overhead_of_a_frame_is_the_difference_of_underlay_and_tunnel() {
        let traffic = IdleTraffic::new(&[node(20), node(40)], 10);
        assert_eq!(traffic.overhead_bytes_per_frame, 66.0);
        assert_eq!(traffic.underlay_bytes_per_second, [302.0, 594.0]);
        assert_eq!(traffic.underlay_bytes_per_second_max, 594.0);
        let hello = TunnelKind::BabelHello;
        assert_eq!(traffic.tunnels_by_kind[&hello], 240.0);
        assert_eq!(traffic.tunnels_by_kind_encrypted[&hello], 438.0);
        assert_eq!(traffic.tunnel_frames_by_kind[&hello], 3.0);
        assert_eq!(traffic.underlay_by_kind[&UnderlayKind::Registry], 10.0);
    }

    #[test]
    fn a_tunnel_costs_what_both_its_ends_send() {
        let traffic = IdleTraffic::new(&[node(20), node(20)], 10);
        assert_eq!(traffic.underlay_bytes_per_tunnel_second, 292.0);
    }
}
