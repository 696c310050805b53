//! Counts: the only place where what happens becomes numbers for people.
//!
//! Takes facts and readings and publishes one [`Snapshot`] a second, which the exporter and the control
//! socket read without asking anybody. Decides nothing and sends nothing.

mod counts;
mod snapshot;
mod traffic;

pub use counts::{Counts, DrainOutcome, ROLES};
pub use snapshot::{Entry, Identity, Registry, STALE, Served, Snapshot};
pub use traffic::{Row, Rows, SHOWN_AFTER_END, float};

use crate::messages::{
    ActorRestarted, CredentialsChanged, Decided, DocumentsChanged, LeasesRead, LinksSampled,
    PeerSounded, PeersRead, ProbesRead, ProcessesRead, RegistryContacted, RoutesRead, TunnelCameUp,
    TunnelClosed, TunnelOpened, dropped_readings,
};
use actix::{Actor, AsyncContext, Context, Handler};
use arc_swap::ArcSwap;
use os::clock::{Clock, wall};
use std::{sync::Arc, time::Duration};

/// Where the newest picture lies.
pub type Published = Arc<ArcSwap<Snapshot>>;

/// How often a new picture is published.
const PERIOD: Duration = Duration::from_secs(1);

/// The wall clock is believed to have been set when it is off by more than this.
const STEP: Duration = Duration::from_secs(1);

/// The place for pictures, with an empty one in it; outlives the actor.
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

/// The actor.
pub struct Telemetry {
    clock: Clock,
    picture: Snapshot,
    published: Published,
}

impl Telemetry {
    /// Goes on from the picture that was last published.
    pub fn new(deps: TelemetryDeps) -> Self {
        let TelemetryDeps { clock, published } = deps;
        let picture = Snapshot::clone(&published.load());
        Self {
            clock,
            picture,
            published,
        }
    }

    fn publish(&mut self) {
        let now = self.clock.now();
        self.picture.at = now;
        self.picture.readings_dropped = dropped_readings();
        // Kept while the two clocks agree, so that time stamps do not tremble.
        let booted = wall().saturating_sub(now.0);
        if booted.abs_diff(self.picture.booted) > STEP {
            self.picture.booted = booted;
        }
        self.published.store(Arc::new(self.picture.clone()));
    }
}

impl Actor for Telemetry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(PERIOD, |telemetry, _| telemetry.publish());
    }
}

/// Says what a message changes in the picture.
macro_rules! takes {
    ($($message:ident: |$picture:ident, $fact:ident| $change:expr;)*) => {$(
        impl Handler<$message> for Telemetry {
            type Result = ();

            fn handle(&mut self, $fact: $message, _: &mut Self::Context) {
                let $picture = &mut self.picture;
                $change;
            }
        }
    )*};
}

takes! {
    LinksSampled: |picture, reading| picture.rows.sampled(reading);
    RoutesRead: |picture, reading| picture.routes(reading);
    ProbesRead: |picture, reading| picture.probed(reading);
    PeersRead: |picture, reading| picture.peers = Arc::new(reading);
    LeasesRead: |picture, reading| picture.leases = Arc::new(reading);
    ProcessesRead: |picture, reading| picture.processes = Arc::new(reading);
    Decided: |picture, fact| picture.decided(fact);
    TunnelOpened: |picture, fact| picture.opened(&fact);
    TunnelCameUp: |picture, fact| picture.came_up(&fact);
    TunnelClosed: |picture, fact| picture.closed(&fact);
    PeerSounded: |picture, fact| picture.sounded(fact);
    RegistryContacted: |picture, fact| picture.asked(fact);
    DocumentsChanged: |picture, fact| picture.held = fact.held;
    CredentialsChanged: |picture, fact| picture.certificate_not_after = fact.not_after_s;
    ActorRestarted: |picture, fact| picture.remade(&fact);
}
