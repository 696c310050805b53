//! Tests each transition of a rolling restart, and its deadlines.

mod dials;
mod locks;
mod servers;

use super::*;
use crate::{
    names::Transport,
    observation::{Phase, Route, TunnelReading},
    orders::CloseReason,
};
use std::collections::BTreeMap;

const FIRST_SLOT: Slot = Slot::Dialling(0);
const SECOND_SLOT: Slot = Slot::Dialling(1);
const ACCEPTED_SLOT: Slot = Slot::Accepting(Transport::Udp, 2);
const UDP: Transport = Transport::Udp;
const RENEWED: Phase = Phase::Draining {
    reason: CloseReason::Renewed,
};
/// The second in which the files change in all tests.
const CHANGED: u64 = 100;

fn node(number: u32) -> Prefix {
    Prefix::new(number, 16).unwrap()
}

fn nodes(numbers: &[u32]) -> BTreeSet<Prefix> {
    numbers.iter().copied().map(node).collect()
}

fn at(second: u64) -> Uptime {
    Uptime::from_secs(second)
}

fn change(servers: bool, dials: bool) -> FilesChanged {
    FilesChanged {
        at: at(CHANGED),
        network_version: 5,
        servers,
        dials,
        start_after: Duration::ZERO,
        force_after: Duration::from_secs(1_000),
    }
}

/// Node 1, and what a step sees of it.
struct Node {
    restart: RollingRestart,
    tunnels: BTreeMap<Slot, TunnelReading>,
    dials: BTreeMap<Slot, Uptime>,
    servers: BTreeMap<Transport, ServerReading>,
    routes: Vec<Route>,
    drained: BTreeMap<Slot, bool>,
    is_locked_by_neighbour: bool,
}

impl Node {
    /// These tunnels are up with old files; accepted ones belong to a server by UDP.
    fn new(change: FilesChanged, tunnels: &[(Slot, u32)]) -> Self {
        let mut node = Self {
            restart: RollingRestart::default(),
            tunnels: BTreeMap::new(),
            dials: BTreeMap::new(),
            servers: BTreeMap::new(),
            routes: Vec::new(),
            drained: BTreeMap::new(),
            is_locked_by_neighbour: false,
        };
        node.restart.on_files_changed(&change);
        for (slot, peer) in tunnels {
            node.open(*slot, *peer);
        }
        node
    }

    fn open(&mut self, slot: Slot, peer: u32) {
        let started_at = at(1);
        let tunnel = TunnelReading {
            slot,
            peer: node(peer),
            phase: Phase::Up,
            since: at(2),
            up_since: Some(at(2)),
            endpoint: None,
        };
        self.tunnels.insert(slot, tunnel);
        match slot {
            Slot::Dialling(_) => {
                self.dials.insert(slot, started_at);
            }
            Slot::Accepting(transport, _) => {
                let slots = BTreeSet::new();
                let server = ServerReading { started_at, slots };
                let server = self.servers.entry(transport).or_insert(server);
                server.slots.insert(slot);
            }
        }
    }

    /// A server without clients.
    fn with_idle_server(mut self) -> Self {
        let slots = BTreeSet::new();
        let started_at = at(1);
        self.servers
            .insert(UDP, ServerReading { started_at, slots });
        self
    }

    fn set_phase(&mut self, slot: Slot, phase: Phase) {
        self.tunnels.get_mut(&slot).unwrap().phase = phase;
    }

    /// The tunnel's process has restarted, and reads the new files.
    fn redial(&mut self, slot: Slot, second: u64) {
        self.dials.insert(slot, at(second));
        self.set_phase(slot, Phase::Up);
    }

    /// The tunnel on the slot drains since the last step, and carries nothing any more.
    fn set_drained(&mut self, slot: Slot) {
        self.set_phase(slot, RENEWED);
        self.drained.insert(slot, true);
    }

    /// Drains and restarts the tunnel on the slot, whose locks are held; its process is back at once.
    #[track_caller]
    fn restart_dial(&mut self, slot: Slot, second: u64) {
        self.check(second, &[&format!("drain {slot} renewed")]);
        self.set_drained(slot);
        self.check(second + 3, &[&format!("restart {slot}")]);
        self.redial(slot, second + 3);
    }

    fn step(&mut self, second: u64) -> Vec<RestartOrder> {
        let seen = RestartObservation {
            now: at(second),
            me: node(1),
            tunnels: &self.tunnels,
            dials: &self.dials,
            servers: &self.servers,
            routes: Some(&self.routes),
            drained: &self.drained,
            hello_interval: Duration::from_secs(1),
            is_locked_by_neighbour: self.is_locked_by_neighbour,
        };
        self.restart.step(&seen)
    }

    fn answer(&mut self, granted: bool, neighbours: &[u32], second: u64) {
        let mut rng = Rng::new(1);
        self.restart
            .on_lock_answer(granted, nodes(neighbours), at(second), &mut rng);
    }

    /// Checks the orders of a step, in short.
    #[track_caller]
    fn check(&mut self, second: u64, expected: &[&str]) {
        let orders: Vec<_> = self.step(second).iter().map(short).collect();
        assert_eq!(orders, expected, "second {second}");
    }

    /// The first second from `from` on in which something is ordered.
    fn next_order(&mut self, from: u64) -> Option<(u64, Vec<String>)> {
        (from..from + 2_000).find_map(|second| {
            let orders: Vec<_> = self.step(second).iter().map(short).collect();
            (!orders.is_empty()).then_some((second, orders))
        })
    }

    /// Requests the locks of these neighbours at that second, and gets them.
    #[track_caller]
    fn lock(&mut self, neighbours: &[u32], second: u64) {
        let expected = RestartOrder::AcquireLocks {
            neighbours: nodes(neighbours),
        };
        assert_eq!(self.step(second), [expected]);
        self.answer(true, neighbours, second);
    }
}

fn short(order: &RestartOrder) -> String {
    let list = |nodes: &BTreeSet<Prefix>| {
        let numbers: Vec<_> = nodes.iter().map(|node| node.number().to_string()).collect();
        numbers.join(",")
    };
    match order {
        RestartOrder::AcquireLocks { neighbours } => format!("acquire {}", list(neighbours)),
        RestartOrder::ReleaseLocks { neighbours } => format!("release {}", list(neighbours)),
        RestartOrder::Tunnel(decision) => {
            let order = &decision.order;
            format!(
                "{} {} {}",
                order.label(),
                order.slot(),
                order.reason_label()
            )
        }
        RestartOrder::StopAccepting { transport } => format!("stop accepting {transport}"),
        RestartOrder::ResumeAccepting { transport } => format!("accept again {transport}"),
        RestartOrder::RestartServer {
            transport,
            closings,
            ..
        } => format!("restart {transport} with {}", closings.len()),
        RestartOrder::RestartDials { closings } => {
            let slots: Vec<_> = closings
                .iter()
                .map(|c| c.order.slot().to_string())
                .collect();
            format!("restart {}", slots.join(","))
        }
        RestartOrder::ReportLostRequest => "lost request".to_owned(),
        RestartOrder::ReportApplied { network_version } => format!("applied {network_version}"),
    }
}

fn route(number: u32, slot: Slot) -> Route {
    Route {
        node: node(number),
        slot,
        via: node(number),
        installed: true,
        metric: 96,
        refmetric: 0,
    }
}
