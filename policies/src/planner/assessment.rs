//! Assesses each tunnel: how much it is used compared with the others, and what spares it.
//!
//! `docs/POLICY.md` has the formulas, with their units.

use super::{
    loss_ratio::LossRatio,
    per_mille::PerMille,
    snapshot::Snapshot,
    spare_reason::{SpareConditions, SpareReason},
};
use crate::{
    gain,
    names::{Prefix, Role, Slot},
    observation::LinkReading,
    units::BytesPerSec,
    usage::Usage,
};
use std::{collections::BTreeMap, fmt, time::Duration};

/// Most that one of the two terms of a share counts, so that a single flood does not make up for serving nobody.
const MAX_TERM: u64 = 4_000;

/// Below this rate a tunnel's payload is noise, and decides nothing.
pub(super) const NOISE: BytesPerSec = BytesPerSec(64);

/// Below this share a tunnel is significantly unused, if payload flows.
const UNUSED: PerMille = PerMille(500);

/// The same if no payload flows, and the number of nodes served decides alone.
const UNUSED_WITHOUT_TRAFFIC: PerMille = PerMille(250);

/// The assessment of one tunnel.
#[derive(Clone, Debug)]
pub(super) struct Assessment {
    pub(super) slot: Slot,
    pub(super) peer: Prefix,
    pub(super) age: Duration,
    pub(super) spared: Option<SpareReason>,
    /// Payload since the last refresh, both directions, in bytes.
    pub(super) carried_bytes: u64,
    pub(super) rate: BytesPerSec,
    /// Mean rate of the other dialled tunnels.
    pub(super) others_rate: BytesPerSec,
    /// Number of nodes whose installed route leaves by the tunnel.
    pub(super) nodes: usize,
    /// Mean number of nodes of the other dialled tunnels, in thousandths.
    pub(super) others_nodes_milli: u64,
    /// Use compared with the others; `None` if there are no others.
    pub(super) share: Option<PerMille>,
    /// Below this share the tunnel is significantly unused.
    pub(super) threshold: PerMille,
    /// The metric by which our routes would grow without it.
    pub(super) regret: u64,
    /// The metric that closing costs both ends, weighted with the share of the traffic and discounted by loss.
    pub(super) loss: u64,
    /// The metric of the routes that would move, summed, and discounted by loss.
    pub(super) moved: u64,
    /// The loss ratio of its probes; `None` if it is not known.
    pub(super) loss_ratio: Option<LossRatio>,
    /// Refreshes since the last closing by plan.
    pub(super) refreshes_since_close: u32,
    /// It is left to chance, so that no gain elsewhere takes its place.
    pub(super) random: bool,
    /// Number of tunnels that the peer accepted, if it reports that.
    pub(super) accepted: Option<u16>,
    /// Few nodes dialled the peer, so that no gain elsewhere takes the tunnel's place.
    pub(super) needed: bool,
    /// The peer accepts no more tunnels.
    pub(super) crowded: bool,
}

impl Assessment {
    /// Returns whether it is significantly less used than the others.
    pub(super) fn is_unused(&self) -> bool {
        self.share.is_some_and(|share| share < self.threshold)
    }

    /// Returns whether it loses more than is tolerated.
    pub(super) fn is_lossy(&self) -> bool {
        self.loss_ratio.is_some_and(LossRatio::exceeds_limit)
    }

    /// The least gain for which it is replaced.
    pub(super) fn required_gain(&self) -> u64 {
        gain::required_gain(
            self.loss,
            self.moved,
            self.refreshes_since_close,
            self.crowded,
        )
    }

    /// The order in which tunnels are closed as unused: the least is closed first.
    pub(super) fn rank(&self) -> (Option<PerMille>, BytesPerSec, usize, Slot) {
        (self.share, self.rate, self.nodes, self.slot)
    }
}

impl fmt::Display for Assessment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, tenths) = (
            self.others_nodes_milli / 1000,
            self.others_nodes_milli % 1000 / 100,
        );
        write!(
            f,
            "carried={} B rate={} others_rate={} ",
            self.carried_bytes, self.rate, self.others_rate
        )?;
        write!(f, "nodes={} others_nodes={whole}.{tenths} ", self.nodes)?;
        match self.share {
            Some(share) => write!(f, "share={share} threshold={} ", self.threshold)?,
            None => f.write_str("share=none ")?,
        }
        write!(
            f,
            "regret={} closing_cost={} moved={} ",
            self.regret, self.loss, self.moved
        )?;
        match self.loss_ratio {
            Some(ratio) => write!(f, "probe_loss={} ", ratio.per_mille())?,
            None => f.write_str("probe_loss=unknown ")?,
        }
        match self.accepted {
            Some(accepted) => write!(f, "accepted={accepted} ")?,
            None => f.write_str("accepted=unknown ")?,
        }
        write!(
            f,
            "crowded={} random={} age={} s",
            self.crowded,
            self.random,
            self.age.as_secs()
        )
    }
}

/// Assesses all tunnels, in the order of their slots.
pub(super) fn assess(
    snapshot: &Snapshot<'_>,
    usage: &BTreeMap<Slot, &Usage>,
    conditions: &SpareConditions<'_>,
) -> Vec<Assessment> {
    let mut assessments: Vec<_> = snapshot
        .tunnels
        .iter()
        .map(|(slot, link)| measure(snapshot, usage.get(slot).copied(), link))
        .collect();
    let compared: Vec<_> = assessments
        .iter()
        .filter(|tunnel| tunnel.slot.role() == Role::Dialled && tunnel.spared.is_none())
        .map(|tunnel| (tunnel.slot, tunnel.rate.0, tunnel.nodes))
        .collect();
    for assessment in &mut assessments {
        let slot = assessment.slot;
        let others = compared.iter().filter(|(other, ..)| *other != slot);
        compare(assessment, others.map(|(_, rate, nodes)| (*rate, *nodes)));
        assessment.random = conditions.random.contains(&slot);
        assessment.needed = assessment
            .accepted
            .is_some_and(|accepted| accepted < conditions.parameters.tunnels_to_dial);
        assessment.refreshes_since_close = conditions.refreshes_since_close;
        assessment.spared = assessment.spared.or_else(|| {
            conditions.spare(snapshot, (assessment.slot, assessment.peer), assessment.age)
        });
    }
    assessments
}

fn measure(snapshot: &Snapshot<'_>, usage: Option<&Usage>, link: &LinkReading) -> Assessment {
    let tunnel = &link.tunnel;
    let (traffic, span) = usage
        .map(|usage| usage.carried(snapshot.at))
        .unwrap_or_default();
    let rate = u128::from(traffic.total()) * 1000 / span.as_millis().max(1);
    let loss_ratio = snapshot.loss_ratios.get(&tunnel.slot).copied();
    let discount = |worth: u64| loss_ratio.map_or(worth, |ratio| ratio.discount(worth));
    let service = snapshot.routes.service(tunnel.slot);
    let peer_regret = snapshot.measurements.peer_regret(tunnel.peer);
    Assessment {
        slot: tunnel.slot,
        peer: tunnel.peer,
        age: tunnel
            .up_since
            .map(|since| snapshot.at.since(since))
            .unwrap_or_default(),
        spared: SpareReason::of_phase(tunnel.phase),
        carried_bytes: traffic.total(),
        rate: BytesPerSec(u64::try_from(rate).unwrap_or(u64::MAX)),
        others_rate: BytesPerSec(0),
        nodes: service.nodes,
        others_nodes_milli: 0,
        share: None,
        threshold: UNUSED,
        regret: service.regret,
        loss: discount(gain::closing_loss(service.regret, peer_regret)),
        moved: discount(service.moved),
        loss_ratio,
        refreshes_since_close: 0,
        random: false,
        accepted: snapshot.measurements.accepted(tunnel.peer),
        needed: false,
        crowded: snapshot.measurements.is_full(tunnel.peer),
    }
}

/// Computes the share of a tunnel from (rate, nodes) of the others.
///
/// The share is the mean of two terms: rate / others' mean rate, and nodes / others' mean nodes, each limited. The
/// nodes count alone if neither this tunnel nor the others carry payload. The nodes of a lossy tunnel count no more
/// than its traffic, so that they alone do not spare it.
fn compare(assessment: &mut Assessment, others: impl Iterator<Item = (u64, usize)>) {
    let (mut count, mut rates, mut nodes) = (0u64, 0u64, 0u64);
    for (rate, served) in others {
        count = count.saturating_add(1);
        rates = rates.saturating_add(rate);
        nodes = nodes.saturating_add(u64::try_from(served).unwrap_or(u64::MAX));
    }
    let (Some(rate), Some(nodes_milli)) = (
        rates.checked_div(count),
        nodes.saturating_mul(1000).checked_div(count),
    ) else {
        return;
    };
    assessment.others_rate = BytesPerSec(rate);
    assessment.others_nodes_milli = nodes_milli;
    let served_milli = u64::try_from(assessment.nodes)
        .unwrap_or(u64::MAX)
        .saturating_mul(1000);
    let by_nodes = term(served_milli, nodes_milli);
    if rate < NOISE.0 && assessment.rate < NOISE {
        let loss_ratio = assessment.loss_ratio;
        let share = loss_ratio.map_or(by_nodes, |ratio| ratio.discount(by_nodes));
        assessment.share = Some(PerMille(share));
        assessment.threshold = UNUSED_WITHOUT_TRAFFIC;
    } else {
        let by_rate = term(assessment.rate.0, rate);
        let by_nodes = if assessment.is_lossy() {
            by_nodes.min(by_rate)
        } else {
            by_nodes
        };
        assessment.share = Some(PerMille(by_rate.saturating_add(by_nodes) / 2));
        // One half of the weight is the same for all nodes, the other follows the traffic.
        assessment.loss = assessment
            .loss
            .saturating_mul(by_rate.saturating_add(1_000))
            / 2_000;
    }
}

/// `value` in thousandths of `mean`; 1000 if both are zero.
fn term(value: u64, mean: u64) -> u64 {
    if value == mean {
        return 1_000;
    }
    let thousandths = value.saturating_mul(1000).checked_div(mean);
    thousandths.map_or(MAX_TERM, |term| term.min(MAX_TERM))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::{ProbeCounts, ProbeReading};

    /// Checks the share of a tunnel that serves three nodes and has this rate, after `lost` of a hundred probes were
    /// lost. Each of the two others serves one node and has that other rate.
    #[track_caller]
    fn check(lost: u32, rate: u64, others_rate: u64, share: u64) {
        let slot = Slot::Dialling(0);
        let probe = ProbeReading {
            slot,
            rtt: Some(Duration::from_millis(10)),
            jitter: Duration::ZERO,
            sent: 0,
            lost: 0,
            recent: ProbeCounts { sent: 100, lost },
            rx_frames: 0,
            tx_frames: 0,
            full_size: crate::path_mtu::FullSize::Carried,
        };
        let mut assessment = Assessment {
            slot,
            peer: Prefix::new(1, 16).unwrap(),
            age: Duration::ZERO,
            spared: None,
            carried_bytes: 0,
            rate: BytesPerSec(rate),
            others_rate: BytesPerSec(0),
            nodes: 3,
            others_nodes_milli: 0,
            share: None,
            threshold: UNUSED,
            regret: 0,
            loss: 0,
            moved: 0,
            loss_ratio: LossRatio::new(&probe),
            refreshes_since_close: 0,
            random: false,
            accepted: None,
            needed: false,
            crowded: false,
        };
        let others = [(others_rate, 1), (others_rate, 1)];
        compare(&mut assessment, others.into_iter());
        assert_eq!(assessment.share, Some(PerMille(share)));
    }

    #[test]
    fn the_nodes_served_spare_a_tunnel_unless_it_loses_much() {
        check(0, 100, 1_000, 1_550);
        check(5, 100, 1_000, 1_550);
        check(6, 100, 1_000, 100);
        check(6, 1_000, 1_000, 1_000);
        check(50, 0, 0, 750);
    }
}
