//! Decides what spares a tunnel from being closed, whatever its use.

use super::snapshot::Snapshot;
use crate::{
    names::{Prefix, Role, Slot},
    observation::Phase,
    orders::CloseReason,
    parameters::Parameters,
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

/// Most closings by plan on one slot within twelve refreshes; more would be flapping.
pub(super) const MAX_CLOSINGS: usize = 2;

/// The reason for which a tunnel is not closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpareReason {
    /// The peer dialled the tunnel, so the peer decides.
    Accepted,
    /// The tunnel connects or closes.
    NotUp,
    /// The tunnel drains already, for that reason.
    Draining(CloseReason),
    /// The configuration names the peer.
    Pinned,
    /// An operator wants the tunnel to be kept.
    PinnedByOperator,
    /// The tunnel has been up for this time only, and so has no history.
    Young(Duration),
    /// That node would be out of reach without the tunnel.
    OnlyRoute(Prefix),
    /// A closing of the tunnel was given up a short while ago.
    GivenUp,
    /// [`MAX_CLOSINGS`] tunnels on this slot were closed within twelve refreshes.
    Restless,
    /// It is one of the few tunnels within a LAN of this host.
    OnLan,
    /// babeld does not answer, so that no route is known.
    NoTable,
}

impl SpareReason {
    /// The reason that the phase alone gives.
    pub(super) fn of_phase(phase: Phase) -> Option<Self> {
        match phase {
            Phase::Up => None,
            Phase::Draining { reason } => Some(Self::Draining(reason)),
            Phase::Connecting | Phase::Closing => Some(Self::NotUp),
        }
    }
}

impl fmt::Display for SpareReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("the peer dialled it and decides"),
            Self::NotUp => f.write_str("it is not up"),
            Self::Draining(reason) => write!(f, "it drains until it can be closed: {reason}"),
            Self::Pinned => f.write_str("the configuration pins the peer"),
            Self::PinnedByOperator => f.write_str("an operator pinned the peer"),
            Self::Young(age) => {
                write!(f, "it is too young to have a history, {} s", age.as_secs())
            }
            Self::OnlyRoute(node) => write!(f, "it is the only route to {node}"),
            Self::GivenUp => f.write_str("its closing was given up a short while ago"),
            Self::Restless => write!(
                f,
                "the last {MAX_CLOSINGS} tunnels on its slot were closed within twelve refreshes"
            ),
            Self::OnLan => f.write_str("it keeps the nodes of this LAN connected"),
            Self::NoTable => f.write_str("babeld does not answer"),
        }
    }
}

/// The conditions that spare tunnels, apart from their use.
pub(super) struct SpareConditions<'a> {
    pub(super) parameters: &'a Parameters,
    pub(super) pinned: &'a BTreeSet<Prefix>,
    /// Peers whose tunnels an operator wants to be kept.
    pub(super) pins: &'a BTreeSet<Prefix>,
    /// Tunnels whose closing was given up a short while ago, and until when they are spared.
    pub(super) given_up: &'a BTreeMap<(Slot, Prefix), Uptime>,
    /// When tunnels on a slot were closed by plan within twelve refreshes.
    pub(super) closings: &'a BTreeMap<Slot, Vec<Uptime>>,
    /// Slots of tunnels that are left to chance.
    pub(super) random: &'a BTreeSet<Slot>,
    /// Slots of tunnels within LANs that are needed.
    pub(super) on_lan: &'a BTreeSet<Slot>,
    /// Refreshes since the last closing by plan.
    pub(super) refreshes_since_close: u32,
}

impl SpareConditions<'_> {
    /// The reason to spare a tunnel that has been up for `age`.
    pub(super) fn spare(
        &self,
        snapshot: &Snapshot<'_>,
        (slot, peer): (Slot, Prefix),
        age: Duration,
    ) -> Option<SpareReason> {
        let given_up = self.given_up.get(&(slot, peer));
        let closings = self.closings.get(&slot);
        if slot.role() == Role::Accepted {
            Some(SpareReason::Accepted)
        } else if self.pinned.contains(&peer) {
            Some(SpareReason::Pinned)
        } else if self.pins.contains(&peer) {
            Some(SpareReason::PinnedByOperator)
        } else if !snapshot.is_table_known {
            Some(SpareReason::NoTable)
        } else if let Some(node) = snapshot.only_route(slot) {
            Some(SpareReason::OnlyRoute(node))
        } else if self.on_lan.contains(&slot) {
            Some(SpareReason::OnLan)
        } else if age < self.parameters.min_age {
            Some(SpareReason::Young(age))
        } else if given_up.is_some_and(|until| *until > snapshot.at) {
            Some(SpareReason::GivenUp)
        } else if closings.is_some_and(|moments| moments.len() >= MAX_CLOSINGS) {
            Some(SpareReason::Restless)
        } else {
            None
        }
    }
}
