//! Tunnels that do what the machines under test order.

use policies::{
    names::{Prefix, Slot, Transport},
    observation::{Phase, TunnelReading},
    orders,
    rng::Rng,
    units::Uptime,
};
use std::{collections::BTreeMap, time::Duration};

/// The seed of all random choices.
pub const SEED: u64 = 0x7761_7272_656e;
/// The number of sequences of each test.
pub const SEQUENCES: u32 = 100_000;
/// The interval between two steps of a machine.
pub const TICK: Duration = Duration::from_millis(250);

/// The node of this number.
pub fn node(number: u64) -> Prefix {
    Prefix::new(u32::try_from(number).unwrap(), 16).unwrap()
}

/// Tunnels that obey the orders of a machine, as the actor of tunnels does.
#[derive(Default)]
pub struct Tunnels(pub BTreeMap<Slot, TunnelReading>);

impl Tunnels {
    /// Adds a tunnel in this phase.
    pub fn open(&mut self, slot: Slot, peer: u64, phase: Phase, now: Uptime) {
        let tunnel = TunnelReading {
            slot,
            peer: node(peer),
            phase,
            since: now,
            up_since: Some(now),
            endpoint: None,
        };
        self.0.insert(slot, tunnel);
    }

    /// Carries an order out; a closing tunnel is gone at once.
    pub fn obey(&mut self, order: &orders::Order) {
        match order {
            orders::Order::Drain { slot, reason } => {
                if let Some(tunnel) = self.0.get_mut(slot) {
                    tunnel.phase = tunnel.phase.drained_for(*reason);
                }
            }
            orders::Order::Undrain { slot, .. } => {
                if let Some(tunnel) = self.0.get_mut(slot) {
                    tunnel.phase = tunnel.phase.undrained();
                }
            }
            orders::Order::Close { slot, .. } => {
                self.0.remove(slot);
            }
            orders::Order::Open { .. } => {}
        }
    }

    /// Closes one of the first eight tunnels, if it exists.
    pub fn close_some(&mut self, rng: &mut Rng) {
        let slots: Vec<_> = self.0.keys().copied().collect();
        if let Some(slot) = slots.get(usize::try_from(rng.below(8)).unwrap()) {
            self.0.remove(slot);
        }
    }
}

/// One of three dialling or three accepting slots.
pub fn any_slot(rng: &mut Rng) -> Slot {
    let number = u16::try_from(rng.below(3)).unwrap();
    if rng.below(2) == 0 {
        Slot::Dialling(number)
    } else {
        Slot::Accepting(Transport::Udp, number + 2)
    }
}
