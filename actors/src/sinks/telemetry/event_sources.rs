//! Turns messages of actors into events of the log.
//!
//! A reading is compared with the one before it, so each function is called before the snapshot records the reading.

use super::{
    event_log::{PresentFinding, Subject},
    snapshot::Snapshot,
};
use crate::messages::{
    ActorRestarted, CredentialsChanged, Decided, DocumentsChanged, Lease, LeasesRead,
    ProcessesRead, RoutesRead, RoutesSuspected, TunnelCameUp, TunnelClosed, TunnelOpened,
    WaitOverdue,
};
use policies::{
    names::{Prefix, Role},
    observation::{BabelTable, INFINITY},
    orders::{CloseReason, Order},
    units::Uptime,
};
use std::{collections::BTreeSet, time::Duration};
use time::OffsetDateTime;
use wire::{
    control::{ChangedNodes, ClosedTunnel, DecidedOrder, Event, ExitedProcess, LeasedPort},
    registry::DocumentKind,
};

impl Snapshot {
    /// Logs the start of the daemon.
    pub(super) fn log_start(&mut self) {
        let software = self.identity.software.to_owned();
        let event = Event::DaemonStarted { software };
        self.events.add(self.at, Subject::default(), event);
    }

    /// Logs an opened tunnel, unless it is one more dial of a node whose last dials failed.
    pub(super) fn log_opened(&mut self, fact: &TunnelOpened) {
        if fact.slot.role() == Role::Accepted || !self.events.is_failing(fact.peer) {
            let subject = Subject::tunnel(fact.slot, fact.peer);
            self.events.add(fact.at, subject, Event::TunnelOpened);
        }
    }

    /// Logs a tunnel that came up; the snapshot has recorded it already.
    pub(super) fn log_came_up(&mut self, fact: &TunnelCameUp) {
        let mut rows = self.rows.live();
        let row = rows.find(|row| row.tunnel.slot == fact.slot && row.tunnel.peer == fact.peer);
        let event = match row.map_or(0, |row| row.reconnects()) {
            0 => Event::TunnelUp,
            times => Event::TunnelReconnected { times },
        };
        let subject = Subject::tunnel(fact.slot, fact.peer);
        self.events.add(fact.at, subject, event);
    }

    /// Logs a tunnel that closed, or a dial that failed.
    pub(super) fn log_closed(&mut self, fact: &TunnelClosed) {
        let subject = Subject::tunnel(fact.slot, fact.peer);
        let reason = fact.reason.label().to_owned();
        let has_failed = matches!(
            fact.reason,
            CloseReason::DialFailed | CloseReason::PeerClosed
        );
        if fact.slot.role() == Role::Dialled && fact.lived.is_zero() && has_failed {
            return self.events.add_failed_dial(fact.at, subject, reason);
        }
        let mut rows = self.rows.live();
        let row = rows.find(|row| row.tunnel.slot == fact.slot && row.tunnel.peer == fact.peer);
        let carried = row.map(|row| row.carried).unwrap_or_default();
        let event = Event::TunnelClosed(ClosedTunnel {
            reason,
            lived_seconds: fact.lived.as_secs_f64(),
            rx_bytes: carried.rx_bytes,
            tx_bytes: carried.tx_bytes,
        });
        self.events.add(fact.at, subject, event);
    }

    /// Logs decisions, except those that only repeat an order, and further dials of a node whose last dials failed.
    pub(super) fn log_decided(&mut self, fact: &Decided) {
        for decision in &fact.decisions {
            let slot = decision.order.slot();
            let (node, is_redial) = match &decision.order {
                Order::Open { peer, .. } => (Some(*peer), self.events.is_failing(*peer)),
                Order::Drain { .. } | Order::Undrain { .. } | Order::Close { .. } => {
                    (self.rows.peer(slot), false)
                }
            };
            if is_redial || decision.is_repeated() {
                continue;
            }
            let event = Event::Decided(DecidedOrder {
                order: decision.order.label().to_owned(),
                reason: decision.order.reason_label().to_owned(),
                terms: decision.terms.clone(),
            });
            let slot = Some(slot);
            self.events.add(fact.at, Subject { slot, node }, event);
        }
    }

    /// Logs which nodes became reachable or unreachable, and another exit gateway.
    pub(super) fn log_routes(&mut self, reading: &RoutesRead) {
        let Some(table) = &reading.table else { return };
        let before = self.babel.as_deref().map(reachable_nodes);
        let (before, now) = (before.unwrap_or_default(), reachable_nodes(table));
        let lost: Vec<_> = before.difference(&now).copied().collect();
        let reached: Vec<_> = now.difference(&before).copied().collect();
        let reachable = length(now.len());
        let one_of = |nodes: &[Prefix]| match nodes {
            [node] => Subject::node(Some(*node)),
            _ => Subject::default(),
        };
        if !lost.is_empty() {
            let count = length(lost.len());
            let event = Event::NodesLost(ChangedNodes { count, reachable });
            self.events.add(reading.at, one_of(&lost), event);
        }
        if !reached.is_empty() {
            let count = length(reached.len());
            let event = Event::NodesReached(ChangedNodes { count, reachable });
            self.events.add(reading.at, one_of(&reached), event);
        }
    }

    /// Logs another exit gateway than `before`; the snapshot has recorded the routes already.
    pub(super) fn log_gateway(&mut self, at: Uptime, before: Option<Prefix>) {
        let gateway = self.gateway();
        if gateway != before {
            let event = Event::ExitGatewayChanged;
            self.events.add(at, Subject::node(gateway), event);
        }
    }

    /// Logs exits of processes that nobody had ordered. A tunnel whose process exited for good is logged as closed instead.
    pub(super) fn log_processes(&mut self, reading: &ProcessesRead) {
        for process in &reading.processes {
            let before = self.processes.processes.iter();
            let mut before = before.filter(|before| before.name == process.name);
            // The counters of a process that is new since the last reading count from its start.
            let earlier = before.next().map(|before| before.exits).unwrap_or_default();
            let exit = if process.exits.unexpected > earlier.unexpected {
                "unexpected"
            } else if process.exits.failed > earlier.failed {
                "failed"
            } else {
                continue;
            };
            let event = Event::ProcessExited(ExitedProcess {
                process: process.name.clone(),
                exit: exit.to_owned(),
                cause: process.failure.clone(),
                starts: process.starts,
            });
            self.events.add(reading.at, Subject::default(), event);
        }
    }

    /// Logs ports that a gateway maps since this reading, and those that it no longer maps.
    pub(super) fn log_leases(&mut self, reading: &LeasesRead) {
        let before: Vec<_> = self.leases.leases.iter().map(leased_port).collect();
        let now: Vec<_> = reading.leases.iter().map(leased_port).collect();
        for lost in before.iter().filter(|lease| !now.contains(lease)) {
            let event = Event::LeaseLost(lost.clone());
            self.events.add(reading.at, Subject::default(), event);
        }
        for obtained in now.into_iter().filter(|lease| !before.contains(lease)) {
            let event = Event::LeaseObtained(obtained);
            self.events.add(reading.at, Subject::default(), event);
        }
    }

    /// Logs a newer document.
    pub(super) fn log_documents(&mut self, at: Uptime, fact: &DocumentsChanged) {
        let Some(kind) = fact.kind else { return };
        let document = match kind {
            DocumentKind::Network => "network",
            DocumentKind::Revocations => "revocations",
        };
        let event = Event::DocumentChanged {
            document: document.to_owned(),
            document_version: fact.documents.version(kind),
        };
        self.events.add(at, Subject::default(), event);
    }

    /// Logs another certificate than the one before; not the first that was read.
    pub(super) fn log_certificate(&mut self, fact: &CredentialsChanged) {
        let (Some(before), Some(now)) = (&self.certificate, &fact.certificate) else {
            return;
        };
        if before.serial != now.serial {
            let event = Event::CertificateChanged {
                serial: now.serial.clone(),
                expires_at: OffsetDateTime::UNIX_EPOCH + Duration::from_secs(now.not_after_s),
            };
            self.events.add(fact.at, Subject::default(), event);
        }
    }

    /// Logs a neighbour that announces false routes.
    pub(super) fn log_suspected(&mut self, at: Uptime, fact: &RoutesSuspected) {
        let event = Event::FalseRoutes {
            suspicion: fact.kind.label().to_owned(),
        };
        let subject = Subject::tunnel(fact.slot, fact.peer);
        self.events.add(at, subject, event);
    }

    /// Logs a phase that lasted longer than its limit.
    pub(super) fn log_overdue(&mut self, at: Uptime, fact: &WaitOverdue) {
        let wait = fact.wait.label().to_owned();
        let event = Event::WaitOverdue { wait };
        self.events.add(at, Subject::default(), event);
    }

    /// Logs a reload of the configuration.
    pub(super) fn log_reload(&mut self, at: Uptime, pending_restart: &[String]) {
        let pending_restart = pending_restart.to_vec();
        let event = Event::ConfigurationReloaded { pending_restart };
        self.events.add(at, Subject::default(), event);
    }

    /// Logs the restart of an actor.
    pub(super) fn log_actor_restarted(&mut self, at: Uptime, fact: &ActorRestarted) {
        let actor = fact.actor.to_owned();
        self.events
            .add(at, Subject::default(), Event::ActorRestarted { actor });
    }

    /// Logs findings that began or ended.
    pub(super) fn log_findings(&mut self, present: &[PresentFinding]) {
        self.events.compare_findings(self.at, present);
    }
}

fn leased_port(lease: &Lease) -> LeasedPort {
    LeasedPort {
        transport: lease.transport.to_string(),
        internal_port: lease.internal_port,
        external: lease.external,
    }
}

/// The nodes to which babeld has installed a route with a finite metric.
fn reachable_nodes(table: &BabelTable) -> BTreeSet<Prefix> {
    let routes = table.routes.iter();
    let usable = routes.filter(|route| route.installed && route.metric != INFINITY);
    usable.map(|route| route.node).collect()
}

fn length(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
