//! Judges each tunnel: how much it is used compared with the others, and what spares it.
//!
//! Formulas, with their units, are in `docs/POLICY.md`.

use super::{losses::Losses, picture::Picture};
use crate::{
    gain,
    names::{Prefix, Role, Slot},
    observation::{LinkReading, Phase},
    parameters::Parameters,
    units::{BytesPerSec, Uptime},
    usage::Usage,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

/// A thousandth of the others' mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PerMille(pub(super) u64);

impl fmt::Display for PerMille {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0 / 10)
    }
}

/// One term counts at most this much: a single flood must not make up for serving nobody.
const TERM_CAP: u64 = 4_000;

/// Below this rate a tunnel's payload is noise and decides nothing.
pub(super) const NOISE: BytesPerSec = BytesPerSec(64);

/// A tunnel below this share is significantly unused, where payload flows.
pub(super) const UNUSED: PerMille = PerMille(500);

/// The same where no payload flows and the number of nodes served decides alone.
pub(super) const UNUSED_WITHOUT_TRAFFIC: PerMille = PerMille(250);

/// Closings by plan on one slot within twelve refreshes: more would be flapping.
pub(super) const MOST_CLOSINGS: usize = 2;

/// Why a tunnel is not closed, whatever its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spared {
    /// The peer dialled it; it decides.
    Accepted,
    /// It connects, drains or closes.
    NotUp,
    /// The operator named the peer.
    Pinned,
    /// It has no history.
    Young(Duration),
    /// That node would be out of reach.
    OnlyRoute(Prefix),
    /// A closing was given up a short while ago.
    GivenUp,
    /// Tunnels on this slot were closed often enough within twelve refreshes.
    Restless,
    /// babeld says nothing.
    Blind,
}

impl fmt::Display for Spared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("the peer dialled it and decides"),
            Self::NotUp => f.write_str("not up"),
            Self::Pinned => f.write_str("pinned"),
            Self::Young(age) => write!(f, "too young to have a history, {} s", age.as_secs()),
            Self::OnlyRoute(node) => write!(f, "the only way to {node}"),
            Self::GivenUp => f.write_str("its closing was given up a short while ago"),
            Self::Restless => {
                write!(
                    f,
                    "the slot's last {MOST_CLOSINGS} tunnels were closed within twelve refreshes"
                )
            }
            Self::Blind => f.write_str("babeld says nothing"),
        }
    }
}

/// What is known of one tunnel's use.
#[derive(Clone, Debug)]
pub(super) struct Assessment {
    pub(super) slot: Slot,
    pub(super) peer: Prefix,
    pub(super) age: Duration,
    pub(super) spared: Option<Spared>,
    /// Payload since the last look, both directions.
    pub(super) carried_bytes: u64,
    pub(super) rate: BytesPerSec,
    /// Mean of the other dialled tunnels.
    pub(super) others_rate: BytesPerSec,
    pub(super) nodes: usize,
    /// Mean of the other dialled tunnels, in thousandths of a node.
    pub(super) others_nodes_milli: u64,
    /// Use compared with the others; `None` where there are no others.
    pub(super) share: Option<PerMille>,
    /// Below this share it is significantly unused.
    pub(super) threshold: PerMille,
    /// What our ways would grow by without it, in metric.
    pub(super) regret: u64,
    /// What closing would cost both ends, weighed with the share of the traffic and of what arrives.
    pub(super) loss: u64,
    /// Metric of the ways that would move, summed, weighed with the share of what arrives.
    pub(super) moved: u64,
    /// How much of its probes is lost; `None` where that is not known.
    pub(super) losses: Option<Losses>,
    /// Refreshes since the last closing by plan.
    pub(super) rest: u32,
    /// Left to chance: no gain elsewhere takes its place.
    pub(super) random: bool,
    /// How many tunnels the peer accepted, where it says.
    pub(super) accepted: Option<u16>,
    /// Few dialled the peer: no gain elsewhere takes its place.
    pub(super) needed: bool,
    /// The peer has no room for others.
    pub(super) crowded: bool,
}

impl Assessment {
    /// Whether it is significantly less used than the others.
    pub(super) fn unused(&self) -> bool {
        self.share.is_some_and(|share| share < self.threshold)
    }

    /// Whether it loses more than a tunnel may.
    pub(super) fn lossy(&self) -> bool {
        self.losses.is_some_and(Losses::unbearable)
    }

    /// The least gain that is worth closing it.
    pub(super) fn worth(&self) -> u64 {
        gain::required_gain(self.loss, self.moved, self.rest, self.crowded)
    }

    /// The least comes first to be closed.
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
            "carried={} B rate={} others={} ",
            self.carried_bytes, self.rate, self.others_rate
        )?;
        write!(f, "nodes={} others={whole}.{tenths} ", self.nodes)?;
        match self.share {
            Some(share) => write!(f, "share={share} threshold={} ", self.threshold)?,
            None => f.write_str("share=none ")?,
        }
        write!(
            f,
            "regret={} loss={} moved={} ",
            self.regret, self.loss, self.moved
        )?;
        match self.losses {
            Some(losses) => write!(f, "lost={} ", losses.share())?,
            None => f.write_str("lost=unknown ")?,
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

/// What spares tunnels, apart from their use.
pub(super) struct Shields<'a> {
    pub(super) parameters: &'a Parameters,
    pub(super) pinned: &'a BTreeSet<Prefix>,
    /// Slots whose closing was given up a short while ago.
    pub(super) given_up: &'a BTreeMap<Slot, Uptime>,
    /// When tunnels on a slot were closed by plan within twelve refreshes.
    pub(super) closings: &'a BTreeMap<Slot, Vec<Uptime>>,
    /// Slots of tunnels that are left to chance.
    pub(super) random: &'a BTreeSet<Slot>,
    /// Refreshes since the last closing by plan.
    pub(super) rest: u32,
}

/// Judges all tunnels, in order of their slots.
pub(super) fn assess(
    picture: &Picture<'_>,
    usage: &BTreeMap<Slot, &Usage>,
    shields: &Shields<'_>,
) -> Vec<Assessment> {
    let mut all: Vec<_> = picture
        .tunnels
        .iter()
        .map(|(slot, link)| measure(picture, usage.get(slot).copied(), link))
        .collect();
    let compared: Vec<_> = all
        .iter()
        .filter(|one| one.slot.role() == Role::Dialled && one.spared.is_none())
        .map(|one| (one.slot, one.rate.0, one.nodes))
        .collect();
    for one in &mut all {
        let slot = one.slot;
        compare(
            one,
            compared
                .iter()
                .filter(|(other, ..)| *other != slot)
                .map(|(_, rate, n)| (*rate, *n)),
        );
        one.random = shields.random.contains(&slot);
        one.needed = one
            .accepted
            .is_some_and(|accepted| accepted < shields.parameters.tunnels_to_dial);
        one.rest = shields.rest;
        one.spared = one.spared.or_else(|| spared(picture, one, shields));
    }
    all
}

fn measure(picture: &Picture<'_>, usage: Option<&Usage>, link: &LinkReading) -> Assessment {
    let tunnel = &link.tunnel;
    let (traffic, span) = usage
        .map(|usage| usage.carried(picture.at))
        .unwrap_or_default();
    let rate = u128::from(traffic.total()) * 1000 / span.as_millis().max(1);
    let losses = picture.losses.get(&tunnel.slot).copied();
    let weigh = |worth: u64| losses.map_or(worth, |losses| losses.weigh(worth));
    let service = picture.ways.service(tunnel.slot);
    Assessment {
        slot: tunnel.slot,
        peer: tunnel.peer,
        age: tunnel
            .up_since
            .map(|since| picture.at.since(since))
            .unwrap_or_default(),
        spared: (tunnel.phase != Phase::Up).then_some(Spared::NotUp),
        carried_bytes: traffic.total(),
        rate: BytesPerSec(u64::try_from(rate).unwrap_or(u64::MAX)),
        others_rate: BytesPerSec(0),
        nodes: picture.nodes_served(tunnel.slot),
        others_nodes_milli: 0,
        share: None,
        threshold: UNUSED,
        regret: service.regret,
        loss: weigh(gain::closing_loss(
            service.regret,
            picture.measurements.peer_regret(tunnel.peer),
        )),
        moved: weigh(service.moved),
        losses,
        rest: 0,
        random: false,
        accepted: picture.measurements.accepted(tunnel.peer),
        needed: false,
        crowded: picture.measurements.is_full(tunnel.peer),
    }
}

/// Share = mean of (rate / others' mean rate) and (nodes / others' mean nodes), each term capped; the
/// nodes alone where neither this tunnel nor the others carry payload. The nodes of a lossy tunnel count no
/// more than its traffic, so that they alone do not spare it.
fn compare(one: &mut Assessment, others: impl Iterator<Item = (u64, usize)>) {
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
    one.others_rate = BytesPerSec(rate);
    one.others_nodes_milli = nodes_milli;
    let served_milli = u64::try_from(one.nodes)
        .unwrap_or(u64::MAX)
        .saturating_mul(1000);
    let by_nodes = term(served_milli, nodes_milli);
    if rate < NOISE.0 && one.rate < NOISE {
        one.share = Some(PerMille(
            one.losses.map_or(by_nodes, |losses| losses.weigh(by_nodes)),
        ));
        one.threshold = UNUSED_WITHOUT_TRAFFIC;
    } else {
        let by_rate = term(one.rate.0, rate);
        let by_nodes = if one.lossy() {
            by_nodes.min(by_rate)
        } else {
            by_nodes
        };
        one.share = Some(PerMille(by_rate.saturating_add(by_nodes) / 2));
        // Half of the weight is each node's alike, half follows the traffic.
        one.loss = one.loss.saturating_mul(by_rate.saturating_add(1_000)) / 2_000;
    }
}

/// `own` in thousandths of `mean`; fair where both are zero.
fn term(own: u64, mean: u64) -> u64 {
    if own == mean {
        return 1_000;
    }
    own.saturating_mul(1000)
        .checked_div(mean)
        .map_or(TERM_CAP, |share| share.min(TERM_CAP))
}

fn spared(picture: &Picture<'_>, one: &Assessment, shields: &Shields<'_>) -> Option<Spared> {
    if one.slot.role() == Role::Accepted {
        Some(Spared::Accepted)
    } else if shields.pinned.contains(&one.peer) {
        Some(Spared::Pinned)
    } else if !picture.told {
        Some(Spared::Blind)
    } else if let Some(node) = picture.only_route(one.slot) {
        Some(Spared::OnlyRoute(node))
    } else if one.age < shields.parameters.min_age {
        Some(Spared::Young(one.age))
    } else if shields
        .given_up
        .get(&one.slot)
        .is_some_and(|until| *until > picture.at)
    {
        Some(Spared::GivenUp)
    } else if shields
        .closings
        .get(&one.slot)
        .is_some_and(|moments| moments.len() >= MOST_CLOSINGS)
    {
        Some(Spared::Restless)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::{ProbeCounts, ProbeReading};

    /// The share of a tunnel that serves three nodes and carries that much, where the others serve one each
    /// and carry that much, after so many of a hundred probes were lost.
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
        };
        let mut one = Assessment {
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
            losses: Losses::of(&probe),
            rest: 0,
            random: false,
            accepted: None,
            needed: false,
            crowded: false,
        };
        compare(&mut one, [(others_rate, 1), (others_rate, 1)].into_iter());
        assert_eq!(one.share, Some(PerMille(share)));
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
