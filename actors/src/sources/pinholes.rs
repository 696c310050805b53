//! Keeps the router's firewall open for the IPv6 endpoints of this node, and reports where it is.
//!
//! Where there is no NAT, a router mostly drops what it did not expect all the same. This actor schedules the rounds; [`keeper`] carries
//! them out.

mod firewall;
pub mod keeper;
mod pcp;
pub mod pinhole;
mod upnp;

use crate::{
    mailboxes::offer,
    messages::{MissingReason, PinholesRead},
    store::Store,
};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Recipient, WrapFuture};
use keeper::{PinholeKeeper, Round};
use os::clock::Clock;
use std::{rc::Rc, time::Duration};

/// Interval between two rounds: an address of the host may change.
const ROUND_INTERVAL: Duration = Duration::from_secs(60);
/// The same while no router opens its firewall.
const RETRY_DELAY: Duration = Duration::from_secs(600);
/// Number of rounds after the start that follow each other at the short interval in any case: a router may start at the same time.
const EARLY_ROUNDS: u32 = 3;

/// The dependencies of the pinholes actor.
#[derive(Clone)]
pub struct PinholeDeps {
    /// The keeper of the pinholes, which outlives the actor.
    pub keeper: Rc<PinholeKeeper>,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The receivers of each reading.
    pub readers: Vec<Recipient<PinholesRead>>,
}

/// The actor that keeps pinholes.
pub struct Pinholes {
    keeper: Rc<PinholeKeeper>,
    clock: Clock,
    readers: Vec<Recipient<PinholesRead>>,
    empty_rounds: u32,
    /// What was logged last: whether a port is open, and why one is not.
    logged: (bool, Option<MissingReason>),
}

impl Pinholes {
    /// Builds the actor. The shutdown has the same `keeper`, to call [`PinholeKeeper::release`].
    pub fn new(deps: PinholeDeps) -> Self {
        Self {
            keeper: deps.keeper,
            clock: deps.store.clock,
            readers: deps.readers,
            empty_rounds: 0,
            logged: (false, None),
        }
    }

    fn run_round(&mut self, ctx: &mut Context<Self>) {
        let (keeper, now) = (Rc::clone(&self.keeper), self.clock.now());
        let round = async move { keeper.update(now).await };
        ctx.spawn(round.into_actor(self).map(Self::handle_round));
    }

    fn handle_round(round: Round, actor: &mut Self, ctx: &mut Context<Self>) {
        actor.log_change(&round);
        actor.empty_rounds = match round.pinholes.is_empty() {
            true => actor.empty_rounds.saturating_add(1),
            false => 0,
        };
        let delay = match actor.empty_rounds > EARLY_ROUNDS {
            true => RETRY_DELAY,
            false => ROUND_INTERVAL,
        };
        let reading = PinholesRead {
            pinholes: round.pinholes,
            missing: round.missing,
        };
        actor
            .readers
            .iter()
            .for_each(|reader| offer(reader, reading.clone()));
        ctx.run_later(delay, Self::run_round);
    }

    /// Logs when ports become open or closed. Many hosts have no such router, which is no fault.
    fn log_change(&mut self, round: &Round) {
        let is_open = !round.pinholes.is_empty();
        let state = (
            is_open,
            round.missing.as_ref().map(|missing| missing.reason),
        );
        if state == self.logged {
            return;
        }
        self.logged = state;
        match &round.missing {
            Some(missing) if missing.reason == MissingReason::NotNeeded => {
                tracing::info!(reason = missing.text, "no firewall is opened for IPv6");
            }
            Some(missing) => tracing::warn!(
                reason = missing.text,
                "the router opens its firewall for no IPv6 endpoint, or not for all; see warren status"
            ),
            None if is_open => {
                tracing::info!("the router has opened its firewall for the IPv6 endpoints");
            }
            None => tracing::info!("the router opens its firewall for no IPv6 endpoint any more"),
        }
    }
}

impl Actor for Pinholes {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.run_round(ctx);
    }
}
