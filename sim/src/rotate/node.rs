//! One node: its tunnels, its restart lock, and its rolling restart.

use super::prefix;
use policies::{
    names::{Prefix, Slot, Transport},
    observation::{BabelTable, Phase, TunnelReading},
    restart_lock::RestartLock,
    rolling_restart::{RestartObservation, RestartOrder, RollingRestart, ServerReading},
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// A node with an idle TCP server and a UDP server.
pub struct Node {
    me: Prefix,
    pub(super) restart: RollingRestart,
    pub(super) lock: RestartLock,
    pub(super) tunnels: BTreeMap<Slot, TunnelReading>,
    /// The number of the tunnel on each slot.
    pub(super) links: BTreeMap<Slot, usize>,
    /// When the process of each dialled tunnel started.
    pub(super) dials: BTreeMap<Slot, Uptime>,
    pub(super) servers: BTreeMap<Transport, ServerReading>,
    pub(super) drained: BTreeMap<Slot, bool>,
    /// The nodes whose locks are requested, in the order of their prefixes.
    pub(super) requested: Vec<u32>,
    /// The moment at which all processes ran with the new files.
    pub(super) ready_at: Option<Uptime>,
}

impl Node {
    /// A node without tunnels.
    pub fn new(number: u32, table: Arc<BabelTable>) -> Self {
        let me = prefix(number);
        let mut lock = RestartLock::new(me);
        lock.note_table(Some(table));
        let server = ServerReading {
            started_at: Uptime::default(),
            slots: BTreeSet::new(),
        };
        Self {
            me,
            restart: RollingRestart::default(),
            lock,
            tunnels: BTreeMap::new(),
            links: BTreeMap::new(),
            dials: BTreeMap::new(),
            servers: [(Transport::Udp, server.clone()), (Transport::Tcp, server)].into(),
            drained: BTreeMap::new(),
            requested: Vec::new(),
            ready_at: None,
        }
    }

    /// Puts the tunnel to `peer` into this phase; `None` removes it.
    pub fn set_phase(&mut self, slot: Slot, peer: u32, phase: Option<Phase>, now: Uptime) {
        self.lock.note_tunnels(&self.tunnels, now);
        if let Some(phase) = phase {
            let tunnel = TunnelReading {
                slot,
                peer: prefix(peer),
                phase,
                since: now,
                up_since: Some(now),
                endpoint: None,
            };
            self.tunnels.insert(slot, tunnel);
        } else {
            self.tunnels.remove(&slot);
        }
        if let Slot::Accepting(transport, _) = slot
            && let Some(server) = self.servers.get_mut(&transport)
        {
            if phase.is_some() {
                server.slots.insert(slot);
            } else {
                server.slots.remove(&slot);
            }
        }
        self.lock.note_tunnels(&self.tunnels, now);
    }

    /// The number of the tunnel on this slot.
    pub fn link(&self, slot: Slot) -> Option<usize> {
        self.links.get(&slot).copied()
    }

    /// The orders of the rolling restart.
    pub fn step(&mut self, now: Uptime, hello_interval: Duration) -> Vec<RestartOrder> {
        let mut holders = self.lock.holders(now).into_iter();
        let is_locked_by_neighbour = holders.any(|holder| holder != self.me);
        self.restart.step(&RestartObservation {
            now,
            me: self.me,
            tunnels: &self.tunnels,
            dials: &self.dials,
            servers: &self.servers,
            routes: None,
            drained: &self.drained,
            hello_interval,
            is_locked_by_neighbour,
        })
    }
}
