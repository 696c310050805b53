//! Keeps port mappings on the host's gateway, and reports which ones exist.
//!
//! This actor schedules the rounds; [`keeper`] carries them out. A round is short and comes three times a minute, so that a gateway
//! that was restarted, or has another external address, is noticed within half a minute, with all that follows.

pub mod default_gateway;
pub mod gateway;
pub mod keeper;
pub mod ledger;
pub mod port_control;
pub mod protocol;
pub mod upnp;

use crate::mailboxes::offer;
use crate::messages::{LeasesRead, MissingLease};
use crate::store::Store;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Recipient, WrapFuture};
use gateway::Finder;
use keeper::{Keeper, LeaseError, Round};
use os::clock::Clock;
use policies::units::Uptime;
use std::{rc::Rc, time::Duration};
use wire::errors::Chain;

/// Interval between two rounds. Each asks for the external address, and whether the mappings still exist.
const ROUND_INTERVAL: Duration = Duration::from_secs(20);
/// Minimum interval between two rounds. Leases shorter than twice this expire before renewal.
const MIN_ROUND_INTERVAL: Duration = Duration::from_secs(10);
/// Delay before the next round while no gateway maps a port, after [`EARLY_ROUNDS`] or [`ROUNDS_AFTER_LOSS`].
const RETRY_DELAY: Duration = Duration::from_secs(120);
/// Number of rounds after the start that follow each other quickly: a router may start at the same time as this host.
const EARLY_ROUNDS: u32 = 3;
/// The same after a gateway has mapped a port and does so no more: five minutes, in which a router restarts.
const ROUNDS_AFTER_LOSS: u32 = 15;

/// The dependencies of the port mapping actor.
#[derive(Clone)]
pub struct PortMappingDeps<F: Finder> {
    /// The keeper of the leases, which outlives the actor.
    pub keeper: Rc<Keeper<F>>,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The receivers of each reading.
    pub readers: Vec<Recipient<LeasesRead>>,
}

/// The actor that keeps leases.
pub struct PortMapping<F: Finder> {
    keeper: Rc<Keeper<F>>,
    clock: Clock,
    readers: Vec<Recipient<LeasesRead>>,
    schedule: Schedule,
    /// The last reason that was logged.
    logged: Option<MissingLease>,
}

/// What the delay before the next round depends on.
#[derive(Clone, Copy, Debug, Default)]
struct Schedule {
    has_mapped: bool,
    /// Number of rounds since the start, or since the last one with a lease.
    empty_rounds: u32,
}

impl<F: Finder> PortMapping<F> {
    /// Builds the actor. The shutdown has the same `keeper`, to call [`Keeper::release`].
    pub fn new(deps: PortMappingDeps<F>) -> Self {
        let PortMappingDeps {
            keeper,
            store,
            readers,
        } = deps;
        Self {
            keeper,
            clock: store.clock,
            readers,
            schedule: Schedule::default(),
            logged: None,
        }
    }

    /// Runs a round, reports the leases, and schedules the next round.
    fn run_round(&mut self, ctx: &mut Context<Self>) {
        let keeper = Rc::clone(&self.keeper);
        let now = self.clock.now();
        let round = async move { keeper.update_mappings(now).await };
        ctx.spawn(round.into_actor(self).map(|round, actor, ctx| {
            let now = actor.clock.now();
            let delay = actor.schedule.next_round_delay(&round, now);
            let missing = round.failure.as_ref().map(describe);
            actor.log_change(missing.as_ref());
            let reading = LeasesRead {
                at: now,
                leases: round.leases,
                missing,
            };
            actor
                .readers
                .iter()
                .for_each(|reader| offer(reader, reading.clone()));
            ctx.run_later(delay, Self::run_round);
        }));
    }

    /// Logs why a port has no lease, when the kind of the reason changes. Many hosts need no mapping, and have no such gateway.
    fn log_change(&mut self, missing: Option<&MissingLease>) {
        use crate::messages::MissingReason as R;
        let kind = |missing: &MissingLease| missing.reason;
        if missing.map(kind) == self.logged.as_ref().map(kind) {
            return;
        }
        match missing {
            Some(missing)
                if matches!(missing.reason, R::NotNeeded | R::NoGateway | R::NoAnswer) =>
            {
                tracing::info!(reason = missing.text, "no port is mapped on the router");
            }
            Some(missing) => tracing::warn!(
                reason = missing.text,
                "the router maps no port to this host, or not all; see warren status"
            ),
            None => tracing::info!("the router maps all ports to this host"),
        }
        self.logged = missing.cloned();
    }
}

impl<F: Finder> Actor for PortMapping<F> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.run_round(ctx);
    }
}

fn describe(error: &LeaseError) -> MissingLease {
    MissingLease {
        reason: error.reason(),
        text: Chain(error).to_string(),
    }
}

impl Schedule {
    /// Returns the delay between this round and the next one.
    fn next_round_delay(&mut self, round: &Round, now: Uptime) -> Duration {
        if round.leases.is_empty() {
            self.empty_rounds = self.empty_rounds.saturating_add(1);
        } else {
            (self.has_mapped, self.empty_rounds) = (true, 0);
        }
        let max_empty_rounds = if self.has_mapped {
            ROUNDS_AFTER_LOSS
        } else {
            EARLY_ROUNDS
        };
        if self.empty_rounds > max_empty_rounds {
            return RETRY_DELAY;
        }
        let remaining = round.leases.iter().map(|lease| lease.until.since(now));
        remaining.min().map_or(ROUND_INTERVAL, |shortest| {
            (shortest / 2).clamp(MIN_ROUND_INTERVAL, ROUND_INTERVAL)
        })
    }
}

#[cfg(test)]
mod random_sequences;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Lease;
    use policies::names::Transport;

    /// Checks the delay after a round with leases of these remaining times.
    #[track_caller]
    fn check(schedule: &mut Schedule, remaining_s: &[u64], expected_s: u64) {
        let lease = |remaining_s: &u64| Lease {
            transport: Transport::Udp,
            internal_port: 1194,
            external: "45.67.0.1:1194".parse().unwrap(),
            until: Uptime::from_secs(100 + remaining_s),
        };
        let round = Round {
            leases: remaining_s.iter().map(lease).collect(),
            failure: None,
        };
        let delay = schedule.next_round_delay(&round, Uptime::from_secs(100));
        assert_eq!(delay, Duration::from_secs(expected_s));
    }

    #[test]
    fn rounds_follow_each_other_three_times_a_minute_or_at_half_of_the_shortest_lease() {
        let mut schedule = Schedule::default();
        check(&mut schedule, &[3600, 3600], 20);
        check(&mut schedule, &[3600, 24], 12);
        check(&mut schedule, &[1], 10);
        // The gateway is away, and may be back at any moment.
        for _ in 0..15 {
            check(&mut schedule, &[], 20);
        }
        // The host has moved to a network without such a gateway.
        check(&mut schedule, &[], 120);
        check(&mut schedule, &[3600], 20);
        check(&mut schedule, &[], 20);
    }

    #[test]
    fn where_no_gateway_maps_ports_the_search_becomes_rare() {
        let mut schedule = Schedule::default();
        for expected_s in [20, 20, 20, 120, 120] {
            check(&mut schedule, &[], expected_s);
        }
    }
}
