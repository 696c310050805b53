//! Keeps the router's firewall open for the IPv6 endpoints of this node, and reports where it is.
//!
//! Where there is no NAT, a router mostly drops what it did not expect all the same. This actor schedules the rounds; [`keeper`] carries
//! them out.

pub mod firewall;
pub mod keeper;

use crate::{mailboxes::offer, messages::PinholesRead, store::Store};
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
    /// Whether the last round left a port closed, and that was logged.
    is_failing: bool,
}

impl Pinholes {
    /// Builds the actor. The shutdown has the same `keeper`, to call [`PinholeKeeper::release`].
    pub fn new(deps: PinholeDeps) -> Self {
        Self {
            keeper: deps.keeper,
            clock: deps.store.clock,
            readers: deps.readers,
            empty_rounds: 0,
            is_failing: false,
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
            failure: round.failure,
        };
        actor
            .readers
            .iter()
            .for_each(|reader| offer(reader, reading.clone()));
        ctx.run_later(delay, Self::run_round);
    }

    /// Logs when ports become open or closed. Many hosts have no such router, which is no fault.
    fn log_change(&mut self, round: &Round) {
        let is_failing = round.failure.is_some();
        if is_failing == self.is_failing {
            return;
        }
        self.is_failing = is_failing;
        match &round.failure {
            Some(reason) => {
                tracing::info!(
                    reason,
                    "the router opens its firewall for no IPv6 endpoint, or not for all"
                );
            }
            None => tracing::info!("the router has opened its firewall for the IPv6 endpoints"),
        }
    }
}

impl Actor for Pinholes {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.run_round(ctx);
    }
}
