//! Counts: the only place where what happens becomes numbers for people.
//!
//! Takes facts and readings and publishes one [`Snapshot`] a second, which the exporter and the control
//! socket read without asking anybody. Decides nothing and sends nothing.

mod counts;
mod records;
mod snapshot;
mod traffic;

pub use counts::{Counts, DrainOutcome, ROLES};
pub use snapshot::{Entry, Identity, RegistryContact, STALE, Served, Snapshot};
pub use traffic::{Row, Rows, SHOWN_AFTER_CLOSE, float};

use crate::messages::{
    ActorRestarted, CandidateProbed, CredentialsChanged, Decided, DocumentsChanged, LeasesRead,
    LinksSampled, PeersRead, ProbesRead, ProcessesRead, RegistryContacted, RoutesRead,
    TunnelCameUp, TunnelClosed, TunnelOpened, dropped_readings,
};
use actix::{Actor, AsyncContext, Context, Handler};
use arc_swap::ArcSwap;
use os::clock::{Clock, wall};
use std::{sync::Arc, time::Duration};

/// The place of the newest snapshot.
pub type Published = Arc<ArcSwap<Snapshot>>;

/// Interval between two published snapshots.
const PERIOD: Duration = Duration::from_secs(1);

/// The wall clock is believed to have been set when it is off by more than this.
const STEP: Duration = Duration::from_secs(1);

/// Creates the place for snapshots, with an empty one in it; it outlives the actor.
pub fn publish(identity: Identity, clock: &Clock) -> Published {
    let booted = wall().saturating_sub(clock.now().0);
    Arc::new(ArcSwap::from_pointee(Snapshot::new(identity, booted)))
}

/// The dependencies of telemetry.
#[derive(Clone)]
pub struct TelemetryDeps {
    /// The clock of all snapshots.
    pub clock: Clock,
    /// The place where each snapshot is published.
    pub published: Published,
}

/// The actor that counts, and publishes snapshots.
pub struct Telemetry {
    clock: Clock,
    snapshot: Snapshot,
    published: Published,
}

impl Telemetry {
    /// Goes on from the snapshot that was last published.
    pub fn new(deps: TelemetryDeps) -> Self {
        let TelemetryDeps { clock, published } = deps;
        let snapshot = Snapshot::clone(&published.load());
        Self {
            clock,
            snapshot,
            published,
        }
    }

    fn publish(&mut self) {
        let now = self.clock.now();
        self.snapshot.at = now;
        self.snapshot.readings_dropped = dropped_readings();
        // Kept while the two clocks agree, so that time stamps do not tremble.
        let booted = wall().saturating_sub(now.0);
        if booted.abs_diff(self.snapshot.booted) > STEP {
            self.snapshot.booted = booted;
        }
        self.published.store(Arc::new(self.snapshot.clone()));
    }
}

impl Actor for Telemetry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(PERIOD, |telemetry, _| telemetry.publish());
    }
}

/// Declares how each message changes the snapshot.
macro_rules! takes {
    ($($message:ident: |$snapshot:ident, $fact:ident| $change:expr;)*) => {$(
        impl Handler<$message> for Telemetry {
            type Result = ();

            fn handle(&mut self, $fact: $message, _: &mut Self::Context) {
                let $snapshot = &mut self.snapshot;
                $change;
            }
        }
    )*};
}

takes! {
    LinksSampled: |snapshot, reading| snapshot.rows.sampled(reading);
    RoutesRead: |snapshot, reading| snapshot.routes(reading);
    ProbesRead: |snapshot, reading| snapshot.probed(reading);
    PeersRead: |snapshot, reading| snapshot.peers = Arc::new(reading);
    LeasesRead: |snapshot, reading| snapshot.leases = Arc::new(reading);
    ProcessesRead: |snapshot, reading| snapshot.processes = Arc::new(reading);
    Decided: |snapshot, fact| snapshot.decided(fact);
    TunnelOpened: |snapshot, fact| snapshot.opened(&fact);
    TunnelCameUp: |snapshot, fact| snapshot.came_up(&fact);
    TunnelClosed: |snapshot, fact| snapshot.closed(&fact);
    CandidateProbed: |snapshot, fact| snapshot.candidate_probed(fact);
    RegistryContacted: |snapshot, fact| snapshot.registry_contacted(fact);
    DocumentsChanged: |snapshot, fact| snapshot.documents = fact.documents;
    CredentialsChanged: |snapshot, fact| snapshot.certificate_not_after = fact.not_after_s;
    ActorRestarted: |snapshot, fact| snapshot.actor_restarted(&fact);
}
