//! Makes an actor anew after a panic.
//!
//! A guardian has the stable address; what it is sent it passes on to the actor of the day. actix's
//! own `Supervisor` does not come back from a panic: the actor is dropped and its mailbox closed.

use crate::messages::ActorRemade;
use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, Recipient, dev::ToEnvelope};
use std::{collections::VecDeque, time::Duration};

/// How often a guardian looks whether its actor lives.
const LOOK: Duration = Duration::from_millis(250);

/// More than this many restarts within [`BUDGET_SPAN`] ends the daemon (as OTP's intensity).
const BUDGET: usize = 5;

/// See [`BUDGET`].
const BUDGET_SPAN: Duration = Duration::from_secs(60);

/// `EX_SOFTWARE` of sysexits: an actor died more often than its budget allows.
pub const EXIT_OVER_BUDGET: i32 = 70;

/// The stable address of an actor that may die.
pub struct Guardian<A: Actor> {
    name: &'static str,
    make: Box<dyn Fn() -> Addr<A>>,
    actor: Addr<A>,
    remade: Option<Recipient<ActorRemade>>,
    deaths: VecDeque<tokio::time::Instant>,
}

/// Starts an actor under a guardian; `remade` hears of each restart.
pub fn guard<A: Actor<Context = Context<A>>>(
    name: &'static str,
    remade: Option<Recipient<ActorRemade>>,
    make: impl Fn() -> Addr<A> + 'static,
) -> Addr<Guardian<A>> {
    let actor = make();
    Guardian { name, make: Box::new(make), actor, remade, deaths: VecDeque::new() }.start()
}

impl<A: Actor> Guardian<A> {
    fn look(&mut self, ctx: &mut Context<Self>) {
        if self.actor.connected() {
            return;
        }
        let now = tokio::time::Instant::now();
        self.deaths.push_back(now);
        self.deaths.retain(|death| now.duration_since(*death) < BUDGET_SPAN);
        if self.deaths.len() > BUDGET {
            tracing::error!(
                actor = self.name,
                deaths = self.deaths.len(),
                "actor keeps dying; the daemon ends"
            );
            ctx.stop();
            return actix::System::current().stop_with_code(EXIT_OVER_BUDGET);
        }
        tracing::error!(actor = self.name, "actor died and is made anew");
        self.actor = (self.make)();
        if let Some(remade) = &self.remade {
            remade.do_send(ActorRemade { actor: self.name });
        }
    }
}

impl<A: Actor> Actor for Guardian<A> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOOK, Self::look);
    }
}

impl<A, M> Handler<M> for Guardian<A>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message<Result = ()> + Send + 'static,
{
    type Result = ();

    fn handle(&mut self, message: M, _: &mut Self::Context) {
        // A mailbox of the actor bounds readings at the guardian's own; orders always pass.
        self.actor.do_send(message);
    }
}
