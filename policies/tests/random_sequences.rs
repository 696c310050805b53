//! Drives the machines that order something to end through random events, and requires that the end comes in time.
//!
//! Each test draws 100,000 sequences from one seed; a failure names seed and sequence.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may panic outside its test functions too"
)]

use policies::{
    life::{Event, Life, Limits, Order, State},
    names::{Prefix, Slot, Transport},
    observation::{Phase, TunnelReading},
    orders::{self, CloseReason},
    restart_lock::{HOLD_TIME, RestartLock},
    revocation::{Revocation, RevocationOrder, Revoked},
    rng::Rng,
    rolling_restart::{
        FilesChanged, RestartObservation, RestartOrder, RollingRestart, ServerReading,
    },
    units::Uptime,
    waits::Wait,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

const SEED: u64 = 0x7761_7272_656e;
const SEQUENCES: u32 = 100_000;
const TICK: Duration = Duration::from_millis(250);

fn node(number: u64) -> Prefix {
    Prefix::new(u32::try_from(number).unwrap(), 16).unwrap()
}

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
        let (mut lock, mut now) = (RestartLock::default(), Uptime::from_secs(1_000));
        for _ in 0..rng.below(40) {
            now = now + rng.span(Duration::ZERO, Duration::from_secs(10));
            match rng.below(4) {
                0 => lock.release(node(rng.below(4))),
                1 => lock.note_tunnel_change(now),
                _ => {
                    lock.acquire(node(rng.below(4)), now);
                }
            }
        }
        now = now + HOLD_TIME;
        assert_eq!(
            lock.holder(now),
            None,
            "seed {SEED:#x}, sequence {sequence}"
        );
        assert!(
            lock.acquire(node(9), now),
            "seed {SEED:#x}, sequence {sequence}"
        );
    }
}

/// Tunnels that obey the orders of a machine, as the actor of tunnels does.
#[derive(Default)]
struct Tunnels(BTreeMap<Slot, TunnelReading>);

impl Tunnels {
    fn open(&mut self, slot: Slot, peer: u64, phase: Phase, now: Uptime) {
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
    fn obey(&mut self, order: &orders::Order) {
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

    fn close_some(&mut self, rng: &mut Rng) {
        let slots: Vec<_> = self.0.keys().copied().collect();
        if let Some(slot) = slots.get(usize::try_from(rng.below(8)).unwrap()) {
            self.0.remove(slot);
        }
    }
}

fn any_slot(rng: &mut Rng) -> Slot {
    let number = u16::try_from(rng.below(3)).unwrap();
    if rng.below(2) == 0 {
        Slot::Dialling(number)
    } else {
        Slot::Accepting(Transport::Udp, number + 2)
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

/// The longest time for which a rolling restart may keep locks: until they expire, then a drain and the wait for peers
/// if it had just begun a step.
const MAX_LOCKED: Duration = Duration::from_secs(60 + 20 + 20 + 15);

#[test]
fn a_rolling_restart_gives_its_locks_back_within_the_limit() {
    let mut rng = Rng::new(SEED);
    for sequence in 0..SEQUENCES / 10 {
        let mut restart = RollingRestart::default();
        let mut now = Uptime::from_secs(1_000);
        let mut tunnels = Tunnels::default();
        let mut dials: BTreeMap<Slot, Uptime> = BTreeMap::new();
        let started_at = Uptime::from_secs(1);
        for number in 0..rng.below(3) {
            let slot = Slot::Dialling(u16::try_from(number).unwrap());
            tunnels.open(slot, 2 + number, Phase::Up, now);
            dials.insert(slot, started_at);
        }
        let accepting = Slot::Accepting(Transport::Udp, 2);
        tunnels.open(accepting, 7, Phase::Up, now);
        let mut server_started_at = started_at;
        restart.on_files_changed(&FilesChanged {
            at: now,
            network_version: 2,
            servers: true,
            dials: true,
            start_after: Duration::ZERO,
            force_after: Duration::from_secs(600),
        });
        let mut locked_since = None;
        // An answer that comes later, or never.
        let mut pending: Option<(Uptime, bool, BTreeSet<Prefix>)> = None;
        for _ in 0..400 {
            now = now + TICK + rng.span(Duration::ZERO, Duration::from_secs(1));
            match rng.below(12) {
                0 => tunnels.close_some(&mut rng),
                1 => {
                    let slot = any_slot(&mut rng);
                    tunnels.open(slot, 2 + rng.below(6), Phase::Up, now);
                    if matches!(slot, Slot::Dialling(_)) {
                        dials.insert(slot, now);
                    }
                }
                _ => {}
            }
            dials.retain(|slot, _| tunnels.0.contains_key(slot));
            if let Some((at, granted, neighbours)) = pending.take() {
                if at <= now {
                    restart.on_lock_answer(granted, neighbours, now, &mut rng);
                    if granted {
                        locked_since.get_or_insert(now);
                    }
                } else {
                    pending = Some((at, granted, neighbours));
                }
            }
            let slots: BTreeSet<_> = tunnels
                .0
                .keys()
                .copied()
                .filter(|slot| matches!(slot, Slot::Accepting(..)))
                .collect();
            let server = ServerReading {
                started_at: server_started_at,
                slots,
            };
            let drained = tunnels
                .0
                .keys()
                .map(|slot| (*slot, rng.below(2) == 0))
                .collect();
            let servers = [(Transport::Udp, server)].into();
            let orders = restart.step(&RestartObservation {
                now,
                me: node(1),
                tunnels: &tunnels.0,
                dials: &dials,
                servers: &servers,
                routes: Some(&[]),
                drained: &drained,
                lock_holder: None,
            });
            for order in orders {
                match order {
                    RestartOrder::AcquireLocks { neighbours } => {
                        let at = now + rng.span(Duration::ZERO, Duration::from_secs(5));
                        pending = (rng.below(4) > 0).then(|| (at, rng.below(3) > 0, neighbours));
                    }
                    RestartOrder::ReleaseLocks { .. } => locked_since = None,
                    RestartOrder::Tunnel(decision) => tunnels.obey(&decision.order),
                    RestartOrder::RestartServer { closings, .. } => {
                        server_started_at = now;
                        for closing in closings {
                            tunnels.obey(&closing.order);
                        }
                    }
                    RestartOrder::StopAccepting { .. }
                    | RestartOrder::ResumeAccepting { .. }
                    | RestartOrder::ReportPostponed { .. }
                    | RestartOrder::ReportApplied { .. } => {}
                }
            }
            let locked = locked_since.map_or(Duration::ZERO, |since| now.since(since));
            assert!(
                locked <= MAX_LOCKED,
                "seed {SEED:#x}, sequence {sequence}: locks held for {locked:?}"
            );
        }
    }
}
