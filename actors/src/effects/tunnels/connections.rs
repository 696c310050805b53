//! The OpenVPN processes and the state that outlive the tunnels actor.

use super::*;

/// All OpenVPN processes of this node. A restarted tunnels actor continues with them.
#[derive(Clone, Default)]
pub struct Connections(pub(super) Rc<RefCell<Processes>>);

#[derive(Default)]
pub(super) struct Processes {
    pub(super) servers: BTreeMap<Transport, Server>,
    pub(super) dials: BTreeMap<Slot, Dial>,
    /// Number of starts and exits of clients whose tunnel has closed.
    pub(super) closed_clients: (u64, Exits),
    pub(super) revocation: Revocation,
    pub(super) rolling_restart: RollingRestart,
    pub(super) overdue: OverdueTunnels,
    /// The tunnels that an earlier program has handed over, until the actor has started.
    pub(super) handed: Option<HandedTunnels>,
    /// Whether the tunnels are about to be handed to another program.
    pub(super) is_handing_over: bool,
    /// Whether the shutdown has stopped all processes, so that a restarted actor starts none.
    pub(super) are_stopped: bool,
}

impl Connections {
    /// Returns the state of each process, sorted by name.
    pub fn readings(&self) -> Vec<ProcessReading> {
        let processes = self.0.borrow();
        let Processes {
            servers,
            dials,
            rolling_restart,
            ..
        } = &*processes;
        let server = |server: &Server| ProcessReading {
            stale: rolling_restart.is_server_outdated(server.started_at()),
            ..server.reading()
        };
        let dial = |dial: &Dial| ProcessReading {
            stale: rolling_restart.is_dial_outdated(dial.started_at()),
            ..dial.reading()
        };
        let mut readings: Vec<_> = servers.values().map(server).collect();
        readings.extend(dials.values().map(dial));
        readings.sort_by(|a, b| a.name.cmp(&b.name));
        readings
    }

    /// Returns how often the clients whose tunnel has closed had started and exited.
    pub fn closed_clients(&self) -> (u64, Exits) {
        self.0.borrow().closed_clients
    }

    /// Returns whether all processes have exited.
    pub fn have_all_exited(&self) -> bool {
        self.readings().iter().all(|process| process.pid.is_none())
    }
}
