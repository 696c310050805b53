//! Transfers of 100 MB through one tunnel: what both ends count, and what their kernels do.

use crate::{
    Lab, Options,
    bulk_transfer::{End, send_datagrams, send_stream},
    ip,
    node::Node,
    progress::{progress, round},
    wait::{pause, wait_until},
};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;
use wire::control::{TUNNELS_PATH, TunnelsDocument};

/// Bytes of payload of one transfer.
const BYTES: u64 = 100_000_000;
/// Time after which both ends show what they counted.
const SETTLING_TIME: Duration = Duration::from_secs(3);
/// A transfer has arrived when fewer frames than this are received within this time.
const MAX_IDLE_FRAMES: i64 = 100;
const ARRIVAL_SPAN: Duration = Duration::from_secs(1);
/// Longest wait until a transfer has arrived.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait until a tunnel is up.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(30);

/// What both ends counted during one transfer.
#[derive(Clone, Debug, Serialize)]
pub struct TransferRecord {
    /// The transport of the tunnel, `udp` or `tcp`.
    tunnel: String,
    /// What was sent through it: a TCP stream, or UDP datagrams as fast as possible.
    payload: &'static str,
    /// The end that sent, `dialled` or `accepted`.
    sender: &'static str,
    /// Bytes by the metric, divided by those of the kernel: sent at the sender, received at the receiver.
    sent_ratio: f64,
    received_ratio: f64,
    /// Frames that the sender's kernel was given for the tunnel, and that the receiver's kernel did not receive from it.
    missing_frames: i64,
    /// Frames and datagrams that both ends' metrics count as dropped.
    counted_drops: i64,
    /// Frames by the metrics minus those by the kernels, both ends.
    frame_difference: i64,
}

/// The counters of one end of the tunnel.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    received: i64,
    sent: i64,
    received_frames: i64,
    sent_frames: i64,
    dropped: i64,
}

impl Counters {
    fn since(self, before: Self) -> Self {
        Self {
            received: self.received - before.received,
            sent: self.sent - before.sent,
            received_frames: self.received_frames - before.received_frames,
            sent_frames: self.sent_frames - before.sent_frames,
            dropped: self.dropped - before.dropped,
        }
    }
}

/// Transfers in both directions through a tunnel by UDP, and through one by TCP.
pub(super) fn measure() -> Result<Vec<TransferRecord>> {
    let mut records = Vec::new();
    for transport in ["udp", "tcp"] {
        let lab = Lab::build_joined(Options {
            nodes: 2,
            tunnels_to_dial: Some(1),
            ..Options::default()
        })?;
        if transport == "tcp" {
            lab.nodes().iter().try_for_each(Node::block_udp)?;
        }
        // Only one node dials, so that there is one tunnel.
        lab.node(1)?.configure("max-accepted", "0")?;
        lab.start_and_converge()?;
        pause(SETTLING_TIME);
        for payload in ["tcp", "udp"] {
            for from in [1, 0] {
                records.push(transfer(&lab, transport, payload, from)?);
            }
        }
    }
    Ok(records)
}

fn transfer(
    lab: &Lab,
    transport: &str,
    payload: &'static str,
    from: usize,
) -> Result<TransferRecord> {
    let (sender, receiver) = (lab.node(from)?, lab.node(1 - from)?);
    let slots = [slot(sender, transport)?, slot(receiver, transport)?];
    let kernel = || {
        Ok::<_, anyhow::Error>([
            kernel_counters(sender, &slots[0])?,
            kernel_counters(receiver, &slots[1])?,
        ])
    };
    let metrics = || {
        Ok::<_, anyhow::Error>([
            shown_counters(sender, &slots[0])?,
            shown_counters(receiver, &slots[1])?,
        ])
    };
    let given_before = frames_given(sender, &slots[0])?;
    let before = (kernel()?, metrics()?);
    let ends: [End<'_>; 2] = [
        (sender.namespace(), sender.identity()?.address),
        (receiver.namespace(), receiver.identity()?.address),
    ];
    match payload {
        "tcp" => send_stream(ends[0], ends[1], BYTES)?,
        _ => send_datagrams(ends[0], ends[1], BYTES)?,
    }
    await_arrival(receiver, &slots[1])?;
    pause(SETTLING_TIME);
    let after = (kernel()?, metrics()?);
    let kernel = [after.0[0].since(before.0[0]), after.0[1].since(before.0[1])];
    let shown = [after.1[0].since(before.1[0]), after.1[1].since(before.1[1])];
    let frames = |counters: [Counters; 2]| counters[0].sent_frames + counters[1].received_frames;
    let given = frames_given(sender, &slots[0])? - given_before;
    let record = TransferRecord {
        tunnel: transport.to_owned(),
        payload,
        sender: if from == 1 { "dialled" } else { "accepted" },
        sent_ratio: ratio(shown[0].sent, kernel[0].sent)?,
        received_ratio: ratio(shown[1].received, kernel[1].received)?,
        missing_frames: given - kernel[1].received_frames,
        counted_drops: shown[0].dropped + shown[1].dropped,
        frame_difference: frames(shown) - frames(kernel),
    };
    progress(format!("{record:?}"));
    Ok(record)
}

fn ratio(shown: i64, kernel: i64) -> Result<f64> {
    ensure!(kernel > 0, "nothing was transferred");
    let [shown, kernel] =
        [shown, kernel].map(|count| f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    Ok(round(shown / kernel, 6))
}

/// The slot of the only tunnel, which uses this transport.
fn slot(node: &Node, transport: &str) -> Result<String> {
    let found = wait_until(TUNNEL_TIMEOUT, || {
        let document: TunnelsDocument = node.control_document(TUNNELS_PATH).ok()?;
        let mut tunnels = document
            .tunnels
            .into_iter()
            .filter(|tunnel| tunnel.phase == "up");
        let tunnel = tunnels.next()?;
        let is_right = tunnel.transport.as_deref() == Some(transport);
        (is_right && tunnels.next().is_none()).then_some(tunnel.slot)
    });
    found.with_context(|| node.describe(&format!("has not one tunnel by {transport}")))
}

/// Waits until no more of the transfer arrives: OpenVPN and its sockets hold a part of it back when the last write returns.
fn await_arrival(receiver: &Node, slot: &str) -> Result<()> {
    let mut last = kernel_counters(receiver, slot)?.received_frames;
    let has_arrived = || {
        pause(ARRIVAL_SPAN);
        let now = kernel_counters(receiver, slot).ok()?.received_frames;
        let arrived = now - std::mem::replace(&mut last, now);
        (arrived < MAX_IDLE_FRAMES).then_some(())
    };
    let arrived = wait_until(ARRIVAL_TIMEOUT, has_arrived);
    arrived.with_context(|| receiver.describe("still receives frames of the transfer"))
}

/// The frames that a kernel was given to send through the only tunnel, those that it dropped included.
///
/// Frames for an accepting slot are counted on the TAP of its server, to which they come after they have been cut into segments.
fn frames_given(node: &Node, slot: &str) -> Result<i64> {
    let tap = slot.split_once('.').map_or(slot, |(tap, _)| tap);
    let count = link_counts(node, tap)?;
    Ok(count("tx/packets")? + count("tx/dropped")?)
}

/// What the kernel counted on a link.
fn kernel_counters(node: &Node, slot: &str) -> Result<Counters> {
    let count = link_counts(node, slot)?;
    Ok(Counters {
        received: count("rx/bytes")?,
        sent: count("tx/bytes")?,
        received_frames: count("rx/packets")?,
        sent_frames: count("tx/packets")?,
        dropped: 0,
    })
}

/// Reads the kernel's counters of a link; returns how to get one, such as `tx/packets`.
fn link_counts(node: &Node, link: &str) -> Result<impl Fn(&str) -> Result<i64>> {
    let text = ip::output(node.namespace(), &["-s", "-json", "link", "show", link])?;
    let links: Value = serde_json::from_str(&text)?;
    Ok(move |path: &str| {
        let value = links
            .pointer(&format!("/0/stats64/{path}"))
            .and_then(Value::as_i64);
        value.with_context(|| format!("no {path} in {text}"))
    })
}

/// What the node's metrics show of a tunnel; all drops of the node count, since it has no other tunnel.
fn shown_counters(node: &Node, slot: &str) -> Result<Counters> {
    let text = node.scrape()?;
    let sum = |name: &str, label: &str| -> Result<i64> {
        let samples = text
            .lines()
            .filter(|line| line.starts_with(name) && line.contains(label));
        let values = samples.filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok());
        Ok(values.sum())
    };
    let tunnel = format!("tunnel=\"{slot}\"");
    Ok(Counters {
        received: sum("warren_tunnel_receive_bytes_total{", &tunnel)?,
        sent: sum("warren_tunnel_transmit_bytes_total{", &tunnel)?,
        received_frames: sum("warren_tunnel_receive_packets_total{", &tunnel)?,
        sent_frames: sum("warren_tunnel_transmit_packets_total{", &tunnel)?,
        dropped: sum("warren_traffic_dropped_total{", "")?
            + sum("warren_server_transmit_dropped_total{", "")?
            + sum("warren_openvpn_receive_dropped_total{", "")?,
    })
}
