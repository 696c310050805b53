//! The observation of the node on which a rolling restart decides.

use crate::{
    names::{Prefix, Slot, Transport},
    observation::{Phase, Route, TunnelReading},
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The fact that new certificates or keys are on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilesChanged {
    /// The moment at which they were written.
    pub at: Uptime,
    /// Version of the network document that the files agree with.
    pub network_version: u64,
    /// Servers must restart.
    pub servers: bool,
    /// Dialled tunnels must restart.
    pub dials: bool,
    /// Delay before the first restart; nodes choose different ones.
    pub start_after: Duration,
    /// Delay after which processes restart even if they cannot be drained.
    pub force_after: Duration,
}

/// The state of a server's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerReading {
    /// The moment at which it started, and read its files.
    pub started_at: Uptime,
    /// The slots of its clients.
    pub slots: BTreeSet<Slot>,
}

/// All that one step sees.
#[derive(Clone, Copy, Debug)]
pub struct RestartObservation<'a> {
    /// The present moment.
    pub now: Uptime,
    /// The prefix of this node.
    pub me: Prefix,
    /// All tunnels, by slot.
    pub tunnels: &'a BTreeMap<Slot, TunnelReading>,
    /// The moment at which the process of each dialled tunnel started.
    pub dials: &'a BTreeMap<Slot, Uptime>,
    /// The servers, by transport.
    pub servers: &'a BTreeMap<Transport, ServerReading>,
    /// babeld's routes; `None` while it does not answer.
    pub routes: Option<&'a [Route]>,
    /// Tunnels that drain, and whether each carries nothing any more.
    pub drained: &'a BTreeMap<Slot, bool>,
    /// The interval of Babel's hellos.
    pub hello_interval: Duration,
    /// Whether a neighbour holds this node's own restart lock.
    pub is_locked_by_neighbour: bool,
}

impl RestartObservation<'_> {
    /// Returns whether every tunnel is simply up.
    pub(super) fn are_all_tunnels_up(&self) -> bool {
        let mut tunnels = self.tunnels.values();
        tunnels.all(|tunnel| tunnel.phase == Phase::Up)
    }

    /// The neighbours whose locks a restart needs, beside this node's own.
    ///
    /// These are all peers of tunnels, so two nodes exclude each other if there is a tunnel between them. Nodes that only have
    /// a neighbour in common share its lock, if it permits that.
    pub(super) fn required_locks(&self) -> BTreeSet<Prefix> {
        self.tunnels.values().map(|tunnel| tunnel.peer).collect()
    }
}
