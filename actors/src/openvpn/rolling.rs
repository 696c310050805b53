//! Carries out what [`rollover`] decides.

use super::{Processes, Tunnels, rollover, server::Server};
use crate::links::LinkOrder;
use policies::{
    names::{Slot, Transport},
    orders::CloseReason,
    server_drain::{ServerDrain, only_way, server_drain},
    units::Uptime,
    ways::Ways,
    world::Phase,
};
use std::collections::BTreeSet;

impl Tunnels {
    /// One step on the way to processes that have all read the present files.
    pub(super) fn roll_over(&mut self) {
        let now = self.common.now();
        if self.common.stopping() {
            return;
        }
        if let Some((transport, since)) = self.draining_server() {
            return self.go_on_with(transport, since, now);
        }
        let (dials, servers) = {
            let processes = self.connections.0.borrow();
            let Processes { rollover, dials, servers, .. } = &*processes;
            let dials = dials.iter().filter(|(_, dial)| dial.begun() < rollover.dials_before);
            let servers = servers.iter().filter(|(_, server)| server.begun() < rollover.servers_before);
            let dials: Vec<Slot> = dials.map(|(slot, _)| *slot).collect();
            let servers: Vec<Transport> = servers.map(|(transport, _)| *transport).collect();
            if dials.is_empty() && servers.is_empty() {
                return self.applied.by_tunnels(rollover.version);
            }
            if !rollover.may(now) || (!self.is_calm() && !rollover.must(now)) {
                return;
            }
            (dials, servers)
        };
        let may_try = |slot: &&Slot| self.connections.0.borrow().rollover.may_try(**slot, now);
        if let Some(slot) = dials.iter().find(may_try) {
            self.roll_dial(*slot, now);
        } else if let Some(transport) = servers.first() {
            self.roll_server(*transport, now);
        }
    }

    fn draining_server(&self) -> Option<(Transport, Uptime)> {
        let processes = self.connections.0.borrow();
        processes.servers.iter().find_map(|(transport, server)| Some((*transport, server.drains()?)))
    }

    /// Every tunnel is simply up: one planned end at a time.
    fn is_calm(&self) -> bool {
        self.common.table.borrow().tunnels.values().all(|tunnel| tunnel.phase == Phase::Up)
    }

    fn roll_dial(&mut self, slot: Slot, now: Uptime) {
        let must = {
            let rollover = &mut self.connections.0.borrow_mut().rollover;
            rollover.tried.insert(slot, now);
            rollover.rests_until = now + rollover::REST;
            rollover.must(now)
        };
        tracing::info!(%slot, must, "tunnel made anew, since certificates or keys have changed");
        if must { self.close(slot, CloseReason::Renewed) } else { self.drain(slot) }
    }

    fn roll_server(&mut self, transport: Transport, now: Uptime) {
        let (slots, must) = {
            let processes = self.connections.0.borrow();
            let slots = processes.servers.get(&transport).map(Server::slots).unwrap_or_default();
            (slots, processes.rollover.must(now))
        };
        let alone = self.ways_without(&slots).and_then(|ways| only_way(&ways, &slots));
        if let Some(node) = alone.filter(|_| !must) {
            tracing::debug!(%transport, %node, "server not started anew yet: the only way to a node");
            self.connections.0.borrow_mut().rollover.rests_until = now + rollover::AGAIN;
            return;
        }
        tracing::info!(%transport, tunnels = slots.len(), "server drains, to be started anew");
        slots.iter().for_each(|slot| self.drain(*slot));
        if let Some(server) = self.connections.0.borrow_mut().servers.get_mut(&transport) {
            server.set_drains(Some(now));
        }
    }

    /// babeld's routes, sorted as if these slots' tunnels were to end.
    fn ways_without(&self, slots: &BTreeSet<Slot>) -> Option<Ways> {
        let table = self.routes.as_ref()?;
        Some(Ways::of(&table.routes, self.common.settings.me, |slot| !slots.contains(&slot)))
    }

    fn go_on_with(&mut self, transport: Transport, since: Uptime, now: Uptime) {
        let mut processes = self.connections.0.borrow_mut();
        let Processes { servers, rollover, .. } = &mut *processes;
        let Some(server) = servers.get_mut(&transport) else { return };
        let slots = server.slots();
        let step = match server_drain(self.ways_without(&slots).as_ref(), &slots, since, now) {
            ServerDrain::GiveUp if rollover.must(now) => ServerDrain::Done,
            step => step,
        };
        match step {
            ServerDrain::Wait => {}
            ServerDrain::Done => {
                tracing::info!(%transport, "server started anew");
                server.restart(&self.common);
                rollover.rests_until = now + rollover::REST;
            }
            ServerDrain::GiveUp => {
                tracing::info!(%transport, "traffic stays; the server is started anew later");
                server.set_drains(None);
                rollover.rests_until = now + rollover::AGAIN;
                drop(processes);
                for slot in slots {
                    self.move_phase(slot, Phase::Draining, Phase::Up, LinkOrder::Unsilence(slot));
                }
            }
        }
    }
}
