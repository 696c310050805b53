//! The counters of events. A counter exists from the start, at 0, for each possible value of its labels.

use os::kernel::RepairKind;
use policies::{
    histogram::{Histogram, SPAN_BOUNDS},
    names::Role,
    orders::{AbandonReason, CloseReason, OpenReason},
    route_checks::SuspicionKind,
    waits::Wait,
};
use std::collections::BTreeMap;

/// The outcome of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainOutcome {
    /// Traffic moved away, and the tunnel was closed as planned.
    Completed,
    /// The drain was given up, and the tunnel was kept.
    Abandoned,
    /// The tunnel closed for another reason before the drain was complete.
    Interrupted,
}

impl DrainOutcome {
    /// All outcomes of a drain.
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

/// The numbers of all events. Readings are not counted here; they carry their own counters.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Number of decisions, by the labels of order and reason.
    pub decisions: BTreeMap<(&'static str, &'static str), u64>,
    /// Number of drains that have ended, by outcome.
    pub drains: BTreeMap<DrainOutcome, u64>,
    /// Number of opened tunnels, by role.
    pub opened: BTreeMap<Role, u64>,
    /// Number of tunnels that came up, by role.
    pub came_up: BTreeMap<Role, u64>,
    /// The time from the opening of each tunnel until it came up, by role.
    pub setup: BTreeMap<Role, Histogram>,
    /// Number of closed tunnels, by role and reason.
    pub closed: BTreeMap<(Role, CloseReason), u64>,
    /// Number of phases that lasted longer than their limit.
    pub overdue: BTreeMap<Wait, u64>,
    /// Number of times that a neighbour announced routes that cannot be its own, by what was wrong with them.
    pub suspicious_routes: BTreeMap<SuspicionKind, u64>,
    /// Number of things on the host that others had removed or changed and that were restored.
    pub host_repairs: BTreeMap<RepairKind, u64>,
    /// Number of calls that the registry answered.
    pub registry_answered: u64,
    /// Number of calls to the registry that failed.
    pub registry_failed: u64,
    /// Number of RTT probes of candidates that were answered in time.
    pub candidate_probes_answered: u64,
    /// Number of RTT probes of candidates that were not answered in time.
    pub candidate_probes_unanswered: u64,
    /// Number of restarts of each actor after a panic, by its name.
    pub actor_restarts: BTreeMap<&'static str, u64>,
}

/// The roles that this node can have in a tunnel.
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
            setup: ROLES.map(|role| (role, Histogram::new(SPAN_BOUNDS))).into(),
            closed: closed.map(|key| (key, 0)).collect(),
            overdue: Wait::ALL.iter().map(|wait| (*wait, 0)).collect(),
            suspicious_routes: SuspicionKind::ALL.iter().map(|kind| (*kind, 0)).collect(),
            host_repairs: RepairKind::ALL.iter().map(|kind| (*kind, 0)).collect(),
            registry_answered: 0,
            registry_failed: 0,
            candidate_probes_answered: 0,
            candidate_probes_unanswered: 0,
            actor_restarts: actors.iter().map(|actor| (*actor, 0)).collect(),
        }
    }
}

/// Adds one to a counter.
pub(super) fn increment<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    let count = counts.entry(key).or_default();
    *count = count.saturating_add(1);
}
