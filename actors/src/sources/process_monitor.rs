//! Periodically reports the state of the child processes.

use crate::{
    effects::tunnels::Connections,
    messages::{ProcessesRead, offer},
    sources::babeld::BabeldProcess,
    store::Store,
};
use actix::{Actor, AsyncContext, Context, Recipient};
use std::time::Duration;

/// Interval between two readings.
const READ_INTERVAL: Duration = Duration::from_secs(2);

/// The dependencies of the process monitor.
#[derive(Clone)]
pub struct ProcessMonitorDeps {
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The process of babeld.
    pub babeld: BabeldProcess,
    /// The processes of OpenVPN.
    pub connections: Connections,
    /// The receiver of each reading.
    pub reader: Recipient<ProcessesRead>,
}

/// The actor that reports on processes.
pub struct ProcessMonitor {
    deps: ProcessMonitorDeps,
}

impl ProcessMonitor {
    /// Builds the actor; its first reading follows one interval after the start.
    pub fn new(deps: ProcessMonitorDeps) -> Self {
        Self { deps }
    }

    fn report(&self) {
        let mut processes = self.deps.connections.readings();
        processes.splice(0..0, self.deps.babeld.reading());
        let at = self.deps.store.clock.now();
        offer(&self.deps.reader, ProcessesRead { at, processes });
    }
}

impl Actor for ProcessMonitor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(READ_INTERVAL, |monitor, _| monitor.report());
    }
}
