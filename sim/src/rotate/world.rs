//! Nodes that restart their processes by the daemon's policy, and the calls and tunnels between them.

mod calls;

use super::{node::Node, prefix, routes};
use crate::{
    num::{index, number},
    overlay::Overlay,
    space::{Space, span},
};
use policies::{
    names::{Prefix, Slot},
    observation::Phase,
    orders::{Decision, Order},
    parameters::Parameters,
    rng::Rng,
    rolling_restart::{FilesChanged, RestartOrder},
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The interval between two steps of a node's rolling restart, as in the daemon.
const STEP_INTERVAL: Duration = Duration::from_millis(250);
/// A change that takes longer than this is given up.
const LONGEST_CHANGE: Duration = Duration::from_secs(86_400);

const fn millis(from: u64, to: u64) -> (Duration, Duration) {
    (Duration::from_millis(from), Duration::from_millis(to))
}

/// From the start of a drain until a tunnel carries nothing any more, shortest and longest, as measured in the lab.
const DRAIN_TIME: (Duration, Duration) = millis(1_000, 4_000);
/// From the order to restart a process until the dialler connects again, as measured in the lab.
const REDIAL_DELAY: (Duration, Duration) = millis(300, 1_100);
/// From then on until the tunnel is up, as measured in the lab.
const CONNECT_TIME: (Duration, Duration) = millis(1_000, 2_300);

/// One end of a tunnel: the node, and its slot.
type End = (u32, Slot);

/// Something that happens at a moment.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The node has new files.
    Files(u32, FilesChanged),
    /// The node's rolling restart decides.
    Step(u32),
    /// The node's request for the lock at that position of its list arrives.
    Request(u32, usize),
    /// The node has all locks, or none.
    Answer(u32, bool),
    /// The first node releases the lock of the second.
    Release(u32, u32),
    /// A drained tunnel carries nothing any more.
    Drained(End),
    /// The tunnel is closed at both ends, and the dialler's new process connects.
    Redial(usize),
    /// The tunnel is up at both ends.
    Up(usize),
}

/// Counts of events.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Counts {
    /// Restarts of servers with tunnels.
    pub servers: u64,
    /// Dialled tunnels that their own node has restarted.
    pub dials: u64,
    /// Requests for all locks.
    pub requests: u64,
    /// Those of them that were rejected.
    pub rejections: u64,
}

/// The network: its nodes and tunnels, and the events that are to come.
pub struct World<'a> {
    space: &'a Space,
    nodes: Vec<Node>,
    /// The ends of each tunnel: the dialler, and the acceptor.
    links: Vec<(End, End)>,
    events: BTreeMap<(Uptime, u64), Event>,
    event_count: u64,
    now: Uptime,
    rng: Rng,
    hello_interval: Duration,
    /// The number of nodes with outdated processes.
    outdated: usize,
    counts: Counts,
}

impl<'a> World<'a> {
    /// A network whose tunnels are all up.
    pub fn new(space: &'a Space, overlay: &Overlay, seed: u64) -> Self {
        let tables = (0..).zip(routes::tables(overlay));
        let mut world = Self {
            space,
            nodes: tables.map(|(node, table)| Node::new(node, table)).collect(),
            links: Vec::new(),
            events: BTreeMap::new(),
            event_count: 0,
            now: Uptime::from_secs(1_000),
            rng: Rng::new(seed),
            hello_interval: Parameters::default().hello_interval,
            outdated: 0,
            counts: Counts::default(),
        };
        for node in 0..number(overlay.nodes()) {
            for tunnel in overlay.dialled(node) {
                world.add_tunnel(overlay, tunnel);
            }
        }
        world
    }

    fn add_tunnel(&mut self, overlay: &Overlay, number: u32) {
        let Some(tunnel) = overlay.tunnel(number) else {
            return;
        };
        let end = |node| Some((node, routes::slot(overlay, number, node)?));
        let (Some(dialler), Some(acceptor)) = (end(tunnel.dialler), end(tunnel.acceptor)) else {
            return;
        };
        self.links.push((dialler, acceptor));
        let link = self.links.len() - 1;
        for (node, slot) in [dialler, acceptor] {
            self.with(node, |node, _| node.links.insert(slot, link));
        }
        let (node, slot) = dialler;
        self.with(node, |node, _| node.dials.insert(slot, Uptime::default()));
        self.set_phase(dialler, Some(Phase::Up));
        self.set_phase(acceptor, Some(Phase::Up));
    }

    /// Gives each node new files, and lets time pass until all nodes run with them. Returns the time that each node took,
    /// sorted, and what happened; `None` if that takes longer than a day.
    pub fn change_files(
        &mut self,
        change: impl Fn(u32, Uptime) -> FilesChanged,
    ) -> Option<(Vec<Duration>, Counts)> {
        let start = self.now;
        self.counts = Counts::default();
        self.outdated = self.nodes.len();
        for node in 0..number(self.nodes.len()) {
            let change = change(node, start);
            self.with(node, |node, _| node.ready_at = None);
            self.after(change.at.since(start), Event::Files(node, change));
        }
        while self.outdated > 0 && self.now.since(start) < LONGEST_CHANGE {
            let ((at, _), event) = self.events.pop_first()?;
            self.now = at;
            self.handle(event);
        }
        let ready = self.nodes.iter().map(|node| node.ready_at);
        let ready = ready.map(|at| at.map(|at| at.since(start)));
        let mut ready: Vec<_> = ready.collect::<Option<_>>()?;
        ready.sort_unstable();
        Some((ready, self.counts))
    }

    fn with<T>(&mut self, node: u32, change: impl FnOnce(&mut Node, Uptime) -> T) -> Option<T> {
        let now = self.now;
        let node = self.nodes.get_mut(index(node))?;
        Some(change(node, now))
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.event_count += 1;
        let key = (self.now + delay, self.event_count);
        self.events.insert(key, event);
    }

    fn after_drawn(&mut self, (shortest, longest): (Duration, Duration), event: Event) {
        let delay = self.rng.span(shortest, longest);
        self.after(delay, event);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Files(node, change) => {
                self.with(node, |node, _| node.restart.on_files_changed(&change));
                // Nothing is to be decided before the first restart may start.
                let first = (change.start_after, change.start_after + STEP_INTERVAL);
                self.after_drawn(first, Event::Step(node));
            }
            Event::Step(node) => self.step(node),
            Event::Request(node, position) => self.request(node, position),
            Event::Answer(node, granted) => self.answer(node, granted),
            Event::Release(holder, node) => {
                self.with(node, |node, _| node.lock.release(prefix(holder)));
            }
            Event::Drained((node, slot)) => {
                self.with(node, |node, _| node.drained.insert(slot, true));
            }
            Event::Redial(link) => {
                if let Some((dialler, acceptor)) = self.links.get(link).copied() {
                    self.set_phase(dialler, Some(Phase::Connecting));
                    self.set_phase(acceptor, None);
                    let (node, slot) = dialler;
                    self.with(node, |node, now| node.dials.insert(slot, now));
                    self.after_drawn(CONNECT_TIME, Event::Up(link));
                }
            }
            Event::Up(link) => {
                if let Some((dialler, acceptor)) = self.links.get(link).copied() {
                    self.set_phase(dialler, Some(Phase::Up));
                    self.set_phase(acceptor, Some(Phase::Up));
                }
            }
        }
    }

    fn set_phase(&mut self, (node, slot): End, phase: Option<Phase>) {
        let link = self.with(node, |node, _| node.link(slot)).flatten();
        let Some((dialler, acceptor)) = link.and_then(|link| self.links.get(link)) else {
            return;
        };
        let peer = if dialler.0 == node {
            acceptor.0
        } else {
            dialler.0
        };
        self.with(node, |node, now| node.set_phase(slot, peer, phase, now));
    }

    fn step(&mut self, node: u32) {
        let hello_interval = self.hello_interval;
        let orders = self.with(node, |node, now| node.step(now, hello_interval));
        for order in orders.unwrap_or_default() {
            self.obey(node, order);
        }
        let is_ready = self.with(node, |node, _| node.ready_at.is_some());
        if is_ready == Some(false) {
            self.after(STEP_INTERVAL, Event::Step(node));
        }
    }

    fn obey(&mut self, node: u32, order: RestartOrder) {
        match order {
            RestartOrder::AcquireLocks { neighbours } => self.acquire(node, &neighbours),
            RestartOrder::ReleaseLocks { neighbours } => {
                let nodes: Vec<_> = neighbours.iter().map(|node| node.number()).collect();
                self.release(node, &[&[node], &*nodes].concat());
            }
            RestartOrder::Tunnel(decision) => self.drain(node, decision.order),
            RestartOrder::RestartServer {
                transport,
                closings,
                ..
            } => {
                self.counts.servers += u64::from(!closings.is_empty());
                self.with(node, |node, now| {
                    if let Some(server) = node.servers.get_mut(&transport) {
                        server.started_at = now;
                    }
                });
                self.close(node, &closings);
            }
            RestartOrder::RestartDials { closings } => {
                self.counts.dials += u64::try_from(closings.len()).unwrap_or(u64::MAX);
                self.close(node, &closings);
            }
            RestartOrder::ReportApplied { .. } => {
                self.outdated -= 1;
                self.with(node, |node, now| node.ready_at = Some(now));
            }
            RestartOrder::StopAccepting { .. }
            | RestartOrder::ResumeAccepting { .. }
            | RestartOrder::ReportLostRequest => {}
        }
    }

    fn drain(&mut self, node: u32, order: Order) {
        let end = (node, order.slot());
        match order {
            Order::Drain { reason, .. } => {
                self.with(node, |node, _| node.drained.remove(&end.1));
                self.set_phase(end, Some(Phase::Draining { reason }));
                self.after_drawn(DRAIN_TIME, Event::Drained(end));
            }
            Order::Undrain { .. } => self.set_phase(end, Some(Phase::Up)),
            Order::Open { .. } | Order::Close { .. } => {}
        }
    }

    fn close(&mut self, node: u32, closings: &[Decision]) {
        for closing in closings {
            let slot = closing.order.slot();
            self.set_phase((node, slot), Some(Phase::Closing));
            let link = self.with(node, |node, _| node.link(slot)).flatten();
            if let Some(link) = link {
                self.after_drawn(REDIAL_DELAY, Event::Redial(link));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::Limits;
    use policies::link_cost::LinkCost;

    fn overlay(space: &Space, dial: usize) -> Overlay {
        let limits = Limits { dial, degree: 40 };
        Overlay::random(space, limits, LinkCost::default(), &mut Rng::new(1))
    }

    fn change(start: Uptime) -> FilesChanged {
        FilesChanged {
            at: start,
            network_version: 2,
            servers: true,
            dials: true,
            start_after: Duration::ZERO,
            force_after: LONGEST_CHANGE,
        }
    }

    #[test]
    fn each_server_restarts_once_for_each_change_and_all_tunnels_are_up_again() {
        let space = Space::synthetic(60, 1);
        let mut world = World::new(&space, &overlay(&space, 5), 1);
        let with_clients = world.nodes.iter().filter(|node| {
            let mut servers = node.servers.values();
            servers.any(|server| !server.slots.is_empty())
        });
        let servers = u64::try_from(with_clients.count()).unwrap();
        for _ in 0..2 {
            let (ready, counts) = world.change_files(|_, start| change(start)).unwrap();
            assert_eq!((ready.len(), counts.servers), (60, servers));
            assert!(counts.requests > counts.rejections);
        }
        while let Some(((at, _), event)) = world.events.pop_first() {
            world.now = at;
            world.handle(event);
        }
        for node in &world.nodes {
            assert_eq!(node.tunnels.len(), node.links.len());
            assert!(
                node.tunnels
                    .values()
                    .all(|tunnel| tunnel.phase == Phase::Up)
            );
            assert!(node.lock.holders(world.now).is_empty());
        }
    }

    #[test]
    fn no_two_neighbours_restart_at_the_same_time() {
        let space = Space::synthetic(60, 1);
        let mut world = World::new(&space, &overlay(&space, 5), 1);
        for node in 0..60 {
            world.after(Duration::ZERO, Event::Files(node, change(world.now)));
        }
        let mut most = 0;
        world.outdated = 60;
        for _ in 0..60_000 {
            let Some(((at, _), event)) = world.events.pop_first() else {
                break;
            };
            world.now = at;
            world.handle(event);
            let drains = |node: &Node| {
                let mut tunnels = node.tunnels.values();
                tunnels.any(|tunnel| tunnel.phase.is_draining())
            };
            for (dialler, acceptor) in &world.links {
                let ends = [dialler.0, acceptor.0].map(|node| drains(&world.nodes[index(node)]));
                assert_ne!(ends, [true, true], "{dialler:?} {acceptor:?} at {at:?}");
            }
            most = most.max(world.nodes.iter().filter(|node| drains(node)).count());
        }
        assert!(most > 3, "at most {most} nodes restarted at the same time");
    }

    #[test]
    fn the_same_seed_gives_the_same_times() {
        let space = Space::synthetic(30, 1);
        let run = || {
            let mut world = World::new(&space, &overlay(&space, 3), 7);
            world.change_files(|_, start| change(start)).unwrap().0
        };
        assert_eq!(run(), run());
    }
}
