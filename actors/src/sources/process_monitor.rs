//! Reports periodically which child processes run and are ready.

use crate::{
    effects::tunnels::Connections,
    messages::{ProcessesRead, offer},
    sources::babeld::RoutingProcess,
    store::Store,
};
use actix::{Actor, AsyncContext, Context, Recipient};
use std::time::Duration;

/// Interval between two readings.
const PERIOD: Duration = Duration::from_secs(2);

/// The dependencies of the process monitor.
#[derive(Clone)]
pub struct ProcessMonitorDeps {
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The process of babeld.
    pub babeld: RoutingProcess,
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
    /// Reports what these processes do.
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
        ctx.run_interval(PERIOD, |monitor, _| monitor.report());
    }
}
