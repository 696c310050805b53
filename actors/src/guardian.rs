//! Restarts an actor after a panic.
//!
//! A guardian is an actor with a stable address, which forwards messages to the current instance of the
//! actor it guards. actix's own `Supervisor` does not help after a panic: the actor is dropped and its
//! mailbox closed.

pub mod heartbeats;
pub mod panics;

use crate::{mailboxes, messages::ActorRestarted};
use actix::{
    Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, Recipient, dev::ToEnvelope,
};
use panics::PanicTrigger;
use std::{collections::VecDeque, time::Duration};

/// Interval at which a guardian checks whether its actor still runs.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Maximum number of restarts of one actor within [`RESTART_WINDOW`]; one more stops the daemon, as in
/// a supervisor of Erlang/OTP (its option `intensity`).
const MAX_RESTARTS: usize = 5;

/// The window in which restarts are counted; OTP's option `period`.
const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// Exit code of the daemon if an actor panicked too often: `EX_SOFTWARE` of sysexits.h.
pub const EXIT_TOO_MANY_RESTARTS: i32 = 70;

/// Guards one actor: forwards messages to it, and restarts it after a panic.
pub struct Guardian<A: Actor> {
    name: &'static str,
    build: Box<dyn Fn() -> A>,
    actor: Addr<A>,
    restart_reader: Option<Recipient<ActorRestarted>>,
    /// When the actor panicked within the last [`RESTART_WINDOW`].
    panicked_at: VecDeque<tokio::time::Instant>,
    on_demand: PanicTrigger,
}

/// Starts an actor under a guardian, which builds it from `deps`, and again from a copy of them after
/// a panic. `restart_reader` receives a message about each restart.
pub fn guard<A: Actor<Context = Context<A>>, D: Clone + 'static>(
    name: &'static str,
    restart_reader: Option<Recipient<ActorRestarted>>,
    deps: D,
    build: fn(D) -> A,
) -> Addr<Guardian<A>> {
    let build = move || build(deps.clone());
    let on_demand = PanicTrigger::default();
    let actor = start(name, &on_demand, build());
    let guardian = Guardian {
        name,
        build: Box::new(build),
        actor,
        restart_reader,
        panicked_at: VecDeque::new(),
        on_demand,
    }
    .start();
    mailboxes::register(name, &guardian);
    guardian
}

/// Starts an actor that reports, from its own context, that it runs, and that can be made to panic.
fn start<A: Actor<Context = Context<A>>>(
    name: &'static str,
    on_demand: &PanicTrigger,
    actor: A,
) -> Addr<A> {
    A::create(|ctx| {
        heartbeats::record_in(name, ctx);
        on_demand.arm(ctx);
        actor
    })
}

impl<A: Actor<Context = Context<A>>> Guardian<A> {
    fn restart_if_panicked(&mut self, ctx: &mut Context<Self>) {
        if self.actor.connected() {
            return;
        }
        let now = os::clock::runtime_now();
        self.panicked_at.push_back(now);
        self.panicked_at
            .retain(|panicked_at| now.duration_since(*panicked_at) < RESTART_WINDOW);
        if self.panicked_at.len() > MAX_RESTARTS {
            tracing::error!(
                actor = self.name,
                panics = self.panicked_at.len(),
                "actor panicked too often within a minute; the daemon exits"
            );
            ctx.stop();
            return actix::System::current().stop_with_code(EXIT_TOO_MANY_RESTARTS);
        }
        tracing::error!(actor = self.name, "actor panicked and was restarted");
        self.actor = start(self.name, &self.on_demand, (self.build)());
        if let Some(reader) = &self.restart_reader {
            reader.do_send(ActorRestarted { actor: self.name });
        }
    }
}

impl<A: Actor<Context = Context<A>>> Actor for Guardian<A> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(CHECK_INTERVAL, |guardian, ctx| {
            guardian.on_demand.fire_if_requested(guardian.name);
            guardian.restart_if_panicked(ctx);
        });
    }
}

impl<A, M> Handler<M> for Guardian<A>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message<Result = ()> + Send + 'static,
{
    type Result = ();

    fn handle(&mut self, message: M, ctx: &mut Self::Context) {
        // What is sent to an actor that has panicked is lost, such as an order of an operator.
        self.restart_if_panicked(ctx);
        // The guardian's own mailbox bounds readings, so forwarding need not.
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
    struct Panic;

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Echo(u32);

    /// Sends back the numbers that it receives, or panics.
    struct FakeEcho(mpsc::UnboundedSender<u32>);

    impl Actor for FakeEcho {
        type Context = Context<Self>;
    }

    impl Handler<Panic> for FakeEcho {
        type Result = ();

        fn handle(&mut self, _: Panic, _: &mut Self::Context) {
            panic!("the test asked for it");
        }
    }

    impl Handler<Echo> for FakeEcho {
        type Result = ();

        fn handle(&mut self, Echo(number): Echo, _: &mut Self::Context) {
            self.0.send(number).unwrap();
        }
    }

    /// A fake telemetry, which records restarts.
    struct FakeTelemetry(Rc<RefCell<Vec<&'static str>>>);

    impl Actor for FakeTelemetry {
        type Context = Context<Self>;
    }

    impl Handler<ActorRestarted> for FakeTelemetry {
        type Result = ();

        fn handle(&mut self, restarted: ActorRestarted, _: &mut Self::Context) {
            self.0.borrow_mut().push(restarted.actor);
        }
    }

    #[actix::test]
    async fn an_actor_that_panicked_is_restarted_within_a_second_and_the_restart_is_reported() {
        tokio::time::pause();
        let (echoes, mut received) = mpsc::unbounded_channel();
        let restarts = Rc::new(RefCell::new(Vec::new()));
        let telemetry = FakeTelemetry(restarts.clone()).start();
        let actor = guard("echo", Some(telemetry.recipient()), echoes, FakeEcho);
        actor.send(Echo(1)).await.unwrap();
        assert_eq!(received.recv().await, Some(1));
        actor.send(Panic).await.unwrap();
        tokio::time::advance(Duration::from_millis(999)).await;
        tokio::task::yield_now().await;
        assert_eq!(*restarts.borrow(), ["echo"]);
        actor.send(Echo(2)).await.unwrap();
        assert_eq!(received.recv().await, Some(2));
    }

    #[actix::test]
    async fn a_message_after_a_panic_is_received_by_the_restarted_actor() {
        tokio::time::pause();
        let (echoes, mut received) = mpsc::unbounded_channel();
        let actor = guard("echo", None, echoes, FakeEcho);
        actor.send(Panic).await.unwrap();
        tokio::task::yield_now().await;
        actor.send(Echo(1)).await.unwrap();
        let echo = tokio::time::timeout(Duration::from_secs(1), received.recv()).await;
        assert_eq!(echo, Ok(Some(1)));
    }

    #[test]
    fn an_actor_that_panics_too_often_stops_the_daemon() {
        let system = actix::System::new();
        system.block_on(async {
            tokio::time::pause();
            let (echoes, _received) = mpsc::unbounded_channel();
            let actor = guard("echo", None, echoes, FakeEcho);
            actix_rt::spawn(async move {
                let mut checks = tokio::time::interval(CHECK_INTERVAL);
                loop {
                    checks.tick().await;
                    actor.do_send(Panic);
                }
            });
        });
        assert_eq!(system.run_with_code().unwrap(), EXIT_TOO_MANY_RESTARTS);
    }
}
