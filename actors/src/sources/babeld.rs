//! Keeps the routing daemon running and reads its tables.
//!
//! Dumps are polled: `monitor` doubles babeld's cost. Knows nothing of what routes are good for.

mod files;

pub use files::PrepareError;

mod dump;

mod host_routes;

mod settings;

use crate::store::Store;
use crate::{
    effects::link_orders::{LinkOrder, Links},
    messages::{ChildMailbox, ChildReported, RoutesRead, offer},
    store::{AppliedVersions, TunnelTable},
};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use dump::*;
use files::prepare;
use membership::documents::DocumentStore;
use os::randomness::Randomness;
use os::{
    clock::Clock,
    kernel::{Exit, Kernel},
    process::{ChildEvents, Happened, ProcessReading, Program, Rights, Supervised},
};
use policies::{
    life::{Event, Limits, Order, State},
    observation::Phase,
    units::Uptime,
};
pub use settings::Settings;
use std::{cell::RefCell, ffi::OsString, io, path::PathBuf, rc::Rc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use wire::errors::Chain;
use wire::{
    babel::{self, BabelConfig, Decoder, ExitRoutes, MacKey, Reply},
    overlay::Network,
    registry::DocumentKind,
};

/// How often the life is looked at, and the tables are read while a tunnel drains.
const TICK: Duration = Duration::from_millis(250);

/// The tables are read every so many ticks: 2 s.
const STEADY: u32 = 8;

/// Likewise in the first [`YOUNG`] after babeld's start: 0.5 s.
const LIVELY: u32 = 2;

/// The time after its start for which babeld is read every [`LIVELY`] ticks.
const YOUNG: Duration = Duration::from_secs(30);

/// babeld answers a dump of 150 lines in 0.6 ms (measured); its eighth connection would block for ever.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// babeld opens its socket at once; the first time may take the making of interfaces.
const START: Duration = Duration::from_secs(10);

/// babeld's process: what outlives the actor.
#[derive(Clone, Default)]
pub struct RoutingProcess(Rc<RefCell<Option<Supervised>>>);

impl RoutingProcess {
    /// Returns a reading of the process.
    pub fn reading(&self) -> Option<ProcessReading> {
        self.0.borrow().as_ref().map(Supervised::reading)
    }
}

/// Ends babeld, so that it retracts its routes.
#[derive(Clone, Copy, Debug, actix::Message)]
#[rtype(result = "()")]
pub struct EndBabeld;

/// The dependencies of the babeld actor.
#[derive(Clone)]
pub struct BabeldDeps {
    /// Paths, rights and configuration of babeld.
    pub settings: Settings,
    /// The shared state that outlives the actor.
    pub store: Store,
    /// The kernel, whose exit routes and babeld routes it maintains.
    pub kernel: Kernel,
    /// The queue of link orders.
    pub links: Links,
    /// babeld's process, which outlives the actor.
    pub process: RoutingProcess,
    /// The queue of babeld's process events.
    pub events: ChildEvents,
    /// The receivers of each reading of babeld's tables.
    pub readers: Vec<Recipient<RoutesRead>>,
}

/// The actor that runs babeld and reads its tables.
pub struct Babeld {
    settings: Settings,
    clock: Clock,
    random: Randomness,
    kernel: Kernel,
    links: Links,
    table: Rc<RefCell<TunnelTable>>,
    process: RoutingProcess,
    events: ChildEvents,
    readers: Vec<Recipient<RoutesRead>>,
    documents: DocumentStore,
    applied: AppliedVersions,
    /// The time at which babeld restarts because of a new network document.
    restart_at: Option<Uptime>,
    /// Whether babeld announced the host's default route at the last reading.
    announces_default: bool,
    ticks: u32,
    asking: bool,
}

/// The span over which nodes spread the restart of their babeld at random, since each takes its
/// transit away for seconds.
const WINDOW: Duration = Duration::from_secs(30);

impl Babeld {
    /// Goes on with `process`, or starts it.
    pub fn new(deps: BabeldDeps) -> Self {
        let BabeldDeps {
            settings,
            store,
            kernel,
            links,
            process,
            events,
            readers,
        } = deps;
        let Store {
            clock,
            random,
            tunnels: table,
            documents,
            applied,
            ..
        } = store;

        let mut babeld = Self {
            settings,
            clock,
            random,
            kernel,
            links,
            table,
            process,
            events,
            readers,
            documents,
            applied,
            restart_at: None,
            announces_default: false,
            ticks: 0,
            asking: false,
        };
        // A running babeld already has the configuration of the current documents, or will get it.
        babeld.settings.config = babeld.wanted();
        babeld
    }

    /// The configuration as the network document wants it.
    fn wanted(&self) -> BabelConfig {
        let config = self.settings.config.clone();
        let documents = self.documents.load();
        let Some(network) = documents.network() else {
            return config;
        };
        let parameters = network.parameters();
        let on_lan = !config.interfaces.is_empty();
        BabelConfig {
            hello_interval: parameters.hello_interval,
            update_interval: parameters.update_interval,
            // Without a LAN nothing is signed (docs/decisions/0001-no-mac-on-tunnels.md).
            key: if on_lan {
                MacKey::from_hex(&network.babel_key)
            } else {
                None
            },
            lenient: on_lan && network.babel_lenient,
            ipv4: network.payload4(),
            gateways: network.gateways.iter().copied().collect(),
            ..config
        }
    }

    /// Restarts babeld if the network document requires another configuration. babeld cannot
    /// change the intervals or the keys of existing links.
    fn follow(&mut self, ctx: &mut Context<Self>) {
        let (now, wanted) = (self.clock.now(), self.wanted());
        let same = match (wanted.text(), self.settings.config.text()) {
            (Ok(wanted), Ok(is)) => wanted == is,
            _ => true,
        };
        if same {
            self.restart_at = None;
            return self
                .applied
                .by_babeld(self.documents.load().version(DocumentKind::Network));
        }
        let random = self.random.clone();
        let at = *self
            .restart_at
            .get_or_insert_with(|| now + WINDOW.mul_f64(random.fraction()));
        if at <= now {
            self.restart_at = None;
            self.settings.config = wanted;
            self.carry(ctx);
            tracing::info!("babeld restarts with the network's new parameters");
            self.handle_life(Event::Unwanted);
            self.handle_life(Event::Wanted);
        }
    }

    fn handle_life(&mut self, event: Event) {
        let now = self.clock.now();
        let mut process = self.process.0.borrow_mut();
        let Some(process) = process.as_mut() else {
            return;
        };
        let Some(order) = process.on(event, now) else {
            return;
        };
        if order == Order::Spawn {
            process.set_args(self.settings.args());
            if let Err(error) = prepare(&self.settings, &self.random) {
                tracing::error!(error = %Chain(&error), "babeld not started");
                let _ = process.on(Event::Exited, now);
                return;
            }
        }
        process.carry_out(order, now, &self.events);
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        self.handle_life(Event::Tick);
        self.ticks = self.ticks.wrapping_add(1);
        let state = self.process.0.borrow().as_ref().map(Supervised::state);
        if matches!(state, Some(State::Up { .. })) && self.ticks.is_multiple_of(LIVELY) {
            self.follow(ctx);
        }
        let every = match state {
            Some(State::Starting { .. }) => 1,
            _ if self.table.borrow().draining() => 1,
            Some(State::Up { since }) if self.clock.now().since(since) < YOUNG => LIVELY,
            Some(State::Up { .. }) => STEADY,
            Some(State::Down { .. } | State::Stopping { .. }) | None => return,
        };
        if self.asking || !self.ticks.is_multiple_of(every) {
            return;
        }
        self.asking = true;
        let socket = self.settings.config.socket.clone();
        let asked = ask(socket, self.settings.config.network).into_actor(self);
        ctx.spawn(asked.map(|answer, babeld, _| babeld.answered(answer)));
    }

    fn answered(&mut self, answer: io::Result<babel::Dump>) {
        self.asking = false;
        let at = self.clock.now();
        let mut exit_routes = ExitRoutes::default();
        let table = match answer {
            Ok(dump) => {
                self.came_up(at);
                self.follow_default(dump.exit_routes.own);
                exit_routes = dump.exit_routes;
                for route in &dump.forged {
                    tracing::warn!(node = %route.node, via = %route.via, "a route's router id is not its node's");
                }
                Some(dump.table)
            }
            Err(error) => {
                tracing::debug!(%error, "babeld did not answer");
                None
            }
        };
        let reading = RoutesRead {
            at,
            table,
            exit_routes,
        };
        self.readers
            .iter()
            .for_each(|to| offer(to, reading.clone()));
    }

    fn came_up(&mut self, _at: Uptime) {
        let starting = {
            let process = self.process.0.borrow();
            matches!(
                process.as_ref().map(Supervised::state),
                Some(State::Starting { .. })
            )
        };
        if !starting {
            return;
        }
        self.handle_life(Event::Ready);
        tracing::info!("babeld answers");
        // Neighbours of an earlier babeld would wait for the next periodic update.
        let table = self.table.borrow();
        let up = table
            .tunnels
            .values()
            .filter(|tunnel| tunnel.phase == Phase::Up);
        for tunnel in up {
            self.links.order(LinkOrder::RequestRoutes(tunnel.slot));
        }
    }

    /// babeld 1.12.1 takes a route back under the name of another one (`check_xroutes` of its xroute.c), so that
    /// neighbours would believe in our default route for minutes after the host has lost it.
    fn follow_default(&mut self, announces_default: bool) {
        if self.announces_default && !announces_default && self.settings.config.announces_default()
        {
            tracing::info!(
                "the host has no default route any more; it is retracted from the network"
            );
            let (network, table) = (self.settings.config.network.range(), self.table.borrow());
            let up = table
                .tunnels
                .values()
                .filter(|tunnel| tunnel.phase == Phase::Up);
            up.for_each(|tunnel| {
                self.links
                    .order(LinkOrder::RetractDefault(tunnel.slot, network))
            });
        }
        self.announces_default = announces_default;
    }
}

impl Actor for Babeld {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.events
            .attach(Box::new(ChildMailbox(ctx.address().recipient())));
        self.process.0.borrow_mut().get_or_insert_with(|| {
            let program = Program {
                name: "babeld".to_owned(),
                path: self.settings.babeld.clone(),
                args: self.settings.args(),
                rights: self.settings.rights,
                pid_file: self.settings.pid_file.clone(),
                management: None,
            };
            Supervised::new(
                program,
                Limits {
                    start: START,
                    ..Limits::default()
                },
                self.random.bits(),
            )
        });
        self.carry(ctx);
        self.handle_life(Event::Wanted);
        ctx.run_interval(TICK, Self::tick);
    }
}

impl Handler<ChildReported> for Babeld {
    type Result = ();

    fn handle(&mut self, ChildReported(event): ChildReported, ctx: &mut Self::Context) {
        let now = self.clock.now();
        let took = self
            .process
            .0
            .borrow_mut()
            .as_mut()
            .is_some_and(|process| process.handle_child_event(&event, now));
        if took && matches!(event.happened, Happened::Exited { .. }) {
            self.flush(ctx);
        }
    }
}

impl Handler<EndBabeld> for Babeld {
    type Result = ();

    fn handle(&mut self, _: EndBabeld, _: &mut Self::Context) {
        self.handle_life(Event::Unwanted);
    }
}
