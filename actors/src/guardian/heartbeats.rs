//! When each guarded actor last showed that it runs, for the answer to systemd's watchdog.
//!
//! The heartbeat comes from the context of the actor itself, which handles nothing else while a handler blocks or the
//! actor waits for a future.

use actix::{Actor, AsyncContext, Context};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Interval between two heartbeats of an actor.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// The last heartbeat of each actor.
static LAST: Mutex<BTreeMap<&'static str, Instant>> = Mutex::new(BTreeMap::new());

/// Records the heartbeats of the actor with this context.
pub(super) fn record_in<A: Actor<Context = Context<A>>>(name: &'static str, ctx: &mut Context<A>) {
    record(name);
    ctx.run_interval(INTERVAL, move |_, _| record(name));
}

fn record(name: &'static str) {
    LAST.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(name, os::clock::runtime_now());
}

/// Returns the names of the actors that have shown no heartbeat for longer than `limit`.
pub fn silent_actors(limit: Duration) -> Vec<&'static str> {
    let now = os::clock::runtime_now();
    let last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    last.iter()
        .filter(|(_, at)| now.duration_since(**at) > limit)
        .map(|(name, _)| *name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guardian::guard;
    use actix::fut::wrap_future;

    /// An actor that handles nothing any more from its start, if it is configured so.
    struct FakeActor {
        waits_forever: bool,
    }

    impl Actor for FakeActor {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Self::Context) {
            if self.waits_forever {
                ctx.wait(wrap_future(std::future::pending()));
            }
        }
    }

    #[actix::test]
    async fn an_actor_that_waits_forever_is_silent_and_one_that_runs_is_not() {
        tokio::time::pause();
        let build = |waits_forever| FakeActor { waits_forever };
        let _running = guard("test_running", None, false, build);
        let _waiting = guard("test_waiting", None, true, build);
        for _ in 0..30 {
            tokio::time::advance(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
        }
        let silent = silent_actors(Duration::from_secs(20));
        assert!(silent.contains(&"test_waiting"), "{silent:?}");
        assert!(!silent.contains(&"test_running"), "{silent:?}");
    }
}
