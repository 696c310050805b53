//! Decides when OpenVPN's processes restart after certificates or keys have changed.
//!
//! OpenVPN reads its files only when it starts. So the processes restart one after the other: each is drained
//! first, and no two neighbouring nodes restart at the same time ([`restart_lock`](crate::restart_lock)).
//! A dialled tunnel is only drained here; the planner closes it once nothing passes any more, and dials again.
//! A server restarts here, since all its tunnels end with it.
//!
//! ```text
//!            outdated process, all tunnels up: ACQUIRE LOCKS
//!  ┌──────┐ ───────────────────────────────────────► ┌───────────┐ ──┐ no answer for 30 s:
//!  │ Free │                                          │ Requested │   │ ACQUIRE LOCKS
//!  └──────┘ ◄────── rejected: pause of 1 to 3 s ──── └───────────┘ ◄─┘
//!   ▲    ▲                                             │ granted
//!   │    │                                             ▼
//!   │    └─ no process can restart: RELEASE LOCKS ─ ┌──────┐
//!   │                                               │ Held │ ─ DRAIN all tunnels of a server ──► server drains
//!   │                                               └──────┘ ◄─ traffic stays: UNDRAIN, pause ─────┘   │
//!   │                                                  │ DRAIN a dialled tunnel                        │ drained
//!   │                                                  ▼                                               ▼
//!   │   all tunnels up again for 3 s,             ┌──────────┐                                  RESTART SERVER
//!   └── or the deadline: RELEASE LOCKS, pause ─── │ Settling │ ◄───────────────────────────────────────┘
//!                                                 └──────────┘
//! ```
//!
//! A server without tunnels restarts without locks. So does everything once the restart is forced.

mod locks;
mod observation;
mod orders;
mod server_drain;

pub use observation::{FilesChanged, RestartObservation, ServerReading};
pub use orders::RestartOrder;

use crate::{
    names::{Prefix, Slot, Transport},
    observation::{Phase, TunnelReading},
    orders::{AbandonReason, CloseReason, Decision, Order},
    parameters::DRAIN_DEADLINE,
    rng::Rng,
    routes::RouteIndex,
    units::Uptime,
};
use locks::Locks;
use server_drain::{ServerDrain, only_route, server_drain};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Pause between two restarts.
const RESTART_PAUSE: Duration = Duration::from_secs(3);
/// A process that could not be drained is tried again after this time.
const RETRY_DELAY: Duration = Duration::from_secs(30);
/// Shortest and longest delay before a rejected request for locks is repeated; drawn, so that of two nodes that
/// want the same locks one comes first.
const LOCK_RETRY_DELAY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));
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
    /// The moment from which on processes restart even if they cannot be drained.
    force_at: Option<Uptime>,
    /// The version of the network document that the files agree with.
    network_version: u64,
    /// The end of the pause after the last restart or attempt.
    paused_until: Uptime,
    /// The moment at which each dialled tunnel was last drained to restart.
    attempts: BTreeMap<Slot, Uptime>,
    /// The restart locks of this node and its neighbours.
    locks: Locks,
    /// The server that drains, and since when.
    draining_server: Option<(Transport, Uptime)>,
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
        if let Some((transport, since)) = self.draining_server {
            self.continue_server_drain(transport, since, seen, &mut orders);
            return orders;
        }
        if self.locks.have_expired(seen.now) {
            self.release_locks(&mut orders);
        }
        if let Some(has_settled) = self.locks.has_settled(seen.tunnels, seen.now) {
            if !has_settled {
                return orders;
            }
            self.paused_until = seen.now + RESTART_PAUSE;
            self.release_locks(&mut orders);
        }
        let servers = seen.servers.iter();
        let mut servers = servers.filter(|(_, server)| self.is_server_outdated(server.started_at));
        let server = servers.next();
        let dials = seen.dials.iter();
        let mut dials = dials
            .filter(|(_, started_at)| self.is_dial_outdated(**started_at))
            .peekable();
        if server.is_none() && dials.peek().is_none() {
            self.release_locks(&mut orders);
            let network_version = self.network_version;
            orders.push(RestartOrder::ReportApplied { network_version });
            return orders;
        }
        let is_forced = self.is_forced(seen.now);
        if !self.can_start(seen.now) || !(seen.are_all_tunnels_up() || is_forced) {
            return orders;
        }
        let dial = dials.find(|(slot, _)| self.can_attempt(**slot, seen.now));
        // Servers come first: a peer that dials a restarted server does so with its own new files, and need not
        // restart that tunnel once more.
        match (server, dial) {
            (Some((transport, server)), _) if server.slots.is_empty() => {
                self.drain_server(*transport, server, seen, &mut orders);
            }
            (None, None) => self.release_locks(&mut orders),
            (_, _) if !is_forced && !self.hold_locks(seen, &mut orders) => {}
            (Some((transport, server)), _) => {
                self.drain_server(*transport, server, seen, &mut orders);
            }
            (None, Some((slot, started_at))) => {
                self.restart_dial(*slot, *started_at, seen, &mut orders);
            }
        }
        orders
    }

    fn can_start(&self, now: Uptime) -> bool {
        self.start_at <= now && self.paused_until <= now
    }

    fn is_forced(&self, now: Uptime) -> bool {
        self.force_at.is_some_and(|force_at| force_at <= now)
    }

    fn can_attempt(&self, slot: Slot, now: Uptime) -> bool {
        self.attempts
            .get(&slot)
            .is_none_or(|at| now.since(*at) >= RETRY_DELAY)
    }

    /// Returns whether all required locks are held; requests them if they can be requested.
    fn hold_locks(
        &mut self,
        seen: &RestartObservation<'_>,
        orders: &mut Vec<RestartOrder>,
    ) -> bool {
        let held_by_other = seen.lock_holder.is_some_and(|holder| holder != seen.me);
        if self.locks.is_held() {
            return true;
        }
        let was_requested = self.locks.is_requested();
        if !held_by_other && self.locks.request(seen.now) {
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

    fn restart_dial(
        &mut self,
        slot: Slot,
        started_at: Uptime,
        seen: &RestartObservation<'_>,
        orders: &mut Vec<RestartOrder>,
    ) {
        let now = seen.now;
        self.attempts.insert(slot, now);
        self.paused_until = now + RESTART_PAUSE;
        let peer = seen.tunnels.get(&slot).map(|tunnel| tunnel.peer);
        let deadline = now + DRAIN_DEADLINE + MAX_WAIT_FOR_PEERS;
        self.locks.settle(peer.into_iter().collect(), deadline);
        let reason = CloseReason::Renewed;
        let running_for = now.since(started_at).as_secs();
        let decision = if self.is_forced(now) {
            Decision {
                order: Order::Close { slot, reason },
                terms: format!(
                    "OpenVPN runs with old certificates or keys, and the time to drain its tunnel has elapsed; \
                     running_for={running_for} s"
                ),
            }
        } else {
            Decision {
                order: Order::Drain { slot, reason },
                terms: format!(
                    "OpenVPN runs with old certificates or keys and has to restart; running_for={running_for} s"
                ),
            }
        };
        orders.push(RestartOrder::Tunnel(decision));
    }

    fn drain_server(
        &mut self,
        transport: Transport,
        server: &ServerReading,
        seen: &RestartObservation<'_>,
        orders: &mut Vec<RestartOrder>,
    ) {
        let stays = |slot: Slot| !server.slots.contains(&slot);
        let index = seen
            .routes
            .map(|routes| RouteIndex::new(routes, seen.me, stays));
        let node = index.and_then(|index| only_route(&index, &server.slots));
        if let Some(node) = node.filter(|_| !self.is_forced(seen.now)) {
            self.paused_until = seen.now + RETRY_DELAY;
            orders.push(RestartOrder::ReportPostponed { transport, node });
            return self.release_locks(orders);
        }
        let running_for = seen.now.since(server.started_at).as_secs();
        let is_up = |slot: &Slot| {
            let tunnel = seen.tunnels.get(slot);
            tunnel.is_some_and(|tunnel| tunnel.phase == Phase::Up)
        };
        for slot in server.slots.iter().copied().filter(is_up) {
            let reason = CloseReason::Renewed;
            orders.push(RestartOrder::Tunnel(Decision {
                order: Order::Drain { slot, reason },
                terms: format!(
                    "server-{transport} runs with old certificates or keys and has to restart; \
                     tunnels={} running_for={running_for} s",
                    server.slots.len()
                ),
            }));
        }
        orders.push(RestartOrder::StopAccepting { transport });
        self.draining_server = Some((transport, seen.now));
    }

    fn continue_server_drain(
        &mut self,
        transport: Transport,
        since: Uptime,
        seen: &RestartObservation<'_>,
        orders: &mut Vec<RestartOrder>,
    ) {
        let Some(server) = seen.servers.get(&transport) else {
            self.draining_server = None;
            return;
        };
        let drained_for = seen.now.since(since);
        match server_drain(&server.slots, seen.drained, drained_for) {
            ServerDrain::Wait => {}
            ServerDrain::GiveUp if !self.is_forced(seen.now) => {
                self.give_server_up(transport, server, drained_for, seen, orders);
            }
            ServerDrain::Done | ServerDrain::GiveUp => {
                self.draining_server = None;
                self.paused_until = seen.now + RESTART_PAUSE;
                let tunnels = server
                    .slots
                    .iter()
                    .filter_map(|slot| seen.tunnels.get(slot));
                let tunnels: Vec<_> = tunnels.collect();
                let peers = tunnels.iter().map(|tunnel| tunnel.peer).collect();
                self.locks.settle(peers, seen.now + MAX_WAIT_FOR_PEERS);
                let closing = |tunnel: &&TunnelReading| Decision {
                    order: Order::Close {
                        slot: tunnel.slot,
                        reason: CloseReason::Renewed,
                    },
                    terms: format!(
                        "server-{transport} restarts with the new certificates or keys; drained_for={} s",
                        drained_for.as_secs()
                    ),
                };
                orders.push(RestartOrder::RestartServer {
                    transport,
                    drained_for,
                    closings: tunnels.iter().map(closing).collect(),
                });
            }
        }
    }

    fn give_server_up(
        &mut self,
        transport: Transport,
        server: &ServerReading,
        drained_for: Duration,
        seen: &RestartObservation<'_>,
        orders: &mut Vec<RestartOrder>,
    ) {
        self.draining_server = None;
        self.paused_until = seen.now + RETRY_DELAY;
        orders.push(RestartOrder::ResumeAccepting { transport });
        let drains_with_server = |slot: &Slot| {
            let reason = seen
                .tunnels
                .get(slot)
                .map(|tunnel| tunnel.phase.drain_reason());
            reason.flatten() == Some(CloseReason::Renewed)
        };
        for slot in server.slots.iter().copied().filter(drains_with_server) {
            let reason = AbandonReason::Deadline;
            orders.push(RestartOrder::Tunnel(Decision {
                order: Order::Undrain { slot, reason },
                terms: format!(
                    "traffic stays on the tunnels of server-{transport}, which restarts later; \
                     drained_for={} s retry_after={} s",
                    drained_for.as_secs(),
                    RETRY_DELAY.as_secs()
                ),
            }));
        }
        self.release_locks(orders);
    }
}

#[cfg(test)]
mod tests;
