//! Restarts an actor after a panic.
//!
//! A guardian has the stable address, and passes messages on to the present actor. actix's own
//! `Supervisor` does not survive a panic: the actor is dropped and its mailbox closed.

pub mod panics;

use crate::messages::ActorRestarted;
use actix::{
    Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, Recipient, dev::ToEnvelope,
};
use panics::Panics;
use std::{collections::VecDeque, time::Duration};

/// How often a guardian looks whether its actor lives.
const LOOK: Duration = Duration::from_millis(250);

/// More than this many restarts within [`BUDGET_SPAN`] ends the daemon (as OTP's intensity).
const BUDGET: usize = 5;

/// The span in which [`BUDGET`] restarts are allowed.
const BUDGET_SPAN: Duration = Duration::from_secs(60);

/// `EX_SOFTWARE` of sysexits: an actor died more often than its budget allows.
pub const EXIT_OVER_BUDGET: i32 = 70;

/// The stable address of an actor that may die.
pub struct Guardian<A: Actor> {
    name: &'static str,
    make: Box<dyn Fn() -> A>,
    actor: Addr<A>,
    remade: Option<Recipient<ActorRestarted>>,
    deaths: VecDeque<tokio::time::Instant>,
    panics: Panics,
}

/// Starts an actor under a guardian. The actor is built from `deps`, and again from a copy of them
/// after a panic; `restarts` receives each restart.
pub fn guard<A: Actor<Context = Context<A>>, D: Clone + 'static>(
    name: &'static str,
    remade: Option<Recipient<ActorRestarted>>,
    deps: D,
    build: fn(D) -> A,
) -> Addr<Guardian<A>> {
    let make = move || build(deps.clone());
    let panics = Panics::default();
    let actor = panics.start(make());
    Guardian {
        name,
        make: Box::new(make),
        actor,
        remade,
        deaths: VecDeque::new(),
        panics,
    }
    .start()
}

impl<A: Actor<Context = Context<A>>> Guardian<A> {
    fn look(&mut self, ctx: &mut Context<Self>) {
        self.panics.look(self.name);
        if self.actor.connected() {
            return;
        }
        let now = os::clock::runtime_now();
        self.deaths.push_back(now);
        self.deaths
            .retain(|death| now.duration_since(*death) < BUDGET_SPAN);
        if self.deaths.len() > BUDGET {
            tracing::error!(
                actor = self.name,
                deaths = self.deaths.len(),
                "actor keeps dying; the daemon ends"
            );
            ctx.stop();
            return actix::System::current().stop_with_code(EXIT_OVER_BUDGET);
        }
        tracing::error!(actor = self.name, "actor panicked and was restarted");
        self.actor = self.panics.start((self.make)());
        if let Some(remade) = &self.remade {
            remade.do_send(ActorRestarted { actor: self.name });
        }
    }
}

impl<A: Actor<Context = Context<A>>> Actor for Guardian<A> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, rc::Rc};
    use tokio::sync::mpsc;

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Die;

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Say(u32);

    /// Repeats the numbers that it receives, or panics.
    struct FakeParrot(mpsc::UnboundedSender<u32>);

    impl Actor for FakeParrot {
        type Context = Context<Self>;
    }

    impl Handler<Die> for FakeParrot {
        type Result = ();

        fn handle(&mut self, _: Die, _: &mut Self::Context) {
            panic!("asked to");
        }
    }

    impl Handler<Say> for FakeParrot {
        type Result = ();

        fn handle(&mut self, say: Say, _: &mut Self::Context) {
            self.0.send(say.0).unwrap();
        }
    }

    /// A fake telemetry, which records restarts.
    struct FakeTelemetry(Rc<RefCell<Vec<&'static str>>>);

    impl Actor for FakeTelemetry {
        type Context = Context<Self>;
    }

    impl Handler<ActorRestarted> for FakeTelemetry {
        type Result = ();

        fn handle(&mut self, remade: ActorRestarted, _: &mut Self::Context) {
            self.0.borrow_mut().push(remade.actor);
        }
    }

    #[actix::test]
    async fn an_actor_that_panicked_is_restarted_within_a_second_and_the_restart_is_reported() {
        tokio::time::pause();
        let (word, mut words) = mpsc::unbounded_channel();
        let remade = Rc::new(RefCell::new(Vec::new()));
        let telemetry = FakeTelemetry(remade.clone()).start();
        let parrot = guard("parrot", Some(telemetry.recipient()), word, FakeParrot);
        parrot.send(Say(1)).await.unwrap();
        assert_eq!(words.recv().await, Some(1));
        parrot.send(Die).await.unwrap();
        tokio::time::advance(Duration::from_millis(999)).await;
        tokio::task::yield_now().await;
        parrot.send(Say(2)).await.unwrap();
        assert_eq!(words.recv().await, Some(2));
        assert_eq!(*remade.borrow(), ["parrot"]);
    }

    #[test]
    fn an_actor_that_keeps_dying_ends_the_daemon() {
        let system = actix::System::new();
        system.block_on(async {
            tokio::time::pause();
            let (word, _heard) = mpsc::unbounded_channel();
            let parrot = guard("parrot", None, word, FakeParrot);
            actix_rt::spawn(async move {
                let mut looks = tokio::time::interval(LOOK);
                loop {
                    looks.tick().await;
                    parrot.do_send(Die);
                }
            });
        });
        assert_eq!(system.run_with_code().unwrap(), EXIT_OVER_BUDGET);
    }
}
