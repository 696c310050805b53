//! Remembers how far this node is with the restart locks that a restart needs: its own and its neighbours'.

use super::{MAX_WAIT_FOR_PEERS, draining::MAX_DRAIN_TIME};
use crate::{
    names::{Prefix, Slot},
    observation::{Phase, TunnelReading},
    restart_lock::HOLD_TIME,
    units::Uptime,
    waits::Wait,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A request without an answer after this time is lost: the actor that made it has been restarted.
const ANSWER_TIMEOUT: Duration = Wait::LockRequested.limit();
/// After a restart all tunnels must have been up for this long before the locks are released: routes follow them.
const SETTLING_TIME: Duration = Duration::from_secs(2);

/// The longest time of one restart: a drain that is given up late, and the wait for peers.
const MAX_STEP_TIME: Duration = MAX_DRAIN_TIME.saturating_add(MAX_WAIT_FOR_PEERS);

/// The state of the locks; [`rolling_restart`](super) has a diagram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Locks {
    /// None is held or requested.
    #[default]
    Free,
    /// They were requested at that moment.
    Requested(Uptime),
    /// This node holds its own and those of these neighbours.
    Held {
        /// The neighbours whose locks are held.
        neighbours: BTreeSet<Prefix>,
        /// The moment at which the neighbours count the locks as expired.
        expires_at: Uptime,
    },
    /// A restart is done, and the locks are still held.
    Settling {
        /// The neighbours whose locks are held.
        neighbours: BTreeSet<Prefix>,
        /// The peers whose tunnels the restart closes.
        peers: BTreeSet<Prefix>,
        /// The locks are released at this moment at the latest.
        deadline: Uptime,
        /// Since when all tunnels have been up, and all peers back.
        whole_since: Option<Uptime>,
        /// The moment at which the neighbours count the locks as expired.
        expires_at: Uptime,
    },
}

impl Locks {
    pub(super) fn is_held(&self) -> bool {
        matches!(self, Self::Held { .. })
    }

    /// Returns whether a request has got no answer yet.
    pub(super) fn is_requested(&self) -> bool {
        matches!(self, Self::Requested(_))
    }

    /// Returns whether held locks have expired, so that neighbours may grant them to others.
    pub(super) fn have_expired(&self, now: Uptime) -> bool {
        match self {
            Self::Held { expires_at, .. } => *expires_at <= now,
            Self::Free | Self::Requested(_) | Self::Settling { .. } => false,
        }
    }

    /// Returns whether the locks are to be requested now; notes the request if so.
    pub(super) fn request(&mut self, now: Uptime) -> bool {
        let can_request = match self {
            Self::Free => true,
            Self::Requested(at) => now.since(*at) >= ANSWER_TIMEOUT,
            Self::Held { .. } | Self::Settling { .. } => false,
        };
        if can_request {
            *self = Self::Requested(now);
        }
        can_request
    }

    /// Takes the answer that all requested locks are granted. They expire [`HOLD_TIME`] after the request.
    pub(super) fn grant(&mut self, granted: BTreeSet<Prefix>, now: Uptime) {
        let requested_at = match self {
            Self::Requested(at) => *at,
            Self::Free | Self::Held { .. } | Self::Settling { .. } => now,
        };
        match self {
            Self::Free | Self::Requested(_) => {
                *self = Self::Held {
                    neighbours: granted,
                    expires_at: requested_at + HOLD_TIME,
                };
            }
            Self::Held { neighbours, .. } | Self::Settling { neighbours, .. } => {
                neighbours.extend(granted);
            }
        }
    }

    /// Takes the rejection of a request; returns whether this node is now without locks.
    pub(super) fn reject(&mut self) -> bool {
        match self {
            Self::Free | Self::Requested(_) => {
                *self = Self::Free;
                true
            }
            Self::Held { .. } | Self::Settling { .. } => false,
        }
    }

    /// Keeps the locks after a restart that closes the tunnels of `peers`, until these are back.
    pub(super) fn settle(&mut self, peers: BTreeSet<Prefix>, deadline: Uptime) {
        if let Self::Held {
            neighbours,
            expires_at,
        }
        | Self::Settling {
            neighbours,
            expires_at,
            ..
        } = self
        {
            *self = Self::Settling {
                neighbours: std::mem::take(neighbours),
                peers,
                deadline,
                whole_since: None,
                expires_at: *expires_at,
            };
        }
    }

    /// Returns whether all is settled after a restart; `None` if there was none.
    pub(super) fn has_settled(
        &mut self,
        tunnels: &BTreeMap<Slot, TunnelReading>,
        now: Uptime,
    ) -> Option<bool> {
        let Self::Settling {
            peers,
            deadline,
            whole_since,
            ..
        } = self
        else {
            return None;
        };
        let is_back = |peer: &Prefix| tunnels.values().any(|tunnel| tunnel.peer == *peer);
        let all_up = tunnels.values().all(|tunnel| tunnel.phase == Phase::Up);
        *whole_since = (all_up && peers.iter().all(is_back)).then(|| whole_since.unwrap_or(now));
        let is_settled = whole_since.is_some_and(|since| now.since(since) >= SETTLING_TIME);
        Some(is_settled || *deadline <= now)
    }

    /// Keeps the locks for another restart after the last one has settled, if they are those that it requires and do not expire
    /// before its end; returns whether they are kept.
    pub(super) fn resume(&mut self, required: &BTreeSet<Prefix>, now: Uptime) -> bool {
        let Self::Settling {
            neighbours,
            whole_since: Some(_),
            expires_at,
            ..
        } = self
        else {
            return false;
        };
        if !required.is_subset(neighbours) || now + MAX_STEP_TIME > *expires_at {
            return false;
        }
        *self = Self::Held {
            neighbours: std::mem::take(neighbours),
            expires_at: *expires_at,
        };
        true
    }

    /// Gives up all locks, and returns the neighbours whose locks are to be released, if any are held. A request
    /// that is not answered yet stays: its answer decides.
    pub(super) fn release(&mut self) -> Option<BTreeSet<Prefix>> {
        match std::mem::take(self) {
            Self::Free => None,
            Self::Requested(at) => {
                *self = Self::Requested(at);
                None
            }
            Self::Held { neighbours, .. } | Self::Settling { neighbours, .. } => Some(neighbours),
        }
    }
}
