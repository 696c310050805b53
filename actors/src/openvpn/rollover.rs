//! Starts OpenVPN's processes anew, one by one, after certificates or keys have changed, since each reads
//! them at its start only.
//!
//! What is started anew is drained first. Dialled tunnels are handed to the planner, which closes a draining
//! one once nothing passes, or gives up; a server is done here, since all its tunnels end with it.

use policies::{names::Slot, units::Uptime};
use std::{collections::BTreeMap, time::Duration};

/// Between two processes.
pub(super) const REST: Duration = Duration::from_secs(3);
/// What could not be drained is tried again after this.
pub(super) const AGAIN: Duration = Duration::from_secs(30);
/// What is to be started anew, and how far that has come. Outlives the actor.
#[derive(Debug, Default)]
pub(super) struct Rollover {
    /// Servers that were started before have old files.
    pub(super) servers_before: Uptime,
    /// Dialled tunnels that were begun before have old files.
    pub(super) dials_before: Uptime,
    /// Not before.
    begin: Uptime,
    /// From then on nothing is drained any more.
    force: Option<Uptime>,
    /// The network document that is applied once nothing is left to do.
    pub(super) version: u64,
    /// Nothing before this.
    pub(super) rests_until: Uptime,
    /// When a dialled tunnel was last begun to drain for this.
    pub(super) tried: BTreeMap<Slot, Uptime>,
}

impl Rollover {
    /// New files: a new turn, or one that goes on with more to do.
    pub(super) fn changed(&mut self, change: &crate::messages::CredentialsChanged) {
        self.version = change.network_version;
        if !change.servers && !change.dials {
            return;
        }
        if change.servers {
            self.servers_before = change.at;
        }
        if change.dials {
            self.dials_before = change.at;
        }
        self.begin = change.at + change.after;
        self.force = Some(change.at + change.at_the_latest);
        self.tried.clear();
    }

    /// Whether something may be done now.
    pub(super) fn may(&self, now: Uptime) -> bool {
        self.begin <= now && self.rests_until <= now
    }

    /// Whether there is no time left to drain.
    pub(super) fn must(&self, now: Uptime) -> bool {
        self.force.is_some_and(|force| force <= now)
    }

    /// Whether that dialled tunnel was not tried a short while ago.
    pub(super) fn may_try(&self, slot: Slot, now: Uptime) -> bool {
        self.tried.get(&slot).is_none_or(|at| now.since(*at) >= AGAIN)
    }
}
