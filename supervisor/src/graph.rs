//! The running actors, as the rest of the supervisor knows them.

use crate::actor_settings::LeaseKeeper;
use actix::Recipient;
use actors::{
    effects::{
        link_orders::LinkOrderQueue,
        tunnels::{Connections, DrainAll, StopAll},
    },
    messages::SettingsChanged,
    operator::OperatorOrdered,
    sources::{
        babeld::{BabeldProcess, StopBabeld},
        pinholes::keeper::PinholeKeeper,
    },
    store::Store,
};
use os::process::{ChildEvents, ProcessReading};
use std::rc::Rc;

/// What the shutdown, a restart in place and the service manager need of the running actors.
pub struct Graph {
    pub(crate) store: Store,
    pub(crate) connections: Connections,
    pub(crate) babeld_process: BabeldProcess,
    pub(crate) links: LinkOrderQueue,
    /// The queues of the events of OpenVPN and of babeld.
    pub(crate) events: [ChildEvents; 2],
    pub(crate) leases: Option<Rc<LeaseKeeper>>,
    /// The keeper of pinholes, if there is one.
    pub(crate) pinholes: Option<Rc<PinholeKeeper>>,
    pub(crate) drain_all: Recipient<DrainAll>,
    pub(crate) stop_all: Recipient<StopAll>,
    pub(crate) stop_babeld: Recipient<StopBabeld>,
    /// The actors that act at once when the configuration is reloaded.
    pub(crate) settings_readers: Vec<Recipient<SettingsChanged>>,
    /// The actor that carries out the orders of an operator.
    pub(crate) operator_reader: Recipient<OperatorOrdered>,
}

impl Graph {
    /// Returns a reading of babeld and of all OpenVPN processes.
    pub(crate) fn processes(&self) -> Vec<ProcessReading> {
        let mut processes = self.connections.readings();
        processes.extend(self.babeld_process.reading());
        processes
    }
}
