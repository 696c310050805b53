//! The part of a node's configuration that can change while the daemon runs.
//!
//! The supervisor publishes a new version when the configuration is reloaded, and sends
//! [`SettingsChanged`](crate::messages::SettingsChanged) to the actors that must act at once.

use arc_swap::ArcSwap;
use policies::{
    gain::Rule,
    names::{Endpoint, Prefix},
    parameters::Parameters,
};
use std::{collections::BTreeSet, sync::Arc};
use wire::peer::MAX_DISTANCES;

/// The settings in force; a restarted actor reads them here.
pub type SharedLiveSettings = Arc<ArcSwap<LiveSettings>>;

/// Decides whether the planner's orders are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Orders are carried out.
    Act,
    /// Orders are only logged, so that an operator sees what the policy would do (`--dry-run`).
    Watch,
}

/// Settings that can change while the daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveSettings {
    /// Decides whether the planner's orders are carried out.
    pub mode: Mode,
    /// Peers whose tunnels are always kept.
    pub pinned: BTreeSet<Prefix>,
    /// The rule by which tunnels are chosen.
    pub rule: Rule,
    /// The endpoints that the operator configured.
    pub endpoints: Vec<Endpoint>,
    /// The limits that the configuration and the number of slots set to the network's parameters.
    pub limits: LocalLimits,
    /// The keys whose changed values take effect when the daemon is started again.
    pub pending_restart: Vec<String>,
}

impl Default for LiveSettings {
    fn default() -> Self {
        Self {
            mode: Mode::Act,
            pinned: BTreeSet::new(),
            rule: Rule::default(),
            endpoints: Vec::new(),
            limits: LocalLimits {
                tunnels_to_dial: u16::MAX,
                max_accepted: u16::MAX,
                max_distances: MAX_DISTANCES,
            },
            pending_restart: Vec::new(),
        }
    }
}

/// Upper limits that this node's configuration and its slots set to the network's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalLimits {
    /// Maximum number of tunnels to dial.
    pub tunnels_to_dial: u16,
    /// Maximum number of tunnels to accept.
    pub max_accepted: u16,
    /// Maximum number of nodes whose metrics the published route view contains. It is 0 on a node that
    /// prefers to carry no transit traffic: others then expect no path to further nodes from a tunnel
    /// to this one.
    pub max_distances: usize,
}

impl LocalLimits {
    /// Returns the parameters, each reduced to its local limit.
    pub fn apply_to(self, parameters: Parameters) -> Parameters {
        Parameters {
            tunnels_to_dial: parameters.tunnels_to_dial.min(self.tunnels_to_dial),
            max_accepted: parameters.max_accepted.min(self.max_accepted),
            ..parameters
        }
    }
}
