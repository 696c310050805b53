//! Drives the machines that order something to end through random events, and requires that the end comes in time.
//!
//! Each test draws 100,000 sequences from one seed; a failure names seed and sequence.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may panic outside its test functions too"
)]

mod fakes;

use fakes::{SEED, SEQUENCES, TICK, Tunnels, any_slot, node};
use policies::{
    life::{Event, Life, Limits, Order, State},
    observation::Phase,
    orders::CloseReason,
    restart_lock::{HOLD_TIME, RestartLock},
    revocation::{Revocation, RevocationOrder, Revoked},
    rng::Rng,
    units::Uptime,
    waits::Wait,
};
use std::time::Duration;

/// A process as the kernel would have it: it exits on SIGKILL, and mostly on SIGTERM.
struct Process {
    life: Life,
    is_running: bool,
    exits: bool,
    now: Uptime,
}

impl Process {
    fn pass(&mut self, event: Event, rng: &mut Rng) {
        match self.life.on(event, self.now) {
            Some(Order::Spawn) if rng.below(10) == 0 => {
                let _ = self.life.on(Event::Exited, self.now);
            }
            Some(Order::Spawn) => self.is_running = true,
            Some(Order::Stop) => self.exits |= rng.below(4) > 0,
            Some(Order::Kill) => self.exits = true,
            None => {}
        }
    }

    /// Time passes; a process that got its last signal exits.
    fn tick(&mut self, rng: &mut Rng) {
        self.now = self.now + TICK;
        if std::mem::take(&mut self.exits) && std::mem::take(&mut self.is_running) {
            self.pass(Event::Exited, rng);
        }
        self.pass(Event::Tick, rng);
    }
}

#[test]
fn a_process_that_is_not_wanted_is_down_within_the_limit() {
    let mut rng = Rng::new(SEED);
    for sequence in 0..SEQUENCES {
        let mut process = Process {
            life: Life::new(Limits::default(), rng.bits()),
            is_running: false,
            exits: false,
            now: Uptime::from_secs(1_000),
        };
        for _ in 0..rng.below(40) {
            match rng.below(8) {
                0 => process.pass(Event::Wanted, &mut rng),
                1 => process.pass(Event::Unwanted, &mut rng),
                2 if process.is_running => process.pass(Event::Ready, &mut rng),
                3 => process.exits = process.is_running,
                _ => {}
            }
            process.tick(&mut rng);
        }
        process.pass(Event::Unwanted, &mut rng);
        let ordered_at = process.now;
        while !matches!(process.life.state(), State::Down { .. }) || process.is_running {
            process.tick(&mut rng);
            let waited = process.now.since(ordered_at);
            assert!(
                waited <= Wait::Closing.limit(),
                "seed {SEED:#x}, sequence {sequence}: still {:?} after {waited:?}",
                process.life.state()
            );
        }
    }
}

#[test]
fn a_restart_lock_is_free_again_within_its_limit_whoever_forgets_it() {
    let mut rng = Rng::new(SEED);
    for sequence in 0..SEQUENCES {
        let (mut lock, mut now) = (RestartLock::new(node(0)), Uptime::from_secs(1_000));
        for _ in 0..rng.below(40) {
            now = now + rng.span(Duration::ZERO, Duration::from_secs(10));
            match rng.below(4) {
                0 => lock.release(node(rng.below(4))),
                1 => {
                    let mut tunnels = Tunnels::default();
                    tunnels.open(any_slot(&mut rng), rng.below(4), Phase::Connecting, now);
                    lock.note_tunnels(&tunnels.0, now);
                }
                _ => {
                    lock.acquire(node(rng.below(4)), now);
                }
            }
        }
        now = now + HOLD_TIME;
        assert!(
            lock.holders(now).is_empty(),
            "seed {SEED:#x}, sequence {sequence}"
        );
        assert!(
            lock.acquire(node(9), now),
            "seed {SEED:#x}, sequence {sequence}"
        );
    }
}

#[test]
fn the_tunnels_of_a_revoked_node_are_closed_within_the_limit() {
    let mut rng = Rng::new(SEED);
    for sequence in 0..SEQUENCES {
        let (mut revocation, mut tunnels) = (Revocation::default(), Tunnels::default());
        let mut now = Uptime::from_secs(1_000);
        let phases = [
            Phase::Connecting,
            Phase::Up,
            Phase::Draining {
                reason: CloseReason::Unused,
            },
        ];
        for _ in 0..rng.below(30) {
            now = now + rng.span(TICK, Duration::from_secs(3));
            match rng.below(4) {
                0 => tunnels.close_some(&mut rng),
                1 => {
                    let phase = *phases.get(usize::try_from(rng.below(3)).unwrap()).unwrap();
                    tunnels.open(any_slot(&mut rng), 2 + rng.below(3), phase, now);
                }
                _ => {}
            }
            carry_out(revocation.step(&tunnels.0, now), &mut tunnels);
        }
        let peer = node(2);
        let accepted = tunnels
            .0
            .values()
            .filter(|tunnel| tunnel.peer == peer)
            .map(|tunnel| tunnel.slot)
            .collect();
        let nodes = [peer].into();
        let revoked = Revoked {
            nodes: &nodes,
            accepted: &accepted,
        };
        let revoked_at = now;
        let orders = revocation.on_revoked(revoked, node(1), &tunnels.0, now);
        carry_out(orders, &mut tunnels);
        while tunnels.0.values().any(|tunnel| tunnel.peer == peer) {
            now = now + TICK;
            carry_out(revocation.step(&tunnels.0, now), &mut tunnels);
            let waited = now.since(revoked_at);
            assert!(
                waited <= Wait::Draining.limit(),
                "seed {SEED:#x}, sequence {sequence}: not closed after {waited:?}"
            );
        }
    }
}

fn carry_out(orders: Vec<RevocationOrder>, tunnels: &mut Tunnels) {
    for order in orders {
        if let RevocationOrder::Tunnel(decision) = order {
            tunnels.obey(&decision.order);
        }
    }
}
