//! Keeps the copies of babeld's routes: follows at once what is added, and a moment later what is
//! deleted.
//!
//! Why there are copies stands at [`crate::kernel::Kernel::shadow`].

use crate::{
    errors::Chain,
    kernel::{Destination, Kernel, KernelError, RouteChange},
};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, StreamHandler, WrapFuture};
use std::{collections::BTreeMap, time::Duration};

/// babeld adds the next way 1 to 20 ms after it deleted the last (measured, busy machine); whoever has
/// no way after this long has none.
const GRACE: Duration = Duration::from_millis(300);

/// The actor.
pub struct Shadow {
    kernel: Kernel,
    /// How often each destination changed: a deletion counts only if nothing came after it.
    turns: BTreeMap<Destination, u64>,
}

impl Shadow {
    /// Follows babeld's table in `kernel`.
    pub fn new(kernel: Kernel) -> Self {
        Self { kernel, turns: BTreeMap::new() }
    }

    fn turn(&mut self, to: Destination) -> u64 {
        let turn = self.turns.entry(to).or_default();
        *turn = turn.wrapping_add(1);
        *turn
    }

    fn carry_out(
        &self,
        ctx: &mut Context<Self>,
        change: impl Future<Output = Result<(), KernelError>> + 'static,
    ) {
        ctx.spawn(change.into_actor(self).map(|done, _, _| {
            if let Err(error) = done {
                tracing::debug!(error = %Chain(&error), "route not copied");
            }
        }));
    }

    fn forget(&mut self, to: Destination, turn: u64, ctx: &mut Context<Self>) {
        if self.turns.get(&to) == Some(&turn) {
            self.turns.remove(&to);
            let kernel = self.kernel.clone();
            self.carry_out(ctx, async move { kernel.unshadow(to).await });
        }
    }

    fn read_all(&self, ctx: &mut Context<Self>) {
        let kernel = self.kernel.clone();
        self.carry_out(ctx, async move { kernel.shadow_all().await });
    }
}

impl Actor for Shadow {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        match self.kernel.watch_routes() {
            Ok(changes) => drop(ctx.add_stream(changes)),
            Err(error) => tracing::warn!(error = %Chain(&error), "routes are not copied"),
        }
        self.read_all(ctx);
    }
}

impl StreamHandler<RouteChange> for Shadow {
    fn handle(&mut self, change: RouteChange, ctx: &mut Self::Context) {
        match change {
            RouteChange::Added(to, route) => {
                self.turn(to);
                let kernel = self.kernel.clone();
                self.carry_out(ctx, async move { kernel.shadow(*route).await });
            }
            RouteChange::Gone(to) => {
                let turn = self.turn(to);
                ctx.run_later(GRACE, move |shadow, ctx| shadow.forget(to, turn, ctx));
            }
            RouteChange::Lost => self.read_all(ctx),
        }
    }
}
