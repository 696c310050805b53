//! Decides when OpenVPN's processes restart after certificates or keys have changed.
//!
//! OpenVPN reads its files only when it starts. So the processes restart, drained first, while no node at the other end of
//! a tunnel restarts ([`restart_lock`](crate::restart_lock)). Servers come first: a peer that dials a restarted
//! server again does so with its own new files. Dialled tunnels that still run with old files follow, as many together as
//! leave every node a route, and dial the same peer again.
//!
//! ```text
//!            outdated process, all tunnels up: ACQUIRE LOCKS
//!  ┌──────┐ ───────────────────────────────────────► ┌───────────┐ ──┐ no answer for 30 s:
//!  │ Free │                                          │ Requested │   │ ACQUIRE LOCKS
//!  └──────┘ ◄── rejected: pause of 0.25 to 0.75 s ── └───────────┘ ◄─┘
//!   ▲    ▲                                             │ granted
//!   │    │                                             ▼
//!   │    └─ no process can restart: RELEASE LOCKS ─ ┌──────┐
//!   │                                               │ Held │ ─ DRAIN all tunnels of a server, or dialled ones ─┐
//!   │                                               └──────┘ ◄─ traffic stays: UNDRAIN ── ┌──────────┐         │
//!   │    all tunnels up again for 2 s, time left for   ▲                                  │ draining │ ◄───────┘
//!   │    another restart ──────────────────────────────┤                                  └──────────┘
//!   │                                               ┌──────────┐                            │ drained:
//!   └── no time left: RELEASE LOCKS, pause ──────── │ Settling │ ◄────────────── RESTART ───┘
//!                                                   └──────────┘
//! ```
//!
//! A server without tunnels restarts without locks. So does everything once the restart is forced.
//!
//! A restart takes about eight seconds, and at most 25 as a rule: a drain of seven hellos, and a wait of 15 s for peers. If
//! neighbours share each lock, a node waits at most for the restarts of each neighbour: its server, and dialled
//! tunnels that are still outdated afterwards, in two groups as a rule. A change so takes at most three restarts for each
//! tunnel of the node that has most, and three more. Where neighbours cannot share a lock, nodes two tunnels away count, too.
//! `warren-sim rotate` computes both bounds, and the time that a change really takes.

mod attempts;
mod draining;
mod locks;
mod observation;
mod orders;

pub use observation::{FilesChanged, RestartObservation, ServerReading};
pub use orders::RestartOrder;

use crate::{
    names::{Prefix, Slot},
    rng::Rng,
    units::Uptime,
};
use attempts::{Attempted, Attempts};
use draining::Draining;
use locks::Locks;
use std::{collections::BTreeSet, time::Duration};

/// Pause after the locks were released, so that neighbours get them.
const RESTART_PAUSE: Duration = Duration::from_secs(3);
/// Shortest and longest delay before a rejected request for locks is repeated; drawn, so that of two nodes that
/// want the same locks one comes first.
const LOCK_RETRY_DELAY: (Duration, Duration) =
    (Duration::from_millis(250), Duration::from_millis(750));
/// If servers restart, too, dialled tunnels wait for this long for each tunnel of the node, and once more: for the step of
/// each neighbour, one after the other. Those whose peer's server restarts meanwhile are dialled again anyway.
const DIAL_DELAY_PER_TUNNEL: Duration = Duration::from_secs(12);
/// The shortest such wait, since peers may have more tunnels than this node.
const MIN_DIAL_DELAY: Duration = Duration::from_secs(60);
/// Longest wait for the peers whose tunnels a restart has closed.
const MAX_WAIT_FOR_PEERS: Duration = Duration::from_secs(15);

/// The state of a rolling restart.
#[derive(Clone, Debug, Default)]
pub struct RollingRestart {
    /// Servers that started before this moment run with old files.
    servers_outdated_before: Uptime,
    /// Dialled tunnels that started before this moment run with old files.
    dials_outdated_before: Uptime,
    /// The moment before which no process restarts.
    start_at: Uptime,
    /// Whether dialled tunnels wait for the servers of their peers.
    dials_follow_servers: bool,
    /// The moment from which on processes restart even if they cannot be drained.
    force_at: Option<Uptime>,
    /// The version of the network document that the files agree with.
    network_version: u64,
    /// The end of the pause after the last restart or attempt.
    paused_until: Uptime,
    /// The restarts that were given up.
    attempts: Attempts,
    /// The restart locks of this node and its neighbours.
    locks: Locks,
    /// The tunnels that drain now.
    draining: Option<Draining>,
}

impl RollingRestart {
    /// Takes notice of new files: processes that started before run with the old ones.
    pub fn on_files_changed(&mut self, change: &FilesChanged) {
        self.network_version = change.network_version;
        if !change.servers && !change.dials {
            return;
        }
        if change.servers {
            self.servers_outdated_before = change.at;
        }
        if change.dials {
            self.dials_outdated_before = change.at;
        }
        self.start_at = change.at + change.start_after;
        self.dials_follow_servers = change.servers;
        self.force_at = Some(change.at + change.force_after);
        self.attempts.clear();
    }

    /// Takes the answer to [`RestartOrder::AcquireLocks`]: all locks were granted, or none is held.
    pub fn on_lock_answer(
        &mut self,
        granted: bool,
        neighbours: BTreeSet<Prefix>,
        now: Uptime,
        rng: &mut Rng,
    ) {
        if granted {
            self.locks.grant(neighbours, now);
        } else if self.locks.reject() {
            let (shortest, longest) = LOCK_RETRY_DELAY;
            self.paused_until = now + rng.span(shortest, longest);
        }
    }

    /// Returns the moment from which on outdated processes restart even if they cannot be drained.
    pub fn forced_at(&self) -> Option<Uptime> {
        self.force_at
    }

    /// Returns whether tunnels drain so that their processes can restart.
    pub fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Returns whether a server that started at that moment runs with old files.
    pub fn is_server_outdated(&self, started_at: Uptime) -> bool {
        started_at < self.servers_outdated_before
    }

    /// Returns whether a dialled tunnel that started at that moment runs with old files.
    pub fn is_dial_outdated(&self, started_at: Uptime) -> bool {
        started_at < self.dials_outdated_before
    }

    /// Decides the next step; to be called several times a second. The orders are to be carried out in their order.
    pub fn step(&mut self, seen: &RestartObservation<'_>) -> Vec<RestartOrder> {
        let mut orders = Vec::new();
        if let Some(draining) = self.draining.take() {
            self.continue_drain(draining, seen, &mut orders);
            return orders;
        }
        if self.locks.have_expired(seen.now) {
            self.release_locks(&mut orders);
        }
        if let Some(has_settled) = self.locks.has_settled(seen.tunnels, seen.now) {
            if !has_settled {
                return orders;
            }
            if self.locks.resume(&seen.required_locks(), seen.now) {
                self.paused_until = seen.now;
            } else {
                self.pause(seen.now);
                self.release_locks(&mut orders);
            }
        }
        let is_outdated = |server: &&ServerReading| self.is_server_outdated(server.started_at);
        let has_outdated_server = seen.servers.values().any(|server| is_outdated(&server));
        let dials = seen.dials.iter();
        let outdated_dials: Vec<_> = dials
            .filter(|(_, started_at)| self.is_dial_outdated(**started_at))
            .map(|(slot, _)| *slot)
            .collect();
        if !has_outdated_server && outdated_dials.is_empty() {
            self.release_locks(&mut orders);
            let network_version = self.network_version;
            orders.push(RestartOrder::ReportApplied { network_version });
            return orders;
        }
        self.restart_next(&outdated_dials, seen, &mut orders);
        orders
    }

    /// Starts to drain an outdated server, or else outdated dials, once all locks are held.
    fn restart_next(
        &mut self,
        outdated_dials: &[Slot],
        seen: &RestartObservation<'_>,
        orders: &mut Vec<RestartOrder>,
    ) {
        let is_forced = self.is_forced(seen.now);
        if !self.can_start(seen.now) || !(seen.are_all_tunnels_up() || is_forced) {
            return;
        }
        let is_idle = |server: &ServerReading| server.slots.is_empty();
        let servers = seen.servers.iter().filter(|(transport, server)| {
            let is_due = self
                .attempts
                .is_due(Attempted::Server(**transport), seen.now);
            self.is_server_outdated(server.started_at) && (is_due || is_forced)
        });
        let server = servers.min_by_key(|(_, server)| !is_idle(server));
        let dials = outdated_dials.iter().copied();
        let dials: Vec<_> = dials
            .filter(|_| self.can_start_dials(seen) || is_forced)
            .filter(|slot| self.attempts.is_due(Attempted::Dial(*slot), seen.now))
            .collect();
        match server {
            Some((transport, server)) if is_idle(server) => {
                self.drain_server(*transport, server, seen, orders);
            }
            None if dials.is_empty() => self.release_locks(orders),
            Some(_) | None if !is_forced && !self.hold_locks(seen, orders) => {}
            Some((transport, server)) => self.drain_server(*transport, server, seen, orders),
            None => self.drain_dials(&dials, seen, orders),
        }
    }

    fn pause(&mut self, now: Uptime) {
        self.paused_until = now + RESTART_PAUSE;
    }

    fn can_start(&self, now: Uptime) -> bool {
        self.start_at <= now && self.paused_until <= now
    }

    /// Returns whether dialled tunnels restart now, if they are still outdated.
    fn can_start_dials(&self, seen: &RestartObservation<'_>) -> bool {
        let tunnels = u32::try_from(seen.tunnels.len()).unwrap_or(u32::MAX);
        let delay = DIAL_DELAY_PER_TUNNEL.saturating_mul(tunnels.saturating_add(1));
        let delay = delay.max(MIN_DIAL_DELAY);
        !self.dials_follow_servers || self.start_at + delay <= seen.now
    }

    fn is_forced(&self, now: Uptime) -> bool {
        self.force_at.is_some_and(|force_at| force_at <= now)
    }

    /// Returns whether all required locks are held; requests them if they can be requested.
    fn hold_locks(
        &mut self,
        seen: &RestartObservation<'_>,
        orders: &mut Vec<RestartOrder>,
    ) -> bool {
        if self.locks.is_held() {
            return true;
        }
        let was_requested = self.locks.is_requested();
        if !seen.is_locked_by_neighbour && self.locks.request(seen.now) {
            if was_requested {
                orders.push(RestartOrder::ReportLostRequest);
            }
            let neighbours = seen.required_locks();
            orders.push(RestartOrder::AcquireLocks { neighbours });
        }
        false
    }

    fn release_locks(&mut self, orders: &mut Vec<RestartOrder>) {
        if let Some(neighbours) = self.locks.release() {
            orders.push(RestartOrder::ReleaseLocks { neighbours });
        }
    }
}

#[cfg(test)]
mod tests;
