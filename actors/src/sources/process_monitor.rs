//! Tells now and then how all child processes do.

use crate::messages::{ProcessesRead, offer};
use actix::{Actor, AsyncContext, Context, Recipient};
use os::{clock::Clock, process::ProcessReading};
use std::{rc::Rc, time::Duration};

/// How often.
const PERIOD: Duration = Duration::from_secs(2);

/// The actor.
pub struct ProcessMonitor {
    clock: Clock,
    call: Rc<dyn Fn() -> Vec<ProcessReading>>,
    to: Recipient<ProcessesRead>,
}

impl ProcessMonitor {
    /// `call` reads all processes from the store.
    pub fn new(
        clock: Clock,
        call: Rc<dyn Fn() -> Vec<ProcessReading>>,
        to: Recipient<ProcessesRead>,
    ) -> Self {
        Self { clock, call, to }
    }

    fn tell(&self) {
        offer(
            &self.to,
            ProcessesRead {
                at: self.clock.now(),
                processes: (self.call)(),
            },
        );
    }
}

impl Actor for ProcessMonitor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(PERIOD, |roll, _| roll.tell());
    }
}
