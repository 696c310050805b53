//! Carries out what [`policies::rolling_restart`] decides.

use super::{Processes, Tunnels, server::Server};
use crate::{
    messages::CredentialsChanged,
    restart_lock::{acquire_all, release_all},
};
use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use policies::{
    names::{Prefix, Transport},
    rolling_restart::{FilesChanged, RestartObservation, RestartOrder, ServerReading},
    waits::Wait,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

impl Tunnels {
    /// Starts a rolling restart, since OpenVPN must read new certificates or keys.
    pub(super) fn on_files_changed(&self, changed: &CredentialsChanged) {
        let change = FilesChanged {
            at: changed.at,
            network_version: changed.network_version,
            servers: changed.servers,
            dials: changed.dials,
            start_after: changed.start_after,
            force_after: changed.force_after,
        };
        let mut processes = self.connections.0.borrow_mut();
        processes.rolling_restart.on_files_changed(&change);
    }

    /// Carries out the next step of a rolling restart, if one is due.
    pub(super) fn step_rolling_restart(&mut self, ctx: &mut Context<Self>) {
        // A running drain is finished even if the tunnels are about to be handed over.
        let is_draining = self.connections.0.borrow().rolling_restart.is_draining();
        if self.common.is_shutting_down() || (self.is_paused() && !is_draining) {
            return;
        }
        for order in self.next_restart_orders() {
            self.carry_out_restart(order, ctx);
        }
    }

    fn hello_interval(&self) -> Duration {
        let documents = self.common.documents.load();
        let parameters = documents.network().map(|network| network.parameters());
        parameters.unwrap_or_default().hello_interval
    }

    fn is_locked_by_neighbour(&self) -> bool {
        let me = self.common.settings.me;
        let holders = self.restart_lock.holders();
        holders.into_iter().any(|holder| holder != me)
    }

    fn next_restart_orders(&self) -> Vec<RestartOrder> {
        let mut processes = self.connections.0.borrow_mut();
        let Processes {
            servers,
            dials,
            rolling_restart,
            ..
        } = &mut *processes;
        let dials: BTreeMap<_, _> = dials
            .iter()
            .map(|(slot, dial)| (*slot, dial.started_at()))
            .collect();
        let reading = |server: &Server| ServerReading {
            started_at: server.started_at(),
            slots: server.slots(),
        };
        let servers: BTreeMap<_, _> = servers
            .iter()
            .map(|(transport, server)| (*transport, reading(server)))
            .collect();
        rolling_restart.step(&RestartObservation {
            now: self.common.now(),
            me: self.common.settings.me,
            tunnels: &self.common.table.borrow().tunnels,
            dials: &dials,
            servers: &servers,
            routes: self.routes.as_ref().map(|table| &*table.routes),
            drained: &self.drained,
            hello_interval: self.hello_interval(),
            is_locked_by_neighbour: self.is_locked_by_neighbour(),
        })
    }

    fn carry_out_restart(&mut self, order: RestartOrder, ctx: &mut Context<Self>) {
        match order {
            RestartOrder::AcquireLocks { neighbours } => self.acquire_locks(neighbours, ctx),
            RestartOrder::ReleaseLocks { neighbours } => {
                let me = self.common.settings.me;
                let release = release_all(
                    me,
                    neighbours,
                    self.restart_lock.clone(),
                    self.peer_api.clone(),
                );
                ctx.spawn(release.into_actor(self));
            }
            RestartOrder::Tunnel(decision) => {
                // A reading taken before this drain says nothing about it.
                self.drained.remove(&decision.order.slot());
                self.report(decision.clone());
                self.carry_out(decision.order);
            }
            RestartOrder::StopAccepting { transport } => {
                tracing::info!(%transport, "server accepts no clients and drains its tunnels before it restarts with new certificates or keys");
                self.with_server(transport, |server| server.set_accepting(false));
            }
            RestartOrder::ResumeAccepting { transport } => {
                tracing::info!(%transport, "server not restarted: traffic stays on its tunnels; it is tried again later");
                self.with_server(transport, |server| server.set_accepting(true));
            }
            RestartOrder::RestartServer {
                transport,
                drained_for,
                closings,
            } => {
                tracing::info!(%transport, drained_s = drained_for.as_secs(), "restarting server");
                closings
                    .into_iter()
                    .for_each(|closing| self.report(closing));
                self.with_server(transport, |server| server.restart(&self.common));
            }
            RestartOrder::RestartDials { closings } => {
                for closing in closings {
                    let slot = closing.order.slot();
                    self.report(closing);
                    let mut processes = self.connections.0.borrow_mut();
                    if let Some(dial) = processes.dials.get_mut(&slot) {
                        dial.restart(&self.common);
                    }
                }
            }
            RestartOrder::ReportLostRequest => {
                tracing::warn!("request for restart locks not answered; it is repeated");
                self.report_overdue(Wait::LockRequested);
            }
            RestartOrder::ReportApplied { network_version } => {
                self.applied.set_for_tunnels(network_version);
            }
        }
    }

    fn with_server(&self, transport: Transport, change: impl FnOnce(&mut Server)) {
        let mut processes = self.connections.0.borrow_mut();
        if let Some(server) = processes.servers.get_mut(&transport) {
            change(server);
        }
    }

    fn acquire_locks(&self, neighbours: BTreeSet<Prefix>, ctx: &mut Context<Self>) {
        let me = self.common.settings.me;
        let (own, peer_api) = (self.restart_lock.clone(), self.peer_api.clone());
        let acquire = acquire_all(me, neighbours.clone(), own, peer_api).into_actor(self);
        ctx.spawn(acquire.map(move |granted, tunnels, _| {
            let now = tunnels.common.now();
            let mut processes = tunnels.connections.0.borrow_mut();
            let restart = &mut processes.rolling_restart;
            restart.on_lock_answer(granted, neighbours, now, &mut tunnels.rng);
        }));
    }
}
