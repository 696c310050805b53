//! Keeps babeld running and reads its tables.
//!
//! The tables are polled with `dump`, since `monitor` doubles babeld's CPU time. The policy decides what the routes mean.

mod dump;
mod host_routes;
mod packets;
mod process;
mod seqno_reset;
mod settings;
mod start_files;
mod wanted_config;

use crate::store::Store;
use crate::{
    effects::link_orders::{LinkOrder, LinkOrderQueue},
    mailboxes::offer,
    messages::{ChildMailbox, ChildReported, OriginsClaimed, RoutesRead},
    store::{AppliedVersions, TunnelTable},
};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use dump::*;
use membership::documents::DocumentStore;
use os::randomness::Randomness;
use os::{
    clock::Clock,
    kernel::{Exit, Kernel},
    process::{ChildEvents, Happened, ProcessReading, Program, Rights, Supervised},
};
use policies::{
    life::{Event, Limits, Order, State},
    observation::{BabelTable, INFINITY, Phase},
    route_checks::OriginClaim,
    units::Uptime,
};
pub use process::{BabeldProcess, HandedBabeld};
use seqno_reset::SeqnoReset;
pub use settings::{BabeldDeps, BabeldSettings};
pub use start_files::PrepareError;
use start_files::prepare;
use std::{
    cell::{Cell, RefCell},
    ffi::OsString,
    io,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use wire::errors::Chain;
use wire::{
    babel::{self, BabelConfig, Decoder, ExitRoutes, MacKey, Reply},
    registry::DocumentKind,
};

/// Interval at which the state of the process is checked, and the tables are read while babeld starts, while a tunnel drains
/// or closes, for [`LOSS_SPAN`] after one closed, or after a packet with a false route.
const TICK_INTERVAL: Duration = Duration::from_millis(250);

/// Ticks between two readings of the tables: 2 s.
const READ_TICKS: u32 = 8;

/// Span over which nodes spread the restart of their babeld at random, since each restart interrupts transit through the node
/// for seconds.
const RESTART_WINDOW: Duration = Duration::from_secs(30);

/// Ticks between two readings in the first [`EARLY_SPAN`] after babeld's start, and between two checks for a new network
/// document: 0.5 s.
const EARLY_READ_TICKS: u32 = 2;

/// Span after babeld's start in which its tables are read every [`EARLY_READ_TICKS`].
const EARLY_SPAN: Duration = Duration::from_secs(30);

/// Span after the close of a tunnel in which alternate routes are chosen from babeld's tables.
const LOSS_SPAN: Duration = Duration::from_secs(3);

/// Maximum duration of a dump; babeld sends 150 lines in 0.6 ms (measured). A connection that hangs must be closed, since babeld
/// serves at most seven connections at once.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum time until babeld answers after its start. It opens its socket at once, but on a very slow machine (User Mode Linux on a busy one) it
/// answers only after more than ten seconds.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A babeld that has not greeted at its local socket for this long is stuck, such as one that got SIGSTOP: several connections that time
/// out. Its neighbours keep its routes for as long as that.
const MAX_SILENCE: Duration = Duration::from_secs(10);

/// Stops babeld with SIGTERM, so that it retracts its routes.
#[derive(Clone, Copy, Debug, actix::Message)]
#[rtype(result = "()")]
pub struct StopBabeld;

/// The actor that runs babeld and reads its tables.
pub struct Babeld {
    settings: BabeldSettings,
    clock: Clock,
    random: Randomness,
    kernel: Kernel,
    links: LinkOrderQueue,
    table: Rc<RefCell<TunnelTable>>,
    process: BabeldProcess,
    events: ChildEvents,
    readers: Vec<Recipient<RoutesRead>>,
    claims_to: Recipient<OriginsClaimed>,
    documents: DocumentStore,
    applied: AppliedVersions,
    /// The transit cost of the configuration file.
    configured_transit_cost: u16,
    is_transit_blocked: Rc<Cell<bool>>,
    has_ipv4_overlap: Rc<Cell<bool>>,
    /// The time at which babeld restarts because of a new network document.
    restart_at: Option<Uptime>,
    /// Whether babeld was handed over with another configuration than this program would write.
    has_other_config: bool,
    /// The version of a network document for which no configuration could be written.
    unusable_version: Option<u64>,
    /// Whether babeld announced the host's default route at the last reading.
    announces_default: bool,
    /// When a packet last said something about origins that does not fit its sender.
    suspected_at: Option<Uptime>,
    seqno_reset: SeqnoReset,
    /// When suspicious routes were last requested from those that announce them.
    verified_at: Option<Uptime>,
    ticks: u32,
    /// Whether a dump is in flight.
    is_reading: bool,
    /// Whether the routes of an exited babeld are being flushed; babeld is not started meanwhile.
    is_flushing: bool,
}

impl Babeld {
    /// Builds the actor; it takes over `process` if babeld runs already, and starts babeld if not.
    pub fn new(deps: BabeldDeps) -> Self {
        let BabeldDeps {
            settings,
            store,
            kernel,
            links,
            process,
            events,
            readers,
            claims_to,
        } = deps;
        let Store {
            clock,
            random,
            tunnels: table,
            documents,
            applied,
            is_transit_blocked,
            has_ipv4_overlap,
            ..
        } = store;

        let mut babeld = Self {
            configured_transit_cost: settings.config.transit_cost,
            is_transit_blocked,
            has_ipv4_overlap,
            settings,
            clock,
            random,
            kernel,
            links,
            table,
            process,
            events,
            readers,
            claims_to,
            documents,
            applied,
            restart_at: None,
            has_other_config: false,
            unusable_version: None,
            announces_default: false,
            suspected_at: None,
            seqno_reset: SeqnoReset::default(),
            verified_at: None,
            ticks: 0,
            is_reading: false,
            is_flushing: false,
        };
        // A running babeld already has this configuration, or gets it at its next start.
        babeld.settings.config = babeld.wanted_config();
        babeld
    }

    /// Restarts babeld if the network document or the host requires another configuration, since babeld cannot change the intervals or keys
    /// of existing interfaces.
    fn restart_if_config_changed(&mut self, ctx: &mut Context<Self>) {
        let (now, wanted) = (self.clock.now(), self.wanted_config());
        let version = self.documents.load().version(DocumentKind::Network);
        let is_changed = wanted != self.settings.config
            && match (wanted.text(), self.settings.config.text()) {
                (Ok(wanted), Ok(current)) => wanted != current,
                (Err(error), _) | (_, Err(error)) => {
                    if self.unusable_version != Some(version) {
                        self.unusable_version = Some(version);
                        tracing::warn!(version, error = %Chain(&error), "network document not applied to babeld: no configuration can be written for it");
                    }
                    return;
                }
            };
        if !is_changed && !self.has_other_config {
            self.restart_at = None;
            return self.applied.set_for_babeld(version);
        }
        let random = self.random.clone();
        let at = *self
            .restart_at
            .get_or_insert_with(|| now + RESTART_WINDOW.mul_f64(random.fraction()));
        if at <= now {
            self.restart_at = None;
            self.has_other_config = false;
            self.settings.config = wanted;
            self.configure_host(ctx);
            tracing::info!("babeld restarts with new parameters");
            self.handle_event(Event::Unwanted);
            self.handle_event(Event::Wanted);
        }
    }

    /// Passes an event to the state machine of the process, and carries out the order that follows.
    fn handle_event(&mut self, event: Event) {
        let now = self.clock.now();
        let mut process = self.process.process.borrow_mut();
        let Some(process) = process.as_mut() else {
            return;
        };
        let Some(order) = process.on(event, now) else {
            return;
        };
        if order == Order::Spawn {
            process.set_args(self.settings.args());
            if let Err(error) = prepare(&self.settings, &self.random) {
                tracing::error!(error = %Chain(&error), "cannot start babeld; the start is tried again");
                process.record_failure(Chain(&error).to_string());
                let _ = process.on(Event::Exited, now);
                return;
            }
        }
        process.carry_out(order, now, &self.events);
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        if !self.is_flushing {
            self.handle_event(Event::Tick);
        }
        self.ticks = self.ticks.wrapping_add(1);
        let state = self
            .process
            .process
            .borrow()
            .as_ref()
            .map(Supervised::state);
        if matches!(state, Some(State::Up { .. })) && self.ticks.is_multiple_of(EARLY_READ_TICKS) {
            self.restart_if_config_changed(ctx);
            self.forget_false_seqnos();
        }
        let now = self.clock.now();
        let is_changing = self.is_suspicious(now) || {
            let table = self.table.borrow();
            table.has_draining_or_closing_tunnel() || table.has_closed_within(LOSS_SPAN, now)
        };
        let interval_ticks = match state {
            Some(State::Starting { .. }) => 1,
            _ if is_changing => 1,
            Some(State::Up { since }) if now.since(since) < EARLY_SPAN => EARLY_READ_TICKS,
            Some(State::Up { .. }) => READ_TICKS,
            Some(State::Down { .. } | State::Stopping { .. }) | None => return,
        };
        if self.is_reading || !self.ticks.is_multiple_of(interval_ticks) {
            return;
        }
        self.is_reading = true;
        let socket = files::socket_of(&self.settings.config.socket, self.settings.rights.uid);
        let BabelConfig { network, ipv4, .. } = self.settings.config;
        let dump = read_dump(socket, Decoder::new(network, ipv4)).into_actor(self);
        ctx.spawn(dump.map(|answer, babeld, _| babeld.handle_dump(answer)));
    }

    /// Reports the tables that babeld answered with, or that it did not answer.
    fn handle_dump(&mut self, (has_greeted, answer): (bool, io::Result<babel::Dump>)) {
        self.is_reading = false;
        if has_greeted {
            self.handle_event(Event::Alive);
        }
        let (mut exit_routes, mut claims) = (ExitRoutes::default(), Vec::new());
        let table = match answer {
            Ok(dump) => {
                self.mark_ready();
                self.retract_lost_default(dump.exit_routes.own);
                exit_routes = dump.exit_routes;
                claims = dump.claims;
                self.verify_claims(&claims);
                Some(dump.table)
            }
            Err(error) => {
                tracing::debug!(%error, "babeld did not answer");
                None
            }
        };
        self.report(table, exit_routes, claims);
    }

    fn report(&self, table: Option<BabelTable>, exit_routes: ExitRoutes, claims: Vec<OriginClaim>) {
        // All readers share one table, since that of a flood of routes takes megabytes.
        let reading = RoutesRead {
            at: self.clock.now(),
            table: table.map(Arc::new),
            exit_routes,
            claims: claims.into(),
        };
        self.readers
            .iter()
            .for_each(|reader| offer(reader, reading.clone()));
    }
}

impl Actor for Babeld {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.events
            .attach(Box::new(ChildMailbox(ctx.address().recipient())));
        self.take_over_or_create();
        self.configure_host(ctx);
        self.handle_event(Event::Wanted);
        ctx.run_interval(TICK_INTERVAL, Self::tick);
        self.listen(ctx);
    }
}

impl Handler<ChildReported> for Babeld {
    type Result = ();

    fn handle(&mut self, ChildReported(event): ChildReported, ctx: &mut Self::Context) {
        let now = self.clock.now();
        let is_ours = self
            .process
            .process
            .borrow_mut()
            .as_mut()
            .is_some_and(|process| process.handle_child_event(&event, now));
        if is_ours && matches!(event.happened, Happened::Exited { .. }) {
            self.seqno_reset.forget();
            // The readers learn that there are no tables before the routes are flushed.
            self.report(None, ExitRoutes::default(), Vec::new());
            self.flush_routes(ctx);
        }
    }
}

impl Handler<StopBabeld> for Babeld {
    type Result = ();

    fn handle(&mut self, _: StopBabeld, _: &mut Self::Context) {
        self.handle_event(Event::Unwanted);
    }
}
