//! Starts OpenVPN's processes anew, one by one, after certificates or keys have changed, since each reads
//! them at its start only.
//!
//! What is started anew is drained first, while no neighbour does the like ([`turns`](crate::restart_lock)). Dialled
//! tunnels are handed to the planner, which closes a draining one once nothing passes, or gives up; a server
//! is done here, since all its tunnels end with it.

use policies::{
    names::{Prefix, Slot},
    units::Uptime,
    world::{Phase, TunnelReading},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Between two processes.
pub(super) const REST: Duration = Duration::from_secs(3);
/// What could not be drained is tried again after this.
pub(super) const AGAIN: Duration = Duration::from_secs(30);
/// Who did not get all turns asks again after half of this up to one and a half of it.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(2);
/// An actor that asked for turns and has not heard for so long died meanwhile.
const ASKS: Duration = Duration::from_secs(30);
/// All tunnels must have been up for so long after a step: routes follow them.
const SETTLED: Duration = Duration::from_secs(3);
/// Peers whose tunnels have ended by a step are waited for no longer than this.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// How far we are with the turns that a step needs.
#[derive(Debug, Default)]
pub(super) enum Turns {
    /// Not asked for.
    #[default]
    None,
    /// Asked for at that moment.
    Asked(Uptime),
    /// All given, by those neighbours.
    CurrentDocuments(BTreeSet<Prefix>),
    /// The step is done; turns are given back once all has settled.
    Settling(Settling),
}

/// What is waited for after a step.
#[derive(Debug)]
pub(super) struct Settling {
    /// Who gave us their turns.
    pub(super) given: BTreeSet<Prefix>,
    /// Whose tunnels have ended by it.
    pub(super) peers: BTreeSet<Prefix>,
    /// No longer than until then.
    pub(super) until: Uptime,
    /// Since when all tunnels are up.
    pub(super) whole: Option<Uptime>,
}

impl Settling {
    /// Looks at all tunnels; whether nothing is to be waited for any more.
    pub(super) fn is_over(&mut self, tunnels: &BTreeMap<Slot, TunnelReading>, now: Uptime) -> bool {
        let is_back = |peer: &Prefix| tunnels.values().any(|tunnel| tunnel.peer == *peer);
        let whole = tunnels.values().all(|tunnel| tunnel.phase == Phase::Up);
        self.whole = (whole && self.peers.iter().all(is_back)).then(|| self.whole.unwrap_or(now));
        self.until <= now || self.whole.is_some_and(|whole| now.since(whole) >= SETTLED)
    }
}

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
    /// Ours and our neighbours'.
    pub(super) turns: Turns,
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

    /// Whether turns were asked for that may still come.
    pub(super) fn asks(&self, now: Uptime) -> bool {
        matches!(self.turns, Turns::Asked(at) if now.since(at) < ASKS)
    }

    /// The neighbours' turns, once all are given and not used yet.
    pub(super) fn has_turns(&self) -> bool {
        matches!(self.turns, Turns::CurrentDocuments(_))
    }

    /// Whose turns are to be given back, now that they are not used.
    pub(super) fn leave_turns(&mut self) -> Option<BTreeSet<Prefix>> {
        match std::mem::take(&mut self.turns) {
            Turns::None | Turns::Asked(_) => None,
            Turns::CurrentDocuments(given) | Turns::Settling(Settling { given, .. }) => Some(given),
        }
    }

    /// A step is done by which the tunnels of `peers` end or have ended.
    pub(super) fn settle(&mut self, peers: BTreeSet<Prefix>, until: Uptime) {
        if let Some(given) = self.leave_turns() {
            self.turns = Turns::Settling(Settling {
                given,
                peers,
                until,
                whole: None,
            });
        }
    }

    /// Whether there is no time left to drain.
    pub(super) fn must(&self, now: Uptime) -> bool {
        self.force.is_some_and(|force| force <= now)
    }

    /// Whether that dialled tunnel was not tried a short while ago.
    pub(super) fn may_try(&self, slot: Slot, now: Uptime) -> bool {
        self.tried
            .get(&slot)
            .is_none_or(|at| now.since(*at) >= AGAIN)
    }
}
