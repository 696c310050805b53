//! Carries out orders about tunnels, with real OpenVPN processes, and reports what becomes of
//! them.
//!
//! It decides only what OpenVPN asks at once: whether a client may come in. The processes and the
//! tunnel table outlive the actor in [`Connections`] and the store; a restarted actor goes on with
//! them.

mod command_line;
mod common;
mod connections;
mod dial;
mod revocation;
mod rolling_restart;
mod server;
mod stopping;

pub use command_line::Identity;
pub use common::{Facts, Settings};
pub use connections::Connections;
use connections::Processes;
pub use stopping::{DrainAll, EndAll};

use crate::store::Store;
use crate::{
    effects::link_orders::{LinkOrder, Links},
    messages::{
        ChildMailbox, ChildReported, CredentialsChanged, Decided, DocumentsChanged, DrainsRead,
        Ordered, RoutesRead, log_decision,
    },
    restart_lock::SharedRestartLock,
    store::AppliedVersions,
};
use actix::{Actor, AsyncContext, Context, Handler};
use command_line::{client, server};
use common::Common;
use dial::Dial;
use membership::peer_api::PeerApiClient;
use os::process::{ChildEvent, ChildEvents, ProcessReading};
use policies::{
    names::{Endpoint, Prefix, Slot, Transport},
    observation::{BabelTable, Phase, TunnelReading},
    orders::{CloseReason, Decision, Order},
    restart_lock::is_deferred,
    revocation::Revocation,
    rng::Rng,
    rolling_restart::RollingRestart,
};
use server::Server;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

/// Interval between two looks at the lives of processes.
const TICK: Duration = Duration::from_millis(250);

/// A dialling slot rests this long after a tunnel.
const RESTART_PAUSE: Duration = Duration::from_secs(2);

/// The dependencies of the tunnels actor.
#[derive(Clone)]
pub struct TunnelsDeps {
    /// This node, its servers, and how OpenVPN is run.
    pub settings: Settings,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// OpenVPN's processes, which outlive the actor.
    pub connections: Connections,
    /// The queue of link orders.
    pub links: Links,
    /// The receivers of what becomes of tunnels.
    pub facts: Facts,
    /// The queue of OpenVPN's process events.
    pub events: ChildEvents,
    /// The client of the peer API, by which neighbours are asked for their restart lock.
    pub peers: PeerApiClient,
    /// The seed of random delays.
    pub seed: u64,
}

/// The actor that runs OpenVPN.
pub struct Tunnels {
    common: Common,
    connections: Connections,
    routes: Option<BabelTable>,
    /// Of accepted tunnels that drain: whether they may end.
    drained: BTreeMap<Slot, bool>,
    applied: AppliedVersions,
    restart_lock: SharedRestartLock,
    peer_api: PeerApiClient,
    rng: Rng,
}

impl Tunnels {
    /// Goes on with `connections`; starts servers that are not there yet.
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
            applied,
            restart_lock,
            ..
        } = store;

        let network_limit = documents
            .load()
            .network()
            .map_or(u16::MAX, |network| network.parameters.max_accepted);
        let max_accepted = Cell::new(settings.max_accepted.min(network_limit));
        let common = Common {
            settings,
            clock,
            table,
            links,
            facts,
            events,
            seed,
            documents,
            stopping: Cell::new(false),
            max_accepted,
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
        }
    }

    fn start_servers(&mut self) {
        let mut processes = self.connections.0.borrow_mut();
        if processes.stopped {
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
        self.step_revocation();
        self.note_tunnel_changes();
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

    /// Carries out an order of the planner or the prober, unless this is no moment for it: the planner repeats it.
    fn carry_out_if_possible(&mut self, order: Order) {
        let is_planned = !matches!(order, Order::Close { .. });
        let lock_holder = self.restart_lock.holder();
        if (is_planned && self.common.stopping()) || is_deferred(&order, lock_holder) {
            return tracing::debug!(?order, ?lock_holder, "order not carried out now");
        }
        self.carry_out(order);
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Open {
                slot,
                peer,
                endpoints,
                reason: _,
            } => self.open(slot, peer, &endpoints),
            Order::Drain { slot, reason } => self.drain(slot, reason),
            Order::Undrain { slot, reason: _ } => self.undrain(slot),
            Order::Close { slot, reason } => self.close(slot, reason),
        }
    }

    /// Logs and counts a decision that was made here.
    fn report(&self, decision: Decision) {
        log_decision(&decision);
        self.common.facts.decided.do_send(Decided {
            at: self.common.now(),
            decisions: vec![decision],
            verdicts: None,
        });
    }

    /// Takes Babel off the slot; a running drain takes on the reason unless its own is final.
    fn drain(&self, slot: Slot, reason: CloseReason) {
        let Some((peer, phase)) = self.peer_and_phase(slot) else {
            return;
        };
        let drained = phase.drained_for(reason);
        if phase == Phase::Up && drained != phase {
            self.common.set_phase(slot, drained);
            self.common.links.order(LinkOrder::Silence(slot, peer));
        } else if drained != phase {
            self.common.set_drain_reason(slot, drained);
        }
    }

    /// Puts Babel back on the slot, unless the drain's reason is final.
    fn undrain(&self, slot: Slot) {
        if let Some((_, phase)) = self.peer_and_phase(slot)
            && phase.undrained() != phase
        {
            self.common.set_phase(slot, phase.undrained());
            self.common.links.order(LinkOrder::Unsilence(slot));
            self.common.links.order(LinkOrder::RequestRoutes(slot));
        }
    }

    fn peer_and_phase(&self, slot: Slot) -> Option<(Prefix, Phase)> {
        let table = self.common.table.borrow();
        let tunnel = table.tunnels.get(&slot)?;
        Some((tunnel.peer, tunnel.phase))
    }

    fn open(&mut self, slot: Slot, peer: Prefix, endpoints: &[Endpoint]) {
        let common = &self.common;
        let now = common.now();
        let mut processes = self.connections.0.borrow_mut();
        let known = processes.dials.values().any(|dial| dial.peer() == peer);
        let free = common.table.borrow().free_slots(now).contains(&slot)
            && !processes.dials.contains_key(&slot);
        if !free || known || common.stopping() || peer == common.settings.me {
            return;
        }
        // Its last tunnel may have left it down or silent.
        common.links.order(LinkOrder::Up(slot));
        common.links.order(LinkOrder::Unsilence(slot));
        let Some(dial) = Dial::open(common, slot, peer, endpoints) else {
            return;
        };
        processes.dials.insert(slot, dial);
        common.opened(TunnelReading {
            slot,
            peer,
            phase: Phase::Connecting,
            since: now,
            up_since: None,
            endpoint: endpoints.first().copied(),
        });
    }

    fn close(&mut self, slot: Slot, reason: CloseReason) {
        let mut processes = self.connections.0.borrow_mut();
        match slot {
            Slot::Dialling(_) => {
                if let Some(dial) = processes.dials.get_mut(&slot) {
                    if matches!(reason, CloseReason::PeerDead | CloseReason::Revoked) {
                        // Babel's routes leave it at once; OpenVPN takes a second to end.
                        self.common.links.order(LinkOrder::Down(slot));
                    }
                    dial.close(&self.common, reason);
                }
            }
            Slot::Accepting(transport, _) => {
                let server = processes.servers.get_mut(&transport);
                if let Some((slot, reason)) =
                    server.and_then(|server| server.close(&self.common, slot, reason))
                {
                    self.common.report_closed(slot, reason);
                }
            }
        }
    }

    fn child(&mut self, event: &ChildEvent) {
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
                dial.handle_child_event(common, event)
                    .map(|reason| (*slot, reason))
            })
            .collect();
        for (slot, reason) in closed {
            if processes.dials.remove(&slot).is_some() {
                common
                    .table
                    .borrow_mut()
                    .resting
                    .insert(slot, common.now() + RESTART_PAUSE);
            }
            common.report_closed(slot, reason);
        }
    }
}

impl Actor for Tunnels {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.common
            .events
            .attach(Box::new(ChildMailbox(ctx.address().recipient())));
        self.start_servers();
        ctx.run_interval(TICK, Self::tick);
    }
}

impl Handler<Ordered> for Tunnels {
    type Result = ();

    fn handle(&mut self, ordered: Ordered, _: &mut Self::Context) {
        self.carry_out_if_possible(ordered.order);
    }
}

impl Handler<ChildReported> for Tunnels {
    type Result = ();

    fn handle(&mut self, ChildReported(event): ChildReported, _: &mut Self::Context) {
        self.child(&event);
    }
}

impl Handler<DocumentsChanged> for Tunnels {
    type Result = ();

    fn handle(&mut self, changed: DocumentsChanged, _: &mut Self::Context) {
        if let Some(network) = changed.documents.network() {
            let local_limit = self.common.settings.max_accepted;
            self.common
                .max_accepted
                .set(local_limit.min(network.parameters.max_accepted));
        }
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
        self.routes = read.table;
    }
}

impl Handler<DrainsRead> for Tunnels {
    type Result = ();

    fn handle(&mut self, read: DrainsRead, _: &mut Self::Context) {
        self.drained = read.tunnels;
    }
}
