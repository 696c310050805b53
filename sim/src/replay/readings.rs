//! Converts recorded documents into the readings that the planner takes.

use super::*;

/// The reason of the tunnel's drain in the recording.
pub(super) fn drain_reason(entry: &TunnelEntry) -> anyhow::Result<CloseReason> {
    let label = entry.drain_reason.as_deref().unwrap_or("none");
    let mut reasons = CloseReason::ALL.iter().copied();
    reasons
        .find(|reason| reason.label() == label)
        .with_context(|| {
            format!(
                "tunnel {} drains for an unknown reason, {label:?}",
                entry.slot
            )
        })
}

/// Bytes of a full frame on a tunnel.
pub(super) const FRAME_BYTES: u64 = 1_400;

/// The time `seconds` ago, rounded to a second, so that an unchanged tunnel does not seem to be a
/// new one.
pub(super) fn before(now: Uptime, seconds: f64) -> anyhow::Result<Uptime> {
    let age = Duration::try_from_secs_f64(seconds).context("no number of seconds ago")?;
    let nanos = now.0.saturating_sub(age) + Duration::from_millis(500);
    Ok(Uptime::from_secs(nanos.as_secs()))
}

pub(super) fn probe(entry: &TunnelEntry, slot: Slot) -> Option<ProbeReading> {
    let rtt = Duration::try_from_secs_f64(entry.rtt_seconds?).ok()?;
    let (jitter, rx_frames, tx_frames) = (Duration::ZERO, 0, 0);
    let lost = crate::num::round_to_u32(entry.loss_ratio.unwrap_or(0.0).clamp(0.0, 1.0) * 100.0);
    // The recording does not say how many probes the share is of: they may be too few to decide
    // anything.
    let recent = ProbeCounts::default();
    Some(ProbeReading {
        slot,
        rtt: Some(rtt),
        jitter,
        sent: 100,
        lost,
        recent,
        rx_frames,
        tx_frames,
        full_size: policies::path_mtu::FullSize::Carried,
    })
}

pub(super) fn table(document: &RoutesDocument) -> anyhow::Result<Option<BabelTable>> {
    if !document.babeld_answers {
        return Ok(None);
    }
    let mut table = BabelTable::default();
    for entry in &document.neighbours {
        table.neighbours.push(Neighbour {
            slot: entry.slot.parse()?,
            peer: entry.peer.parse()?,
            reach: entry.reach,
            rxcost: entry.rxcost,
            txcost: entry.txcost,
            rtt: entry
                .rtt_seconds
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            cost: entry.cost,
        });
    }
    for entry in &document.routes {
        table.routes.push(Route {
            node: entry.node.parse()?,
            slot: entry.slot.parse()?,
            via: entry.via.parse()?,
            installed: entry.installed,
            metric: entry.metric,
            refmetric: entry.refmetric,
        });
    }
    Ok(Some(table))
}

pub(super) fn candidates(document: &PeersDocument, now: Uptime) -> anyhow::Result<Vec<Candidate>> {
    let mut all = Vec::new();
    for entry in &document.peers {
        let moment = |seconds: Option<f64>| seconds.map(|seconds| before(now, seconds)).transpose();
        all.push(Candidate {
            peer: entry.prefix.parse::<Prefix>()?,
            endpoints: entry
                .endpoints
                .iter()
                .map(|text| text.parse())
                .collect::<Result<_, _>>()?,
            on_lan: 0,
            confirmed_at: moment(entry.confirmed_seconds_ago)?,
            failed_at: moment(entry.failed_seconds_ago)?,
            failures: entry.failures,
            transit_cost: entry.transit_cost,
        });
    }
    Ok(all)
}
