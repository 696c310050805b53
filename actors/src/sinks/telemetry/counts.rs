//! The counters of events. Every possible label is present from the start, at 0.

use policies::{
    names::Role,
    orders::{AbandonReason, CloseReason, OpenReason},
};
use std::collections::BTreeMap;

/// The outcome of a planned close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainOutcome {
    /// Traffic had moved; the tunnel was closed.
    Completed,
    /// The tunnel was kept.
    Abandoned,
    /// The tunnel closed for another reason meanwhile.
    Interrupted,
}

impl DrainOutcome {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Completed, Self::Abandoned, Self::Interrupted];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Abandoned => "abandoned",
            Self::Interrupted => "interrupted",
        }
    }
}

/// All that is counted by event; readings are not here, they count themselves.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// By labels of order and reason; all that can be are listed from the start.
    pub decisions: BTreeMap<(&'static str, &'static str), u64>,
    /// Completed planned closes, by outcome.
    pub drains: BTreeMap<DrainOutcome, u64>,
    /// Tunnels opened, by role.
    pub opened: BTreeMap<Role, u64>,
    /// Tunnels that came up, by role.
    pub came_up: BTreeMap<Role, u64>,
    /// Closed tunnels, by role and reason.
    pub closed: BTreeMap<(Role, CloseReason), u64>,
    /// Times that the registry answered.
    pub registry_answered: u64,
    /// Times that it did not.
    pub registry_failed: u64,
    /// RTT probes of candidates that were answered.
    pub candidate_probes_answered: u64,
    /// RTT probes of candidates that were not answered in time.
    pub candidate_probes_unanswered: u64,
    /// Actors restarted after a panic, by name.
    pub remade: BTreeMap<&'static str, u64>,
}

/// Both ends of tunnels that we can be.
pub const ROLES: [Role; 2] = [Role::Dialled, Role::Accepted];

impl Counts {
    pub(super) fn new(actors: &[&'static str]) -> Self {
        let open = OpenReason::ALL
            .iter()
            .map(|reason| ("open", reason.label()));
        let drain = CloseReason::ALL
            .iter()
            .map(|reason| ("drain", reason.label()));
        let undrain = AbandonReason::ALL
            .iter()
            .map(|reason| ("undrain", reason.label()));
        let close = CloseReason::ALL
            .iter()
            .map(|reason| ("close", reason.label()));
        let closed = ROLES
            .iter()
            .flat_map(|role| CloseReason::ALL.iter().map(|reason| (*role, *reason)));
        Self {
            decisions: open
                .chain(drain)
                .chain(undrain)
                .chain(close)
                .map(|key| (key, 0))
                .collect(),
            drains: DrainOutcome::ALL
                .iter()
                .map(|outcome| (*outcome, 0))
                .collect(),
            opened: ROLES.iter().map(|role| (*role, 0)).collect(),
            came_up: ROLES.iter().map(|role| (*role, 0)).collect(),
            closed: closed.map(|key| (key, 0)).collect(),
            registry_answered: 0,
            registry_failed: 0,
            candidate_probes_answered: 0,
            candidate_probes_unanswered: 0,
            remade: actors.iter().map(|actor| (*actor, 0)).collect(),
        }
    }
}

/// Adds one to a counter.
pub(super) fn bump<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    let count = counts.entry(key).or_default();
    *count = count.saturating_add(1);
}
