//! Makes an actor panic on demand, so that a test can show that the daemon survives it. Only debug builds can do this.

use actix::{Actor, AsyncContext, Context, fut::wrap_future};
use std::{
    collections::BTreeSet,
    rc::Rc,
    sync::{Mutex, PoisonError},
};
use tokio::sync::Notify;

/// The names of the actors that are to panic.
static REQUESTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Whether this build can panic on demand.
pub const AVAILABLE: bool = cfg!(debug_assertions);

/// Requests a panic of the actor of that name; its guardian triggers it at its next check.
pub fn request_panic(actor: String) {
    REQUESTED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(actor);
}

/// Triggers the panics of one actor.
#[derive(Default)]
pub(super) struct PanicTrigger(Rc<Notify>);

impl PanicTrigger {
    /// Makes the actor of this context panic when this trigger fires.
    pub(super) fn arm<A: Actor<Context = Context<A>>>(&self, ctx: &mut Context<A>) {
        if AVAILABLE {
            ctx.spawn(wrap_future(panic_when_triggered(Rc::clone(&self.0))));
        }
    }

    /// Lets the actor panic if that was requested.
    pub(super) fn fire_if_requested(&self, actor: &str) {
        if AVAILABLE
            && REQUESTED
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(actor)
        {
            self.0.notify_one();
        }
    }
}

#[expect(clippy::panic, reason = "the panic is the purpose")]
async fn panic_when_triggered(trigger: Rc<Notify>) {
    trigger.notified().await;
    panic!("a panic of this actor was requested");
}
