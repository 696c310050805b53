//! Counts events, and publishes the state of the node for people.
//!
//! This actor receives facts and readings, and publishes one [`Snapshot`] a second, which the exporter and the
//! control socket read without sending a message. It decides nothing and sends nothing. No other code counts
//! events.

mod children;
mod counts;
mod event_log;
mod event_sources;
mod readings;
mod records;
mod route_history;
mod snapshot;
mod traffic;
mod tunnel_facts;

pub use children::{ChildTotals, Children};
pub use counts::{Counts, DrainOutcome, ROLES};
pub use event_log::{EventLog, EventRecord, PresentFinding};
pub use route_history::{RouteChange, RouteHistory};
pub use snapshot::{
    Entry, HostRecord, NodeDescription, ReadTimes, RegistryContact, STALE, Served, Snapshot,
};
pub use traffic::{Row, Rows, SHOWN_AFTER_CLOSE, float};

use crate::mailboxes::dropped_readings;
use crate::messages::{
    ActorRestarted, CandidateProbed, CredentialsChanged, Decided, DocumentsChanged,
    EndpointsChecked, HolePunchesRead, HostCompared, HostRepaired, KeyShared, LanRead, LeasesRead,
    LinksSampled, OwnEndpointsRead, PeersRead, PinholesRead, ProbesRead, ProcessesRead,
    RegistryContacted, RoutesRead, RoutesSuspected, SettingsChanged, TunnelCameUp, TunnelClosed,
    TunnelOpened, WaitOverdue,
};
use crate::operator::SharedPins;
use actix::{Actor, AsyncContext, Context, Handler};
use arc_swap::ArcSwap;
use membership::node_names::NodeNames;
use os::clock::{Clock, wall};
use policies::units::Uptime;
use std::{sync::Arc, time::Duration};

/// The newest snapshot, as readers share it.
pub type Published = Arc<ArcSwap<Snapshot>>;

/// Interval between two published snapshots.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);

/// Deviation of the wall clock from the monotonic one above which the wall clock counts as having been set.
const MAX_CLOCK_DEVIATION: Duration = Duration::from_secs(1);

/// Publishes the first snapshot, which has no more than the names. What it returns outlives the actor.
pub fn publish(identity: NodeDescription, names: &NodeNames, clock: &Clock) -> Published {
    let booted_at = wall().saturating_sub(clock.now().0);
    let mut snapshot = Snapshot::new(identity, booted_at);
    snapshot.names = names.load();
    snapshot.log_start();
    Arc::new(ArcSwap::from_pointee(snapshot))
}

/// The dependencies of telemetry.
#[derive(Clone)]
pub struct TelemetryDeps {
    /// The clock for the timestamps of snapshots.
    pub clock: Clock,
    /// Where each snapshot is published.
    pub published: Published,
    /// The names of nodes.
    pub names: NodeNames,
    /// The nodes that an operator has pinned.
    pub pins: SharedPins,
    /// Assesses the health of the node of a snapshot, so that its findings become events.
    pub find: fn(&Snapshot, Uptime) -> Vec<PresentFinding>,
}

/// The actor that counts events and publishes snapshots.
pub struct Telemetry {
    clock: Clock,
    snapshot: Snapshot,
    published: Published,
    names: NodeNames,
    pins: SharedPins,
    find: fn(&Snapshot, Uptime) -> Vec<PresentFinding>,
}

impl Telemetry {
    /// Builds the actor, which continues from the snapshot that was last published.
    pub fn new(deps: TelemetryDeps) -> Self {
        let TelemetryDeps {
            clock,
            published,
            names,
            pins,
            find,
        } = deps;
        let snapshot = Snapshot::clone(&published.load());
        Self {
            clock,
            snapshot,
            published,
            names,
            pins,
            find,
        }
    }

    fn publish(&mut self) {
        let now = self.clock.now();
        self.snapshot.at = now;
        self.snapshot.readings_dropped = dropped_readings();
        self.snapshot.names = self.names.load();
        self.snapshot.pins = self.pins.load_full();
        // The boot time is kept while both clocks agree, so that the timestamps of past events do not jitter.
        let booted_at = wall().saturating_sub(now.0);
        if booted_at.abs_diff(self.snapshot.booted_at) > MAX_CLOCK_DEVIATION {
            self.snapshot.booted_at = booted_at;
        }
        let present = (self.find)(&self.snapshot, now);
        self.snapshot.log_findings(&present);
        self.published.store(Arc::new(self.snapshot.clone()));
    }
}

impl Actor for Telemetry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(PUBLISH_INTERVAL, |telemetry, _| telemetry.publish());
    }
}

/// Implements a handler for each message, which changes the snapshot. `now` is the time at which it is handled.
macro_rules! handlers {
    ($($message:ident: |$snapshot:ident, $fact:ident, $now:ident| $change:expr;)*) => {$(
        impl Handler<$message> for Telemetry {
            type Result = ();

            fn handle(&mut self, $fact: $message, _: &mut Self::Context) {
                let $now = self.clock.now();
                let $snapshot = &mut self.snapshot;
                $change;
            }
        }
    )*};
}

handlers! {
    LinksSampled: |snapshot, reading, _now| snapshot.on_links_sampled(reading);
    RoutesRead: |snapshot, reading, now| {
        let gateway = snapshot.gateway();
        snapshot.log_routes(&reading);
        snapshot.on_routes_read(reading);
        snapshot.log_gateway(now, gateway);
    };
    RoutesSuspected: |snapshot, fact, now| {
        snapshot.log_suspected(now, &fact);
        snapshot.on_routes_suspected(fact);
    };
    ProbesRead: |snapshot, reading, _now| snapshot.on_probes_read(reading);
    PeersRead: |snapshot, reading, _now| snapshot.peers = Arc::new(reading);
    LanRead: |snapshot, reading, _now| snapshot.lan = Arc::new(reading);
    LeasesRead: |snapshot, reading, _now| {
        snapshot.log_leases(&reading);
        snapshot.leases = Arc::new(reading);
    };
    PinholesRead: |snapshot, reading, _now| snapshot.pinholes = Arc::new(reading);
    ProcessesRead: |snapshot, reading, _now| {
        snapshot.log_processes(&reading);
        snapshot.on_processes_read(reading);
    };
    Decided: |snapshot, fact, _now| {
        snapshot.log_decided(&fact);
        snapshot.on_decided(fact);
    };
    TunnelOpened: |snapshot, fact, _now| {
        snapshot.log_opened(&fact);
        snapshot.on_tunnel_opened(&fact);
    };
    TunnelCameUp: |snapshot, fact, _now| {
        snapshot.on_tunnel_up(&fact);
        snapshot.log_came_up(&fact);
    };
    TunnelClosed: |snapshot, fact, _now| {
        snapshot.log_closed(&fact);
        snapshot.on_tunnel_closed(&fact);
    };
    CandidateProbed: |snapshot, fact, _now| snapshot.on_candidate_probed(fact);
    RegistryContacted: |snapshot, fact, _now| snapshot.on_registry_contacted(fact);
    DocumentsChanged: |snapshot, fact, now| {
        snapshot.log_documents(now, &fact);
        snapshot.documents = fact.documents;
    };
    CredentialsChanged: |snapshot, fact, _now| {
        snapshot.log_certificate(&fact);
        snapshot.certificate = fact.certificate.map(Arc::new);
    };
    EndpointsChecked: |snapshot, reading, _now| snapshot.endpoint_checks = Arc::new(reading);
    HolePunchesRead: |snapshot, reading, _now| snapshot.hole_punches = Arc::new(reading);
    OwnEndpointsRead: |snapshot, reading, _now| snapshot.own_endpoints = Arc::new(reading);
    SettingsChanged: |snapshot, fact, now| {
        snapshot.log_reload(now, &fact.settings.pending_restart);
        snapshot.on_settings_changed(&fact.settings);
    };
    ActorRestarted: |snapshot, fact, now| {
        snapshot.log_actor_restarted(now, &fact);
        snapshot.on_actor_restarted(&fact);
    };
    WaitOverdue: |snapshot, fact, now| {
        snapshot.log_overdue(now, &fact);
        snapshot.on_wait_overdue(fact);
    };
    HostCompared: |snapshot, reading, _now| Arc::make_mut(&mut snapshot.host).comparison = reading;
    HostRepaired: |snapshot, fact, _now| snapshot.on_host_repaired(fact);
    KeyShared: |snapshot, fact, _now| snapshot.on_key_shared(&fact);
}
