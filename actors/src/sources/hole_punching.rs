//! Opens paths to nodes that cannot be dialled, since both this node and they are behind NATs.
//!
//! Both sides send to each other at once, from the ports that the tunnel will use, so that each NAT takes the other side's packets for
//! answers. The planner then dials the peer from that port. [`policies::hole_punching`] decides with whom and when.

pub(crate) mod exchange;

pub use exchange::PunchSettings;

use crate::{
    hole_punches::SharedHolePunches,
    live_settings::{Mode, SharedLiveSettings},
    mailboxes::offer,
    messages::{HolePunchesRead, RoutesRead},
    sources::peer_cache::tunnels_to_dial,
    store::{SharedCandidates, Store, TunnelTable},
};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use exchange::{Exchange, allowed_target};
use membership::{documents::DocumentStore, peer_api::PeerApiClient};
use os::clock::Clock;
use policies::{
    hole_punching::{NatMapping, PunchAttempts, PunchResult, Situation},
    names::{Prefix, Role},
    observation::{INFINITY, Phase, PunchedPath},
    units::Uptime,
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};
use wire::peer::{MAX_OBSERVERS, Observer};

/// Interval at which it is seen whether an attempt is due, and what became of the last one.
const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// The dependencies of hole punching.
#[derive(Clone)]
pub struct HolePunchingDeps {
    /// This node, its network and its server.
    pub settings: PunchSettings,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The client of the peer API.
    pub peers: PeerApiClient,
    /// The receivers of each reading.
    pub readers: Vec<Recipient<HolePunchesRead>>,
}

/// The actor that opens paths.
pub struct HolePunching {
    exchange: Exchange,
    clock: Clock,
    live_settings: SharedLiveSettings,
    documents: DocumentStore,
    candidates: SharedCandidates,
    tunnels: Rc<RefCell<TunnelTable>>,
    punches: SharedHolePunches,
    readers: Vec<Recipient<HolePunchesRead>>,
    attempts: PunchAttempts,
    /// The nodes to which babeld has a route.
    reachable: BTreeSet<Prefix>,
    is_trying: bool,
    /// The path that is open now, and how the NATs of both sides map ports.
    open: Option<(PunchedPath, [NatMapping; 2])>,
    /// How this node's NAT maps ports, as the last attempt showed.
    mapping: NatMapping,
    totals: BTreeMap<PunchResult, u64>,
}

impl HolePunching {
    /// Builds the actor.
    pub fn new(deps: HolePunchingDeps) -> Self {
        let HolePunchingDeps {
            settings,
            store,
            peers,
            readers,
        } = deps;
        store.tunnels.borrow_mut().punched.clear();
        store.punches.set_trying(None);
        Self {
            exchange: Exchange {
                settings,
                peers,
                random: store.random,
            },
            clock: store.clock,
            live_settings: store.settings,
            documents: store.documents,
            candidates: store.candidates,
            tunnels: store.tunnels,
            punches: store.punches,
            readers,
            attempts: PunchAttempts::default(),
            reachable: BTreeSet::new(),
            is_trying: false,
            open: None,
            mapping: NatMapping::Unknown,
            totals: BTreeMap::new(),
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        self.punches
            .set_neighbours(self.observers(), self.neighbours());
        self.follow_open_path(now);
        let due = self.attempts.due(
            self.exchange.settings.me,
            &self.targets(),
            &self.reachable,
            now,
        );
        let is_busy = self.is_trying || self.open.is_some();
        let chosen = self.exchange.random.choose(&due).copied();
        if let Some(peer) = chosen.filter(|_| !is_busy) {
            self.start(peer, ctx);
        }
        self.report();
    }

    fn targets(&self) -> BTreeSet<Prefix> {
        let settings = self.live_settings.load();
        let has_server = self.exchange.settings.server_port.is_some();
        if settings.mode == Mode::Watch || !has_server {
            return BTreeSet::new();
        }
        let wanted = tunnels_to_dial(settings.limits, &self.documents.load());
        let neighbours = self.neighbours();
        let table = self.tunnels.borrow();
        let dialled = table
            .tunnels
            .keys()
            .filter(|slot| slot.role() == Role::Dialled);
        Situation {
            me: self.exchange.settings.me,
            is_reached: table.was_reached,
            has_room: dialled.count() < usize::from(wanted),
            reachable: &self.reachable,
            neighbours: &neighbours,
            candidates: &self.candidates.load(),
        }
        .targets()
    }

    /// Returns the nodes to which a tunnel of either role leads.
    fn neighbours(&self) -> BTreeSet<Prefix> {
        let table = self.tunnels.borrow();
        table.tunnels.values().map(|tunnel| tunnel.peer).collect()
    }

    /// Returns the nodes that this one has dialled by UDP at a public address, so that they can see its datagrams.
    fn observers(&self) -> Vec<Observer> {
        let table = self.tunnels.borrow();
        let up = table.tunnels.values().filter(|tunnel| {
            tunnel.role() == Role::Dialled
                && tunnel.phase == Phase::Up
                && !table.punched_slots.contains(&tunnel.slot)
        });
        let observers = up.filter_map(|tunnel| {
            let endpoint = tunnel.endpoint?;
            allowed_target(endpoint, self.exchange.settings.network, None)?;
            Some(Observer {
                node: tunnel.peer,
                endpoint,
            })
        });
        observers.take(MAX_OBSERVERS).collect()
    }

    fn start(&mut self, peer: Prefix, ctx: &mut Context<Self>) {
        self.is_trying = true;
        self.punches.set_trying(Some(peer));
        let (exchange, observers) = (self.exchange.clone(), self.observers());
        let (candidates, clock) = (self.candidates.load_full(), self.clock.clone());
        tracing::debug!(%peer, "opening a path through both NATs");
        let attempt = async move {
            let is_known = |observer: &Observer| {
                let is_there = |endpoint| endpoint == &observer.endpoint;
                let mut known = candidates.iter();
                observers.contains(observer)
                    || known.any(|candidate| {
                        candidate.peer == observer.node && candidate.endpoints.iter().any(is_there)
                    })
            };
            exchange
                .open_path(peer, &observers, is_known, || clock.now())
                .await
        };
        ctx.spawn(
            attempt
                .into_actor(self)
                .map(move |outcome, actor, _| actor.handle_outcome(peer, outcome)),
        );
    }

    fn handle_outcome(
        &mut self,
        peer: Prefix,
        outcome: Result<(PunchedPath, [NatMapping; 2]), PunchResult>,
    ) {
        self.is_trying = false;
        match outcome {
            Ok((path, mappings)) => {
                let [own, other] = mappings;
                tracing::debug!(%peer, endpoint = %path.endpoint, local_port = path.local_port, ?own, ?other, "path opened; the peer is dialled");
                self.mapping = own;
                self.open = Some((path, mappings));
                self.tunnels.borrow_mut().punched.insert(peer, path);
            }
            Err(result) => self.finish(peer, result),
        }
    }

    /// Finishes the attempt whose path is open, once its tunnel is up or its time is over.
    fn follow_open_path(&mut self, now: Uptime) {
        let Some((path, mappings)) = self.open else {
            return;
        };
        let is_up = self
            .tunnels
            .borrow()
            .tunnels
            .values()
            .any(|tunnel| tunnel.peer == path.peer && tunnel.phase == Phase::Up);
        if is_up {
            self.finish(path.peer, PunchResult::TunnelUp);
        } else if path.until <= now {
            self.finish(path.peer, PunchResult::of_silence(mappings));
        }
    }

    fn finish(&mut self, peer: Prefix, result: PunchResult) {
        self.open = None;
        self.punches.set_trying(None);
        self.tunnels.borrow_mut().punched.remove(&peer);
        self.attempts.note(peer, result, self.clock.now());
        let total = self.totals.entry(result).or_default();
        *total = total.saturating_add(1);
        tracing::info!(%peer, %result, "hole punching finished");
    }

    fn report(&self) {
        let reading = HolePunchesRead {
            slots: self.tunnels.borrow().punched_slots.clone(),
            mapping: self.mapping,
            results: self.attempts.results(),
            totals: self.totals.clone(),
        };
        self.readers
            .iter()
            .for_each(|reader| offer(reader, reading.clone()));
    }
}

impl Actor for HolePunching {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK_INTERVAL, Self::tick);
    }
}

impl Handler<RoutesRead> for HolePunching {
    type Result = ();

    fn handle(&mut self, read: RoutesRead, _: &mut Self::Context) {
        let Some(table) = read.table else { return };
        let routes = table.routes.iter();
        let installed = routes.filter(|route| route.installed && route.metric < INFINITY);
        self.reachable = installed.map(|route| route.node).collect();
    }
}
