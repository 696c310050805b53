//! Carries out orders about tunnels with OpenVPN processes, and reports when tunnels open, come up and
//! close.
//!
//! It decides only whether a client is admitted, since OpenVPN's server waits for that answer. The
//! processes are in [`Connections`] and the tunnel table is in the store, so both outlive the actor; a
//! restarted actor continues with them.

mod command_line;
mod common;
mod connections;
mod dial;
mod dialling_slots;
mod draining;
pub mod handed;
mod ordered;
mod overdue;
mod revocation;
mod rolling_restart;
mod server;
mod shutdown;
mod uplink;

pub use command_line::OpenvpnFiles;
pub use common::{Facts, TunnelSettings};
pub use connections::Connections;
use connections::Processes;
use handed::HandedTunnels;
pub use shutdown::{DrainAll, StopAll};

use crate::{
    effects::link_orders::{LinkOrder, LinkOrderQueue},
    messages::{
        ChildMailbox, ChildReported, CredentialsChanged, Decided, DocumentsChanged, DrainsRead,
        RoutesRead, log_decision,
    },
    restart_lock::SharedRestartLock,
    store::{AppliedVersions, Store, TunnelTable},
};
use actix::{Actor, AsyncContext, Context, Handler};
use command_line::{client_args, server_args};
use common::Common;
use dial::Dial;
use membership::peer_api::PeerApiClient;
use os::process::{ChildEvent, ChildEvents, Exits, ProcessReading};
use policies::{
    names::{Endpoint, Prefix, Slot, Transport},
    observation::{BabelTable, Phase, TunnelReading},
    orders::{CloseReason, Decision, Order},
    revocation::Revocation,
    rng::Rng,
    rolling_restart::RollingRestart,
    units::Uptime,
    waits::OverdueTunnels,
};
use server::Server;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

/// Interval at which the life cycles of processes, rolling restarts and revocations take their next step.
const TICK_INTERVAL: Duration = Duration::from_millis(250);

/// Time after a dialled tunnel closed for which no new one is opened on its slot.
const DIALLING_COOLDOWN: Duration = Duration::from_secs(2);

/// The bits of a neighbour's reach for its last three hellos.
const LATEST_HELLOS: u16 = 0b111 << 13;

/// The dependencies of the tunnels actor.
#[derive(Clone)]
pub struct TunnelsDeps {
    /// The settings: this node, its servers, and the paths and rights of OpenVPN.
    pub settings: TunnelSettings,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// OpenVPN's processes, which outlive the actor.
    pub connections: Connections,
    /// The queue of link orders.
    pub links: LinkOrderQueue,
    /// The receivers of facts about tunnels.
    pub facts: Facts,
    /// The queue of OpenVPN's process events.
    pub events: ChildEvents,
    /// The client of the peer API, which requests the restart locks of neighbours.
    pub peers: PeerApiClient,
    /// The seed of random delays.
    pub seed: u64,
}

/// The actor that runs OpenVPN.
pub struct Tunnels {
    common: Common,
    connections: Connections,
    /// babeld's table, as last read.
    routes: Option<Arc<BabelTable>>,
    /// For each tunnel that drains for a restart, whether it carries nothing any more.
    drained: BTreeMap<Slot, bool>,
    applied: AppliedVersions,
    restart_lock: SharedRestartLock,
    peer_api: PeerApiClient,
    rng: Rng,
    /// The number of dialling slots last ordered, and when.
    slots_ordered: (u16, Uptime),
}

impl Tunnels {
    /// Builds the actor, which continues with the processes in `connections`.
    pub fn new(deps: TunnelsDeps) -> Self {
        let TunnelsDeps {
            settings,
            store,
            connections,
            links,
            facts,
            events,
            peers: peer_api,
            seed,
        } = deps;
        let Store {
            clock,
            tunnels: table,
            documents,
            names,
            applied,
            restart_lock,
            settings: live_settings,
            route_checks,
            shared_keys,
            punches,
            ..
        } = store;
        let common = Common {
            settings,
            clock,
            table,
            links,
            facts,
            events,
            seed,
            documents,
            names,
            is_shutting_down: Cell::new(false),
            live_settings,
            route_checks,
            shared_keys,
            punches,
            heard: RefCell::default(),
        };
        Self {
            common,
            connections,
            routes: None,
            drained: BTreeMap::new(),
            applied,
            restart_lock,
            peer_api,
            rng: Rng::new(seed),
            slots_ordered: (0, Uptime::default()),
        }
    }

    fn start_servers(&mut self) {
        let mut processes = self.connections.0.borrow_mut();
        if processes.are_stopped {
            return;
        }
        for (transport, port) in self.common.settings.servers.clone() {
            processes
                .servers
                .entry(transport)
                .or_insert_with(|| Server::open(&self.common, transport, port));
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        self.create_dialling_slots();
        self.close_overdue();
        self.step_revocation();
        self.restart_lock
            .note_tunnels(&self.common.table.borrow().tunnels);
        self.step_rolling_restart(ctx);
        let mut processes = self.connections.0.borrow_mut();
        processes
            .servers
            .values_mut()
            .for_each(|server| server.tick(&self.common));
        processes
            .dials
            .values_mut()
            .for_each(|dial| dial.tick(&self.common));
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Open {
                slot,
                peer,
                endpoints,
                ..
            } => self.open(slot, peer, &endpoints),
            Order::Drain { slot, reason } => self.drain(slot, reason),
            Order::Undrain { slot, reason: _ } => self.undrain(slot),
            Order::Close { slot, reason } => self.close(slot, reason),
        }
    }

    /// Logs a decision of a rolling restart or a revocation, and reports it.
    fn report(&self, decision: Decision) {
        log_decision(&decision);
        self.common.facts.decided.do_send(Decided {
            at: self.common.now(),
            decisions: vec![decision],
            verdicts: None,
        });
    }

    fn open(&mut self, slot: Slot, peer: Prefix, endpoints: &[Endpoint]) {
        let is_paused = self.is_paused();
        let common = &self.common;
        let now = common.now();
        let mut processes = self.connections.0.borrow_mut();
        let is_dialled = processes.dials.values().any(|dial| dial.peer() == peer);
        let is_banned = common.route_checks.borrow().is_banned(peer, now);
        let is_free = common.table.borrow().free_slots(now).contains(&slot)
            && !processes.dials.contains_key(&slot);
        if !is_free || is_dialled || is_paused || is_banned || peer == common.settings.me {
            return;
        }
        // The slot's last tunnel may have left the link down or silenced.
        common.links.order(LinkOrder::Up(slot));
        common.links.order(LinkOrder::Unsilence(slot));
        let mut endpoints = endpoints.to_vec();
        if common.table.borrow().prefers_tcp(peer, now) {
            endpoints.sort_by_key(|endpoint| endpoint.transport != Transport::Tcp);
        }
        let Some(dial) = Dial::open(common, slot, peer, &endpoints) else {
            return;
        };
        processes.dials.insert(slot, dial);
        common.add_tunnel(TunnelReading {
            slot,
            peer,
            phase: Phase::Connecting,
            since: now,
            up_since: None,
            endpoint: endpoints.first().copied(),
        });
        drop(processes);
        self.create_dialling_slots();
    }

    fn close(&mut self, slot: Slot, reason: CloseReason) {
        let mut processes = self.connections.0.borrow_mut();
        match slot {
            Slot::Dialling(_) => {
                let Some(dial) = processes.dials.get_mut(&slot) else {
                    return self.common.report_closed(slot, reason);
                };
                if matches!(
                    reason,
                    CloseReason::PeerDead | CloseReason::Revoked | CloseReason::FalseRoutes
                ) {
                    // babeld drops its routes at once when the link goes down; OpenVPN takes a second to exit.
                    self.common.links.order(LinkOrder::Down(slot));
                }
                if let Some(reason) = dial.close(&self.common, reason) {
                    self.remove_dial(&mut processes, slot, reason);
                }
            }
            Slot::Accepting(transport, _) => {
                let server = processes.servers.get_mut(&transport);
                let closed = server.and_then(|server| server.close(&self.common, slot, reason));
                // Without a client nothing is left to wait for, either.
                let (slot, reason) = closed.unwrap_or((slot, reason));
                self.common.report_closed(slot, reason);
            }
        }
    }

    fn on_child_event(&mut self, event: &ChildEvent) {
        let common = &self.common;
        let mut processes = self.connections.0.borrow_mut();
        for server in processes.servers.values_mut() {
            for (slot, reason) in server.handle_child_event(common, event) {
                common.report_closed(slot, reason);
            }
        }
        let closed: Vec<_> = processes
            .dials
            .iter_mut()
            .filter_map(|(slot, dial)| {
                let does_peer_restart = self.restart_lock.is_holder(dial.peer());
                dial.handle_child_event(common, event, does_peer_restart)
                    .map(|reason| (*slot, reason))
            })
            .collect();
        for (slot, reason) in closed {
            self.remove_dial(&mut processes, slot, reason);
        }
    }

    /// Removes a closed dial, and lets its slot cool down.
    fn remove_dial(&self, processes: &mut Processes, slot: Slot, reason: CloseReason) {
        if let Some(dial) = processes.dials.remove(&slot) {
            let last = dial.reading();
            let (starts, exits) = &mut processes.closed_clients;
            *starts = starts.saturating_add(u64::from(last.starts));
            exits.add(last.exits);
            self.common
                .table
                .borrow_mut()
                .cooldown_until
                .insert(slot, self.common.now() + DIALLING_COOLDOWN);
        }
        self.common.report_closed(slot, reason);
    }
}

impl Actor for Tunnels {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.common
            .events
            .attach(Box::new(ChildMailbox(ctx.address().recipient())));
        self.take_over();
        self.start_servers();
        ctx.run_interval(TICK_INTERVAL, Self::tick);
    }
}

impl Handler<ChildReported> for Tunnels {
    type Result = ();

    fn handle(&mut self, ChildReported(event): ChildReported, _: &mut Self::Context) {
        self.on_child_event(&event);
    }
}

impl Handler<DocumentsChanged> for Tunnels {
    type Result = ();

    fn handle(&mut self, changed: DocumentsChanged, _: &mut Self::Context) {
        self.on_revoked(&changed.revoked);
    }
}

impl Handler<CredentialsChanged> for Tunnels {
    type Result = ();

    fn handle(&mut self, changed: CredentialsChanged, _: &mut Self::Context) {
        self.on_files_changed(&changed);
    }
}

impl Handler<RoutesRead> for Tunnels {
    type Result = ();

    fn handle(&mut self, read: RoutesRead, _: &mut Self::Context) {
        let neighbours = read.table.iter().flat_map(|table| &table.neighbours);
        let heard = neighbours.filter(|neighbour| neighbour.reach & LATEST_HELLOS != 0);
        *self.common.heard.borrow_mut() = heard.map(|neighbour| neighbour.slot).collect();
        self.routes = read.table;
        self.restart_lock.note_table(self.routes.clone());
    }
}

impl Handler<DrainsRead> for Tunnels {
    type Result = ();

    fn handle(&mut self, read: DrainsRead, _: &mut Self::Context) {
        self.drained = read.tunnels;
    }
}
