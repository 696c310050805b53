//! Drives rolling restarts through random events, and requires that each gives its locks back in time.
//!
//! A failure names seed and sequence.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic outside its test functions too, and prints what it measured"
)]

mod fakes;

use fakes::{SEED, SEQUENCES, TICK, Tunnels, any_slot, node};
use policies::{
    names::{Prefix, Slot, Transport},
    observation::Phase,
    restart_lock::HOLD_TIME,
    rng::Rng,
    rolling_restart::{
        FilesChanged, RestartObservation, RestartOrder, RollingRestart, ServerReading,
    },
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The longest time for which a rolling restart may keep locks: until they expire, then a drain and the wait for peers
/// if it had just started a step, each noticed one step late.
const MAX_LOCKED: Duration = Duration::from_secs(60 + 20 + 15 + 3 * 2);

/// Node 1 with old files, a rolling restart, and neighbours that answer late, never, or with a rejection.
struct Restarting {
    restart: RollingRestart,
    tunnels: Tunnels,
    dials: BTreeMap<Slot, Uptime>,
    server_started_at: Uptime,
    /// An answer of the neighbours that is on its way: when it comes, and whether they grant their locks.
    pending: Option<(Uptime, bool, BTreeSet<Prefix>)>,
    locked_since: Option<Uptime>,
    now: Uptime,
}

impl Restarting {
    fn new(rng: &mut Rng) -> Self {
        let (now, started_at) = (Uptime::from_secs(1_000), Uptime::from_secs(1));
        let mut node = Self {
            restart: RollingRestart::default(),
            tunnels: Tunnels::default(),
            dials: BTreeMap::new(),
            server_started_at: started_at,
            pending: None,
            locked_since: None,
            now,
        };
        for number in 0..rng.below(3) {
            let slot = Slot::Dialling(u16::try_from(number).unwrap());
            node.tunnels.open(slot, 2 + number, Phase::Up, now);
            node.dials.insert(slot, started_at);
        }
        let accepting = Slot::Accepting(Transport::Udp, 2);
        node.tunnels.open(accepting, 7, Phase::Up, now);
        node.restart.on_files_changed(&FilesChanged {
            at: now,
            network_version: 2,
            servers: true,
            dials: true,
            start_after: Duration::ZERO,
            force_after: Duration::from_secs(600),
        });
        node
    }

    /// Tunnels come and go, and the neighbours' answer arrives.
    fn disturb(&mut self, rng: &mut Rng) {
        match rng.below(12) {
            0 => self.tunnels.close_some(rng),
            1 | 2 => {
                let slot = any_slot(rng);
                let phase = if rng.below(4) == 0 {
                    Phase::Connecting
                } else {
                    Phase::Up
                };
                self.tunnels.open(slot, 2 + rng.below(6), phase, self.now);
                if matches!(slot, Slot::Dialling(_)) {
                    self.dials.insert(slot, self.now);
                }
            }
            _ => {}
        }
        self.dials
            .retain(|slot, _| self.tunnels.0.contains_key(slot));
        if let Some((_, granted, neighbours)) = self.pending.take_if(|(at, ..)| *at <= self.now) {
            self.restart
                .on_lock_answer(granted, neighbours, self.now, rng);
            if granted {
                self.locked_since.get_or_insert(self.now);
            }
        }
    }

    fn step(&mut self, rng: &mut Rng) {
        let slots = self.tunnels.0.keys().copied();
        let server = ServerReading {
            started_at: self.server_started_at,
            slots: slots
                .filter(|slot| matches!(slot, Slot::Accepting(..)))
                .collect(),
        };
        let slots = self.tunnels.0.keys();
        let drained = slots.map(|slot| (*slot, rng.below(2) == 0)).collect();
        let orders = self.restart.step(&RestartObservation {
            now: self.now,
            me: node(1),
            tunnels: &self.tunnels.0,
            dials: &self.dials,
            servers: &[(Transport::Udp, server)].into(),
            routes: Some(&[]),
            drained: &drained,
            hello_interval: Duration::from_secs(10),
            is_locked_by_neighbour: false,
        });
        for order in orders {
            self.obey(order, rng);
        }
    }

    /// The process of the tunnel starts again; every fourth does not reach its peer.
    fn restart_dial(&mut self, slot: Slot, rng: &mut Rng) {
        if rng.below(4) == 0 {
            self.tunnels.0.remove(&slot);
        } else if let Some(tunnel) = self.tunnels.0.get_mut(&slot) {
            tunnel.phase = Phase::Up;
            self.dials.insert(slot, self.now);
        }
    }

    fn obey(&mut self, order: RestartOrder, rng: &mut Rng) {
        match order {
            RestartOrder::AcquireLocks { neighbours } => {
                let at = self.now + rng.span(Duration::ZERO, Duration::from_secs(5));
                self.pending = (rng.below(4) > 0).then(|| (at, rng.below(3) > 0, neighbours));
            }
            RestartOrder::ReleaseLocks { .. } => self.locked_since = None,
            RestartOrder::Tunnel(decision) => self.tunnels.obey(&decision.order),
            RestartOrder::RestartServer { closings, .. } => {
                self.server_started_at = self.now;
                for closing in closings {
                    self.tunnels.obey(&closing.order);
                }
            }
            RestartOrder::RestartDials { closings } => {
                for closing in closings {
                    self.restart_dial(closing.order.slot(), rng);
                }
            }
            RestartOrder::StopAccepting { .. }
            | RestartOrder::ResumeAccepting { .. }
            | RestartOrder::ReportLostRequest
            | RestartOrder::ReportApplied { .. } => {}
        }
    }
}

#[test]
fn a_rolling_restart_gives_its_locks_back_within_the_limit() {
    let (mut rng, mut longest) = (Rng::new(SEED), Duration::ZERO);
    for sequence in 0..SEQUENCES {
        let mut node = Restarting::new(&mut rng);
        for _ in 0..200 {
            node.now = node.now + TICK + rng.span(Duration::ZERO, Duration::from_secs(1));
            node.disturb(&mut rng);
            let locked = node.locked_since;
            let locked = locked.map_or(Duration::ZERO, |since| node.now.since(since));
            node.step(&mut rng);
            assert!(
                locked <= MAX_LOCKED,
                "seed {SEED:#x}, sequence {sequence}: locks held for {locked:?}"
            );
            longest = longest.max(locked);
        }
    }
    println!("{SEQUENCES} rolling restarts: locks held for at most {longest:?} of {MAX_LOCKED:?}");
    // Some restart starts just before the locks expire.
    assert!(longest > HOLD_TIME, "{longest:?}");
}
