//! Hands the OpenVPN processes and their tunnels to the program that replaces this one, and takes them over at its start.

use super::*;
use os::process::{ChildInput, HandedChild, ReleasedInput, Supervised};
use policies::rolling_restart::FilesChanged;
use wire::{
    errors::Chain,
    handed_state::{
        CoolingSlot, HandedDial, HandedEndpoint, HandedServer, HandedState, HandedTunnel,
        from_millis, to_millis,
    },
};

/// The inputs of released processes, by the name of the process.
pub type ReleasedInputs = BTreeMap<String, ReleasedInput>;

/// A process that was handed over, and how this program goes on with it.
pub type Handed<T> = (T, HandedChild);

/// The tunnels that an earlier program of this process has handed over.
#[derive(Debug, Default)]
pub struct HandedTunnels {
    /// The servers, with their clients.
    pub servers: Vec<Handed<HandedServer>>,
    /// The dialled tunnels.
    pub dials: Vec<Handed<HandedDial>>,
    /// Slots on which no tunnel is opened yet.
    pub cooling_down: Vec<CoolingSlot>,
    /// Whether servers must restart to read new files.
    pub are_servers_outdated: bool,
    /// Whether dialled tunnels must restart to read new files.
    pub are_dials_outdated: bool,
    /// When such processes restart even if they cannot be drained.
    pub restart_by: Option<Uptime>,
    /// Whether a peer has connected to one of the servers.
    pub was_reached: bool,
}

impl HandedTunnels {
    /// Returns the number of tunnels.
    pub fn count(&self) -> usize {
        let clients = self.servers.iter().map(|(server, _)| server.clients.len());
        self.dials.len() + clients.sum::<usize>()
    }
}

/// What the state of a released process is written from.
pub type DescribeProcess<'a> =
    dyn FnMut(&Supervised) -> Option<wire::handed_state::HandedProcess> + 'a;

impl Connections {
    /// The connections of a program that takes over these tunnels; the tunnels actor does it when it starts.
    pub fn taking_over(handed: HandedTunnels) -> Self {
        let processes = Processes {
            handed: Some(handed),
            ..Processes::default()
        };
        Self(Rc::new(RefCell::new(processes)))
    }

    /// Decides whether tunnels are about to be handed over. Meanwhile, no tunnel is dialled, and no drain begins.
    pub fn set_handing_over(&self, is_handing_over: bool) {
        self.0.borrow_mut().is_handing_over = is_handing_over;
    }

    /// Returns what is to be waited for before the tunnels can be handed over; `None` if all processes are ready, and no tunnel
    /// opens, drains or closes. A client that is about to connect is no obstacle.
    pub fn obstacle(&self, tunnels: &BTreeMap<Slot, TunnelReading>) -> Option<String> {
        let processes = self.0.borrow();
        let server = processes.servers.iter().find(|(_, is)| !is.is_settled());
        if let Some((transport, _)) = server {
            return Some(format!("the {transport} server is not ready"));
        }
        if !processes.revocation.is_completed() {
            return Some("a revoked node is shut out".to_owned());
        }
        let is_standing = |tunnel: &TunnelReading| match tunnel.slot {
            Slot::Dialling(_) => {
                let dial = processes.dials.get(&tunnel.slot);
                tunnel.phase == Phase::Up && dial.is_some_and(Dial::is_settled)
            }
            Slot::Accepting(..) => matches!(tunnel.phase, Phase::Up | Phase::Connecting),
        };
        let moving = tunnels.values().find(|tunnel| !is_standing(tunnel));
        if let Some(tunnel) = moving {
            let (slot, phase) = (tunnel.slot, tunnel.phase.label());
            return Some(format!("tunnel {slot} is {phase}"));
        }
        let is_closed = |slot: &&Slot| !tunnels.contains_key(slot);
        let closed = processes.dials.keys().find(is_closed);
        closed.map(|slot| format!("tunnel {slot} closes"))
    }

    /// Stops reading the output of all processes.
    pub fn release(&self) -> Vec<impl Future<Output = (String, Option<ReleasedInput>)> + use<>> {
        let mut processes = self.0.borrow_mut();
        let mut released = Vec::new();
        processes.for_each_process(|process| {
            let (name, input) = (process.reading().name, process.release());
            released.push(async move { (name, input.await) });
        });
        released
    }

    /// Returns whether the output of no process is read any more, and all that was read has been handled.
    pub fn are_released(&self) -> bool {
        let mut are_released = true;
        let mut processes = self.0.borrow_mut();
        processes.for_each_process(|process| are_released &= process.is_released());
        are_released
    }

    /// Returns whether OpenVPN's messages so far are complete, so that none is lost if another program reads on.
    pub fn are_between_messages(&self) -> bool {
        let processes = self.0.borrow();
        let mut servers = processes.servers.values();
        let mut dials = processes.dials.values();
        servers.all(Server::is_between_messages) && dials.all(Dial::is_between_messages)
    }

    /// Reads the output of the released processes again.
    pub fn resume(&self, events: &ChildEvents, inputs: &mut BTreeMap<String, ChildInput>) {
        self.0.borrow_mut().for_each_process(|process| {
            let input = inputs.remove(&process.reading().name);
            resume(process, input, events);
        });
    }

    /// Adds the tunnels and processes to the state that is handed over; `describe` describes a process. Returns `None` if a
    /// process has exited.
    pub fn write_to(
        &self,
        state: &mut HandedState,
        table: &TunnelTable,
        describe: &mut DescribeProcess<'_>,
    ) -> Option<()> {
        let processes = self.0.borrow();
        for server in processes.servers.values() {
            state.servers.push(server.hand_over(table, describe)?);
        }
        for dial in processes.dials.values() {
            state.dials.push(dial.hand_over(table, describe)?);
        }
        let restart = &processes.rolling_restart;
        let is_server_outdated = |is: &Server| restart.is_server_outdated(is.started_at());
        let is_dial_outdated = |is: &Dial| restart.is_dial_outdated(is.started_at());
        state.are_servers_outdated = processes.servers.values().any(is_server_outdated);
        state.are_dials_outdated = processes.dials.values().any(is_dial_outdated);
        state.restart_by_ms = restart.forced_at().map(to_millis);
        state.was_reached = table.was_reached;
        let cooling_down = table.cooldown_until.iter();
        state.cooling_down = cooling_down
            .map(|(slot, until)| CoolingSlot {
                slot: *slot,
                until_ms: to_millis(*until),
            })
            .collect();
        Some(())
    }
}

/// Reads the output of a released process again. An error is logged; the process is then killed, and started again as after any exit.
pub fn resume(process: &mut Supervised, input: Option<ChildInput>, events: &ChildEvents) {
    if let Err(error) = process.resume(input, events) {
        let child = process.reading().name;
        tracing::error!(child, error = %Chain(&error), "child killed, since its output cannot be read any more");
    }
}

impl Processes {
    fn for_each_process(&mut self, mut each: impl FnMut(&mut Supervised)) {
        self.servers
            .values_mut()
            .for_each(|server| each(server.process_mut()));
        self.dials
            .values_mut()
            .for_each(|dial| each(dial.process_mut()));
    }
}

impl Tunnels {
    /// Returns whether nothing new begins: the node shuts down, or its tunnels are about to be handed over.
    pub(super) fn is_paused(&self) -> bool {
        self.common.is_shutting_down() || self.connections.0.borrow().is_handing_over
    }

    /// Goes on with the tunnels that were handed over. A process that is lost is started again as after any exit.
    pub(super) fn take_over(&mut self) {
        let Some(handed) = self.connections.0.borrow_mut().handed.take() else {
            return;
        };
        let common = &self.common;
        let now = common.now();
        {
            let mut table = common.table.borrow_mut();
            table.was_reached = handed.was_reached;
            let cooling_down = handed.cooling_down.iter();
            table.cooldown_until = cooling_down
                .map(|cooling| (cooling.slot, from_millis(cooling.until_ms)))
                .collect();
        }
        let mut outdated = (handed.are_servers_outdated, handed.are_dials_outdated);
        let mut processes = self.connections.0.borrow_mut();
        for (server, child) in handed.servers {
            let transport = server.transport;
            let mut ports = common.settings.servers.iter();
            let Some((_, port)) = ports.find(|(is, _)| *is == transport) else {
                tracing::info!(%transport, "server ends: the configuration has none any more");
                continue;
            };
            match Server::take_over(common, *port, (server, child)) {
                Ok((server, has_other_args)) => {
                    outdated.0 |= has_other_args;
                    processes.servers.insert(transport, server);
                }
                Err(error) => {
                    tracing::error!(%transport, error = %Chain(&error), "server lost; it is started again")
                }
            }
        }
        for (dial, child) in handed.dials {
            let slot = dial.tunnel.slot;
            match Dial::take_over(common, (dial, child)) {
                Ok((dial, has_other_args)) => {
                    outdated.1 |= has_other_args;
                    processes.dials.insert(slot, dial);
                }
                Err(error) => {
                    tracing::error!(tunnel = %slot, error = %Chain(&error), "dialled tunnel lost")
                }
            }
        }
        let (servers, dials) = outdated;
        if servers || dials {
            processes.rolling_restart.on_files_changed(&FilesChanged {
                at: now,
                network_version: 0,
                servers,
                dials,
                start_after: Duration::ZERO,
                force_after: handed.restart_by.map_or(Duration::MAX, |by| by.since(now)),
            });
        }
        drop(processes);
        // Clients whose certificate was revoked meanwhile.
        self.on_revoked(&BTreeSet::new());
    }
}

/// Describes the tunnel on a slot; `None` if there is none.
pub(super) fn describe_tunnel(table: &TunnelTable, slot: Slot) -> Option<HandedTunnel> {
    let tunnel = table.tunnels.get(&slot)?;
    Some(HandedTunnel {
        slot,
        peer: tunnel.peer,
        endpoint: tunnel.endpoint.map(HandedEndpoint),
        since_ms: to_millis(tunnel.since),
        up_since_ms: tunnel.up_since.map(to_millis),
        is_punched: table.punched_slots.contains(&slot),
    })
}

/// Adds a tunnel that was handed over to the table, and reports it.
pub(super) fn take_over_tunnel(common: &Common, tunnel: &HandedTunnel) {
    if tunnel.is_punched {
        common.note_punched(tunnel.slot);
    }
    common.take_over_tunnel(to_reading(tunnel));
}

fn to_reading(tunnel: &HandedTunnel) -> TunnelReading {
    TunnelReading {
        slot: tunnel.slot,
        peer: tunnel.peer,
        phase: match tunnel.up_since_ms {
            Some(_) => Phase::Up,
            None => Phase::Connecting,
        },
        since: from_millis(tunnel.since_ms),
        up_since: tunnel.up_since_ms.map(from_millis),
        endpoint: tunnel.endpoint.map(|endpoint| endpoint.0),
    }
}

/// Returns whether a process was started with other arguments than this program would use.
pub fn has_other_args(process: &Supervised, handed: &[String]) -> bool {
    let args = process.args().iter().map(|arg| arg.to_string_lossy());
    !args.eq(handed.iter().map(String::as_str))
}
