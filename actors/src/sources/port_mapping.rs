//! Keeps port mappings on the host's gateway, and reports which ones exist.
//!
//! The work of a round is in [`keeper`]; this actor only decides when. A network without such a
//! gateway is ordinary: it is tried again every few minutes, without a warning.

pub mod gateway;
pub mod keeper;
pub mod ledger;

use crate::messages::{Lease, LeasesRead, offer};
use crate::store::Store;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Recipient, WrapFuture};
use gateway::Finder;
use keeper::Keeper;
use os::clock::Clock;
use policies::units::Uptime;
use std::{rc::Rc, time::Duration};
use wire::errors::Chain;

/// Interval between two readings of the gateway's table, which it loses when it restarts.
const LOOK: Duration = Duration::from_secs(300);
/// Shorter leases than twice this are lost.
const SOONEST: Duration = Duration::from_secs(10);
/// How long to wait where there was no gateway or it refused.
const RETRY: Duration = Duration::from_secs(120);

/// The dependencies of the port mapping actor.
#[derive(Clone)]
pub struct PortMappingDeps<F> {
    /// The leases, which outlive the actor.
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
    to: Vec<Recipient<LeasesRead>>,
}

impl<F: Finder> PortMapping<F> {
    /// Builds the actor; the shutdown shares `keeper`, to call [`Keeper::release`].
    pub fn new(deps: PortMappingDeps<F>) -> Self {
        let PortMappingDeps {
            keeper,
            store,
            readers: to,
        } = deps;
        let clock = store.clock;

        Self { keeper, clock, to }
    }

    fn round(&mut self, ctx: &mut Context<Self>) {
        let keeper = Rc::clone(&self.keeper);
        let now = self.clock.now();
        let round = async move { keeper.round(now).await };
        ctx.spawn(round.into_actor(self).map(|result, upnp, ctx| {
            let (leases, wait) = match result {
                Ok(leases) => {
                    let wait = next_look(&leases, upnp.clock.now());
                    (leases, wait)
                }
                Err(error) => {
                    tracing::debug!(error = %Chain(&error), "no port mapping");
                    (Vec::new(), RETRY)
                }
            };
            let reading = LeasesRead {
                at: upnp.clock.now(),
                leases,
            };
            upnp.to.iter().for_each(|to| offer(to, reading.clone()));
            ctx.run_later(wait, Self::round);
        }));
    }
}

impl<F: Finder> Actor for PortMapping<F> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.round(ctx);
    }
}

/// At half of the shortest lease, but not too often and not too seldom.
fn next_look(leases: &[Lease], now: Uptime) -> Duration {
    let lefts = leases.iter().map(|lease| lease.until.since(now));
    lefts
        .min()
        .map_or(LOOK, |left| (left / 2).clamp(SOONEST, LOOK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::names::Transport;

    #[track_caller]
    fn check(lefts_s: &[u64], expected_s: u64) {
        let lease = |left: &u64| Lease {
            transport: Transport::Udp,
            internal_port: 1194,
            external: "45.67.0.1:1194".parse().unwrap(),
            until: Uptime::from_secs(100 + left),
        };
        let leases: Vec<_> = lefts_s.iter().map(lease).collect();
        assert_eq!(
            next_look(&leases, Uptime::from_secs(100)),
            Duration::from_secs(expected_s)
        );
    }

    #[test]
    fn a_gateway_that_shortens_leases_is_asked_sooner() {
        check(&[], 300);
        check(&[3600, 3600], 300);
        check(&[3600, 120], 60);
        check(&[1], 10);
    }
}
