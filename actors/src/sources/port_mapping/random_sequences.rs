//! Drives the keeper of leases through random events, and requires that what it has to end ends in time.
//!
//! The clock, the router and the ledger are fakes: they are in memory, and outlive a daemon that crashes at any call.

#![allow(clippy::print_stdout, reason = "the tests print what they measured")]

mod world;

use super::{
    Schedule,
    keeper::{Keeper, LEASE, LeaseSettings},
};
use futures_util::FutureExt;
use membership::documents::PrivateEndpoints;
use os::randomness::Randomness;
use policies::{
    names::{Prefix, Transport},
    units::Uptime,
};
use std::{cell::RefCell, net::Ipv4Addr, rc::Rc, time::Duration};
use wire::overlay::Network;
use world::{FakeLedger, FakeRouter, World};

const SEED: u64 = 0x7761_7272_656e;
const SEQUENCES: u32 = 100_000;
/// Time within which all is as it should be, at a gateway that answers. A mapping that it hides is
/// requested again after four minutes.
const MAX_SETTLING_TIME: Duration = Duration::from_secs(300);

/// A daemon, with the moment of its next round.
struct Daemon {
    world: Rc<RefCell<World>>,
    keeper: Keeper<FakeRouter, FakeLedger>,
    wanted: Vec<(Transport, u16)>,
    schedule: Schedule,
    next_round: Uptime,
}

impl Daemon {
    fn start(world: &Rc<RefCell<World>>, wanted: &[(Transport, u16)]) -> Self {
        let settings = LeaseSettings {
            me: Prefix::new(7, 16).unwrap(),
            network: Network::new("2001:db8:42::/48".parse().unwrap()).unwrap(),
            wanted: wanted.to_vec(),
            further: Vec::new(),
            private: PrivateEndpoints::default(),
            random: world.borrow().random.clone(),
        };
        let (router, ledger) = (FakeRouter(world.clone()), FakeLedger(world.clone()));
        Self {
            keeper: Keeper::new(router, ledger, settings),
            wanted: wanted.to_vec(),
            schedule: Schedule::default(),
            next_round: world.borrow().now,
            world: world.clone(),
        }
    }

    /// Lets the time pass until the next round, and runs it; a daemon that crashes in it is started again.
    fn run_round(&mut self) {
        let now = self.next_round;
        self.world.borrow_mut().now = now;
        match self.keeper.update_mappings(now).now_or_never() {
            Some(round) => self.next_round = now + self.schedule.next_round_delay(&round, now),
            None => self.restart(),
        }
    }

    fn restart(&mut self) {
        self.world.borrow_mut().calls_until_crash = None;
        *self = Self::start(&self.world, &self.wanted);
    }

    /// Whether each wanted port has one mapping, and no other mapping is ours.
    fn is_settled(&self) -> bool {
        let world = &mut *self.world.borrow_mut();
        let address = world.address.to_string();
        let rows = world.own_rows();
        let has_mapping = |target: &(Transport, u16)| {
            rows.iter().any(|((transport, _), entry)| {
                (*transport, entry.internal_port) == *target && entry.client == address
            })
        };
        rows.len() == self.wanted.len() && self.wanted.iter().all(has_mapping)
    }

    fn disturb(&mut self) {
        let mut world = self.world.borrow_mut();
        match world.random.index(12) {
            0 => world.table.clear(),
            1 => world.take_port(),
            2 => world.address = random_address(&world.random),
            3 | 4 => world.is_faulty = !world.is_faulty,
            5 => world.calls_until_crash = u32::try_from(world.random.index(24)).ok(),
            6 => {
                self.wanted = random_ports(&world.random);
                drop(world);
                self.restart();
            }
            _ => {
                drop(world);
                self.run_round();
            }
        }
    }

    /// Removes all mappings; `None` if the daemon crashes meanwhile.
    fn release(&self) -> Option<bool> {
        Some(self.keeper.release().now_or_never()?.is_ok())
    }
}

fn random_address(random: &Randomness) -> Ipv4Addr {
    let addresses = [2, 3, 4].map(|host| Ipv4Addr::new(192, 168, 1, host));
    *random.choose(&addresses).unwrap()
}

fn random_ports(random: &Randomness) -> Vec<(Transport, u16)> {
    let ports = [(Transport::Udp, 1194), (Transport::Tcp, 443)];
    ports[..=random.index(2)].to_vec()
}

/// A daemon, and a router in a random state after random events.
fn disturbed(random: &Randomness) -> Daemon {
    let max_leases = [None, Some(LEASE), Some(Duration::from_secs(60))];
    let world = World {
        now: Uptime::from_secs(1_000),
        address: random_address(random),
        table: Vec::new(),
        max_lease: *random.choose(&max_leases).unwrap(),
        is_faulty: false,
        calls_until_crash: None,
        ledger: Vec::new(),
        random: random.clone(),
    };
    let mut daemon = Daemon::start(&Rc::new(RefCell::new(world)), &random_ports(random));
    for _ in 0..random.index(24) {
        daemon.disturb();
    }
    daemon
}

#[test]
fn wanted_ports_are_mapped_and_all_else_is_removed_within_one_interval_of_a_router_that_answers() {
    let random = Randomness::from_seed(SEED);
    let mut longest = Duration::ZERO;
    for sequence in 0..SEQUENCES {
        let mut daemon = disturbed(&random);
        {
            let world = &mut *daemon.world.borrow_mut();
            (world.is_faulty, world.calls_until_crash) = (false, None);
        }
        let since = daemon.world.borrow().now;
        loop {
            daemon.run_round();
            let waited = daemon.world.borrow().now.since(since);
            longest = longest.max(waited);
            assert!(
                waited <= MAX_SETTLING_TIME,
                "seed {SEED:#x}, sequence {sequence}: not settled after {waited:?}: {:?}",
                daemon.world.borrow().table
            );
            if daemon.is_settled() {
                break;
            }
        }
        // From now on no lease expires before it is renewed.
        for _ in 0..2 {
            daemon.world.borrow_mut().now = daemon.next_round;
            assert!(
                daemon.is_settled(),
                "seed {SEED:#x}, sequence {sequence}: a lease has expired"
            );
            daemon.run_round();
        }
    }
    println!(
        "leases: {SEQUENCES} sequences from seed {SEED:#x}: settled after at most {longest:?}"
    );
}

#[test]
fn after_a_release_or_a_later_cleanup_no_mapping_is_left() {
    let random = Randomness::from_seed(SEED);
    let (mut attempts, mut longest) = (0, Duration::ZERO);
    for sequence in 0..SEQUENCES {
        let mut daemon = disturbed(&random);
        let closed_at = daemon.world.borrow().now;
        let mut tries = 1;
        // Nobody may come to clean up; then leases that expire end by themselves.
        let is_cleaned_up = random.index(4) > 0 || daemon.world.borrow().max_lease.is_none();
        while daemon.release() != Some(true) && is_cleaned_up {
            tries += 1;
            let is_faulty = tries < 8 && random.index(2) == 0;
            {
                let world = &mut *daemon.world.borrow_mut();
                (world.is_faulty, world.calls_until_crash) = (is_faulty, None);
            }
            daemon = Daemon::start(&daemon.world, &[]);
        }
        attempts = attempts.max(tries);
        let world = Rc::clone(&daemon.world);
        daemon.run_round();
        while !world.borrow_mut().own_rows().is_empty() {
            let mut world = world.borrow_mut();
            world.now = world.now + Duration::from_secs(10);
            let waited = world.now.since(closed_at);
            longest = longest.max(waited);
            assert!(
                !is_cleaned_up && waited <= LEASE,
                "seed {SEED:#x}, sequence {sequence}: left after {waited:?}: {:?}",
                world.table
            );
        }
        let world = world.borrow();
        assert!(
            !is_cleaned_up || world.ledger.is_empty(),
            "seed {SEED:#x}, sequence {sequence}: {:?}",
            world.ledger
        );
    }
    println!(
        "leases: {SEQUENCES} sequences from seed {SEED:#x}: released after at most {attempts} attempts, and \
         expired after at most {longest:?} without a clean-up"
    );
}
