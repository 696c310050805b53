//! Carries out what [`rollover`] decides.

use super::{
    Processes, Tunnels,
    rollover::{self, Turns},
    server::Server,
};
use crate::restart_lock::{give_all_back, take_all};
use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use policies::{
    names::{Prefix, Slot, Transport},
    orders::CloseReason,
    parameters::DRAIN_DEADLINE,
    server_drain::{ServerDrain, only_way, server_drain},
    units::Uptime,
    ways::Ways,
    world::Phase,
};
use std::collections::BTreeSet;

impl Tunnels {
    /// One step on the way to processes that have all read the present files.
    pub(super) fn roll_over(&mut self, ctx: &mut Context<Self>) {
        let now = self.common.now();
        if self.common.stopping() {
            return;
        }
        if let Some((transport, since)) = self.draining_server() {
            return self.go_on_with(transport, since, now, ctx);
        }
        if self.settles(now, ctx) {
            return;
        }
        let Stale { dials, servers } = self.stale();
        if dials.is_empty() && servers.is_empty() {
            self.leave_turns(ctx);
            return self
                .applied
                .by_tunnels(self.connections.0.borrow().rollover.version);
        }
        let (may, must) = {
            let rollover = &self.connections.0.borrow().rollover;
            (rollover.may(now), rollover.must(now))
        };
        if !may || (!self.is_calm() && !must) {
            return;
        }
        let next = dials
            .into_iter()
            .find(|slot| self.connections.0.borrow().rollover.may_try(*slot, now));
        // Who is dialled anew by those whose servers were started anew need not dial them anew.
        match (servers.into_iter().next(), next) {
            (Some(transport), _) if self.is_idle(transport) => {
                self.roll_server(transport, now, ctx)
            }
            (None, None) => self.leave_turns(ctx),
            (_, _) if !must && !self.has_turns(now, ctx) => {}
            (Some(transport), _) => self.roll_server(transport, now, ctx),
            (None, Some(slot)) => self.roll_dial(slot, now),
        }
    }

    fn stale(&self) -> Stale {
        let processes = self.connections.0.borrow();
        let Processes {
            rollover,
            dials,
            servers,
            ..
        } = &*processes;
        let dials = dials
            .iter()
            .filter(|(_, dial)| dial.begun() < rollover.dials_before);
        let servers = servers
            .iter()
            .filter(|(_, server)| server.begun() < rollover.servers_before);
        Stale {
            dials: dials.map(|(slot, _)| *slot).collect(),
            servers: servers.map(|(transport, _)| *transport).collect(),
        }
    }

    /// Whether no tunnel ends with that server.
    fn is_idle(&self, transport: Transport) -> bool {
        let processes = self.connections.0.borrow();
        processes
            .servers
            .get(&transport)
            .is_some_and(|server| server.slots().is_empty())
    }

    /// Whether all neighbours have given us their turns; asks them where nobody was asked.
    fn has_turns(&mut self, now: Uptime, ctx: &mut Context<Self>) -> bool {
        let me = self.common.settings.me;
        {
            let rollover = &mut self.connections.0.borrow_mut().rollover;
            let others = self.turn.holder().is_some_and(|holder| holder != me);
            if rollover.has_turns() || rollover.asks(now) || others {
                return rollover.has_turns();
            }
            rollover.turns = Turns::Asked(now);
        }
        let neighbours: BTreeSet<Prefix> = self
            .common
            .table
            .borrow()
            .tunnels
            .values()
            .map(|tunnel| tunnel.peer)
            .collect();
        let asked = take_all(
            me,
            neighbours.clone(),
            self.turn.clone(),
            self.asker.clone(),
        );
        ctx.spawn(asked.into_actor(self).map(move |all, tunnels, _| {
            let now = tunnels.common.now();
            let rollover = &mut tunnels.connections.0.borrow_mut().rollover;
            if all {
                rollover.turns = Turns::CurrentDocuments(neighbours);
            } else {
                rollover.turns = Turns::None;
                rollover.rests_until = now + rollover::ASK_AGAIN.mul_f64(0.5 + fastrand::f64());
            }
        }));
        false
    }

    /// Whether a step is done and its tunnels are not all back yet; if they are, others get the turn.
    fn settles(&mut self, now: Uptime, ctx: &mut Context<Self>) -> bool {
        {
            let rollover = &mut self.connections.0.borrow_mut().rollover;
            let Turns::Settling(settling) = &mut rollover.turns else {
                return false;
            };
            if !settling.is_over(&self.common.table.borrow().tunnels, now) {
                return true;
            }
            rollover.rests_until = now + rollover::REST;
        }
        self.leave_turns(ctx);
        false
    }

    fn leave_turns(&mut self, ctx: &mut Context<Self>) {
        let given = self.connections.0.borrow_mut().rollover.leave_turns();
        if let Some(given) = given {
            let back = give_all_back(
                self.common.settings.me,
                given,
                self.turn.clone(),
                self.asker.clone(),
            );
            ctx.spawn(back.into_actor(self));
        }
    }

    /// Tells those who ask for our turn whether a tunnel is coming or going.
    pub(super) fn disturb(&self) {
        if !self.is_calm() {
            self.turn.disturb();
        }
    }

    fn draining_server(&self) -> Option<(Transport, Uptime)> {
        let processes = self.connections.0.borrow();
        processes
            .servers
            .iter()
            .find_map(|(transport, server)| Some((*transport, server.drains()?)))
    }

    /// Every tunnel is simply up: one planned end at a time.
    fn is_calm(&self) -> bool {
        self.common
            .table
            .borrow()
            .tunnels
            .values()
            .all(|tunnel| tunnel.phase == Phase::Up)
    }

    fn roll_dial(&mut self, slot: Slot, now: Uptime) {
        let must = {
            let rollover = &mut self.connections.0.borrow_mut().rollover;
            rollover.tried.insert(slot, now);
            rollover.rests_until = now + rollover::REST;
            rollover.must(now)
        };
        tracing::info!(%slot, must, "tunnel made anew, since certificates or keys have changed");
        let peer = self
            .common
            .table
            .borrow()
            .tunnels
            .get(&slot)
            .map(|tunnel| tunnel.peer);
        let until = now + DRAIN_DEADLINE + rollover::PATIENCE;
        self.connections
            .0
            .borrow_mut()
            .rollover
            .settle(peer.into_iter().collect(), until);
        if must {
            self.close(slot, CloseReason::Renewed)
        } else {
            self.drain(slot, CloseReason::Renewed)
        }
    }

    fn roll_server(&mut self, transport: Transport, now: Uptime, ctx: &mut Context<Self>) {
        let (slots, must) = {
            let processes = self.connections.0.borrow();
            let slots = processes
                .servers
                .get(&transport)
                .map(Server::slots)
                .unwrap_or_default();
            (slots, processes.rollover.must(now))
        };
        let alone = self
            .ways_without(&slots)
            .and_then(|ways| only_way(&ways, &slots));
        if let Some(node) = alone.filter(|_| !must) {
            tracing::debug!(%transport, %node, "server not started anew yet: the only way to a node");
            self.connections.0.borrow_mut().rollover.rests_until = now + rollover::AGAIN;
            return self.leave_turns(ctx);
        }
        self.drained.clear();
        tracing::info!(%transport, tunnels = slots.len(), "server drains, to be started anew");
        slots
            .iter()
            .for_each(|slot| self.drain(*slot, CloseReason::Renewed));
        if let Some(server) = self.connections.0.borrow_mut().servers.get_mut(&transport) {
            server.set_drains(Some(now));
        }
    }

    /// babeld's routes, sorted as if these slots' tunnels were to end.
    fn ways_without(&self, slots: &BTreeSet<Slot>) -> Option<Ways> {
        let table = self.routes.as_ref()?;
        Some(Ways::of(&table.routes, self.common.settings.me, |slot| {
            !slots.contains(&slot)
        }))
    }

    fn go_on_with(
        &mut self,
        transport: Transport,
        since: Uptime,
        now: Uptime,
        ctx: &mut Context<Self>,
    ) {
        let mut processes = self.connections.0.borrow_mut();
        let Processes {
            servers, rollover, ..
        } = &mut *processes;
        let Some(server) = servers.get_mut(&transport) else {
            return;
        };
        let slots = server.slots();
        let step = match server_drain(&slots, &self.drained, since, now) {
            ServerDrain::GiveUp if rollover.must(now) => ServerDrain::Done,
            step => step,
        };
        match step {
            ServerDrain::Wait => {}
            ServerDrain::Done => {
                tracing::info!(%transport, drained_s = now.since(since).as_secs(), "server started anew");
                let table = self.common.table.borrow();
                let peers = slots.iter().filter_map(|slot| table.tunnels.get(slot));
                rollover.settle(
                    peers.map(|tunnel| tunnel.peer).collect(),
                    now + rollover::PATIENCE,
                );
                rollover.rests_until = now + rollover::REST;
                drop(table);
                server.restart(&self.common);
            }
            ServerDrain::GiveUp => {
                tracing::info!(%transport, "traffic stays; the server is started anew later");
                server.set_drains(None);
                rollover.rests_until = now + rollover::AGAIN;
                drop(processes);
                for slot in slots {
                    self.undrain(slot);
                }
                self.leave_turns(ctx);
            }
        }
    }
}

/// What has old files.
struct Stale {
    dials: Vec<Slot>,
    servers: Vec<Transport>,
}
