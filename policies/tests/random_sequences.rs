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
/// if it had just started a step.
const MAX_LOCKED: Duration = Duration::from_secs(60 + 20 + 20 + 15);

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
            1 => {
                let slot = any_slot(rng);
                self.tunnels
                    .open(slot, 2 + rng.below(6), Phase::Up, self.now);
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
            lock_holder: None,
        });
        for order in orders {
            self.obey(order, rng);
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
            RestartOrder::StopAccepting { .. }
            | RestartOrder::ResumeAccepting { .. }
            | RestartOrder::ReportPostponed { .. }
            | RestartOrder::ReportLostRequest
            | RestartOrder::ReportApplied { .. } => {}
        }
    }
}

#[test]
fn a_rolling_restart_gives_its_locks_back_within_the_limit() {
    let mut rng = Rng::new(SEED);
    for sequence in 0..SEQUENCES / 10 {
        let mut node = Restarting::new(&mut rng);
        for _ in 0..400 {
            node.now = node.now + TICK + rng.span(Duration::ZERO, Duration::from_secs(1));
            node.disturb(&mut rng);
            node.step(&mut rng);
            let locked = node.locked_since;
            let locked = locked.map_or(Duration::ZERO, |since| node.now.since(since));
            assert!(
                locked <= MAX_LOCKED,
                "seed {SEED:#x}, sequence {sequence}: locks held for {locked:?}"
            );
        }
    }
}
