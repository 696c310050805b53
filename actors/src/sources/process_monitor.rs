//! Periodically reports the state of the child processes, what they use, and how many packets their sockets dropped.

use crate::{
    effects::tunnels::Connections, mailboxes::offer, messages::ProcessesRead,
    sources::babeld::BabeldProcess, store::Store,
};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Recipient, WrapFuture};
use os::{
    process::{ProcessKind, ProcessReading},
    process_usage::ProcessUsage,
    socket_drops::{UdpSocket, own_netlink_drops, udp_sockets},
};
use policies::names::Transport;
use std::{collections::BTreeMap, io, time::Duration};

/// Interval between two readings.
const READ_INTERVAL: Duration = Duration::from_secs(2);

/// How the sockets of OpenVPN are recognised.
#[derive(Clone, Copy, Debug)]
pub struct OpenvpnSockets {
    /// The user of all OpenVPN processes, and of no other process.
    pub uid: u32,
    /// The UDP port of the server; `None` if there is no such server.
    pub server_port: Option<u16>,
}

/// The dependencies of the process monitor.
#[derive(Clone)]
pub struct ProcessMonitorDeps {
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The process of babeld.
    pub babeld: BabeldProcess,
    /// The processes of OpenVPN.
    pub connections: Connections,
    /// The sockets of OpenVPN.
    pub sockets: OpenvpnSockets,
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

    /// Reads /proc in another thread, since a host may have thousands of sockets; reports, and schedules the next reading.
    fn report(&mut self, ctx: &mut Context<Self>) {
        let ProcessMonitorDeps {
            store,
            babeld,
            connections,
            sockets,
            ..
        } = &self.deps;
        let mut processes = connections.readings();
        processes.splice(0..0, babeld.reading());
        let (at, closed_clients) = (store.clock.now(), connections.closed_clients());
        let sockets = *sockets;
        let reading = tokio::task::spawn_blocking(move || ProcessesRead {
            at,
            usage: usage_of(&processes),
            processes,
            closed_clients,
            udp_drops: read_or_log("UDP sockets", udp_sockets(sockets.uid))
                .map(|all| by_inode(&all, sockets.server_port)),
            netlink_drops: read_or_log("netlink sockets", own_netlink_drops()),
        });
        ctx.spawn(reading.into_actor(self).map(|reading, monitor, ctx| {
            match reading {
                Ok(reading) => offer(&monitor.deps.reader, reading),
                Err(error) => tracing::error!(%error, "cannot read the state of the processes"),
            }
            ctx.run_later(READ_INTERVAL, Self::report);
        }));
    }
}

/// Reads what each process uses; one that has just exited is left out.
fn usage_of(processes: &[ProcessReading]) -> BTreeMap<u32, ProcessUsage> {
    let usage = |process: &ProcessReading| {
        let pid = process.pid?;
        Some((pid, ProcessUsage::of(pid).ok()?))
    };
    processes.iter().filter_map(usage).collect()
}

fn by_inode(sockets: &[UdpSocket], server_port: Option<u16>) -> BTreeMap<u64, (ProcessKind, u64)> {
    let entry = |socket: &UdpSocket| {
        let kind = match Some(socket.port) == server_port {
            true => ProcessKind::Server(Transport::Udp),
            false => ProcessKind::Client,
        };
        (socket.inode, (kind, socket.dropped))
    };
    sockets.iter().map(entry).collect()
}

fn read_or_log<T>(what: &str, read: io::Result<T>) -> Option<T> {
    read.inspect_err(|error| tracing::debug!(%error, "cannot read the drops of {what} from /proc"))
        .ok()
}

impl Actor for ProcessMonitor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_later(READ_INTERVAL, Self::report);
    }
}
