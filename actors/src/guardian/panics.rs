//! Lets an actor panic on demand, to prove that the daemon bears it. In release builds nobody can.

use actix::{Actor, Addr, AsyncContext, Context, fut::wrap_future};
use std::{
    collections::BTreeSet,
    rc::Rc,
    sync::{Mutex, PoisonError},
};
use tokio::sync::Notify;

/// Actors that shall panic.
static WANTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Whether this build can panic on demand.
pub const AVAILABLE: bool = cfg!(debug_assertions);

/// Wants the actor of that name to panic; its guardian sees to it at its next look.
pub fn want(actor: String) {
    WANTED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(actor);
}

/// One actor's panics.
#[derive(Default)]
pub(super) struct Panics(Rc<Notify>);

impl Panics {
    /// Starts an actor that panics, in its own context, when it shall.
    pub(super) fn start<A: Actor<Context = Context<A>>>(&self, actor: A) -> Addr<A> {
        if !AVAILABLE {
            return actor.start();
        }
        let wanted = Rc::clone(&self.0);
        A::create(|ctx| {
            ctx.spawn(wrap_future(panic_when(wanted)));
            actor
        })
    }

    /// Lets it panic if somebody wants it.
    pub(super) fn look(&self, actor: &str) {
        if AVAILABLE
            && WANTED
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(actor)
        {
            self.0.notify_one();
        }
    }
}

#[expect(clippy::panic, reason = "it is what this is for")]
async fn panic_when(wanted: Rc<Notify>) {
    wanted.notified().await;
    panic!("somebody wanted this actor to panic");
}
