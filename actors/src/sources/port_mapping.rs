//! Keeps port mappings on the host's gateway, and reports which ones exist.
//!
//! This actor schedules the rounds; [`keeper`] carries them out. Many networks have no such gateway, so a failed round is
//! repeated every few minutes without a warning.

pub mod gateway;
pub mod keeper;
pub mod ledger;

use crate::messages::{Lease, LeasesRead, offer};
use crate::store::Store;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Recipient, WrapFuture};
use gateway::{Finder, GatewayError};
use keeper::{Keeper, LeaseError};
use os::clock::Clock;
use policies::units::Uptime;
use std::{rc::Rc, time::Duration};
use wire::errors::Chain;

/// Maximum interval between two rounds. The gateway's table is read in each, since a gateway loses it when it restarts.
const MAX_ROUND_INTERVAL: Duration = Duration::from_secs(300);
/// Minimum interval between two rounds. Leases shorter than twice this expire before renewal.
const MIN_ROUND_INTERVAL: Duration = Duration::from_secs(10);
/// Delay before the next round if there is no gateway, or if it rejected the requests.
const RETRY_DELAY: Duration = Duration::from_secs(120);

/// The dependencies of the port mapping actor.
#[derive(Clone)]
pub struct PortMappingDeps<F> {
    /// The keeper of the leases, which outlives the actor.
    pub keeper: Rc<Keeper<F>>,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The receivers of each reading.
    pub readers: Vec<Recipient<LeasesRead>>,
}

/// The actor that keeps leases.
pub struct PortMapping<F> {
    keeper: Rc<Keeper<F>>,
    clock: Clock,
    readers: Vec<Recipient<LeasesRead>>,
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
        }
    }

    /// Runs a round, reports the leases, and schedules the next round.
    fn run_round(&mut self, ctx: &mut Context<Self>) {
        let keeper = Rc::clone(&self.keeper);
        let now = self.clock.now();
        let round = async move { keeper.update_mappings(now).await };
        ctx.spawn(round.into_actor(self).map(|result, actor, ctx| {
            let delay = next_round_delay(&result, actor.clock.now());
            if let Err(error) = &result {
                tracing::debug!(error = %Chain(error), "no port mapping");
            }
            let reading = LeasesRead {
                at: actor.clock.now(),
                rejection: result.as_ref().err().and_then(rejection),
                leases: result.unwrap_or_default(),
            };
            actor
                .readers
                .iter()
                .for_each(|reader| offer(reader, reading.clone()));
            ctx.run_later(delay, Self::run_round);
        }));
    }
}

impl<F: Finder> Actor for PortMapping<F> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.run_round(ctx);
    }
}

/// Returns why the gateway mapped no port; `None` if no gateway that maps ports was found.
fn rejection(error: &LeaseError) -> Option<String> {
    match error {
        LeaseError::Gateway(
            GatewayError::NoDefaultRoute
            | GatewayError::Routes(_)
            | GatewayError::Search { .. }
            | GatewayError::OtherDevice { .. },
        ) => None,
        LeaseError::Gateway(_)
        | LeaseError::NotRoutable { .. }
        | LeaseError::NoPort { .. }
        | LeaseError::Ledger(_) => Some(Chain(error).to_string()),
    }
}

/// Returns the delay between a round and the next one: half of the shortest remaining lease, within the limits above.
fn next_round_delay(round: &Result<Vec<Lease>, LeaseError>, now: Uptime) -> Duration {
    let Ok(leases) = round else {
        return RETRY_DELAY;
    };
    let remaining = leases.iter().map(|lease| lease.until.since(now));
    remaining.min().map_or(MAX_ROUND_INTERVAL, |shortest| {
        (shortest / 2).clamp(MIN_ROUND_INTERVAL, MAX_ROUND_INTERVAL)
    })
}

#[cfg(test)]
mod random_sequences;

#[cfg(test)]
mod tests {
    use super::*;
    use policies::names::Transport;

    #[track_caller]
    fn check(remaining_s: &[u64], expected_s: u64) {
        let lease = |remaining_s: &u64| Lease {
            transport: Transport::Udp,
            internal_port: 1194,
            external: "45.67.0.1:1194".parse().unwrap(),
            until: Uptime::from_secs(100 + remaining_s),
        };
        let leases = remaining_s.iter().map(lease).collect();
        assert_eq!(
            next_round_delay(&Ok(leases), Uptime::from_secs(100)),
            Duration::from_secs(expected_s)
        );
    }

    #[test]
    fn the_next_round_starts_after_half_of_the_shortest_lease_within_limits() {
        check(&[], 300);
        check(&[3600, 3600], 300);
        check(&[3600, 120], 60);
        check(&[1], 10);
        let failed = Err(LeaseError::NotRoutable { address: None });
        assert_eq!(
            next_round_delay(&failed, Uptime::from_secs(100)),
            RETRY_DELAY
        );
    }
}
