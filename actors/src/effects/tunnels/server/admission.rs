//! Decides which clients of a server are admitted, and on which slot.

use super::*;
use crate::messages::KeyShared;
use policies::shared_keys::Admission;

/// Why a second machine with the key of a node is rejected.
const CLONE: &str = "another machine with the same key has a tunnel: this is probably a clone";

impl Server {
    /// Decides whether a client is admitted, and returns the command that says so to OpenVPN.
    pub(super) fn answer(
        &mut self,
        common: &Common,
        (client, key): (ClientId, KeyId),
        env: &ClientEnv,
    ) -> String {
        let admitted = match self.admit(common, client, env) {
            Ok(vlan) => management::client_auth(client, key, vlan).ok_or("no slot"),
            Err(reason) => {
                // A clone tries for ever; its rejections are logged together.
                if reason != CLONE {
                    let name = env.node().map(|peer| peer.to_string()).unwrap_or_default();
                    tracing::info!(peer = name, from = ?env.address(), reason, "client rejected");
                }
                Err(reason)
            }
        };
        admitted.unwrap_or_else(|reason| management::client_deny(client, key, reason))
    }

    /// Decides whether a client is admitted: returns its VLAN, or why it is rejected.
    fn admit(
        &mut self,
        common: &Common,
        client: ClientId,
        env: &ClientEnv,
    ) -> Result<u16, &'static str> {
        let peer = env.node().ok_or("the certificate names no node")?;
        if peer == common.settings.me {
            return Err("that is our own certificate");
        }
        let serials =
            [&env.serial, &env.ca_serial].map(|serial| serial.clone().unwrap_or_default());
        if serials.iter().any(|serial| common.is_revoked(serial)) {
            return Err("the certificate or its CA is revoked");
        }
        if common.route_checks.borrow().is_banned(peer, common.now()) {
            return Err("the node announced routes that cannot be its own");
        }
        if common.is_shutting_down() {
            return Err("this node shuts down");
        }
        if !self.is_accepting || self.is_restarting {
            return Err("this server is about to restart");
        }
        let existing = self.slot_of(|accepted| accepted.peer == peer);
        let is_new = !self
            .accepted
            .values()
            .any(|accepted| accepted.client == client);
        if is_new {
            self.check_machine(common, peer, env)?;
        }
        let slot = match existing {
            Some(slot) => slot,
            None => self
                .free_slot(common)
                .ok_or("no more tunnels are accepted")?,
        };
        self.record_session(common, slot, (peer, client), (env.address(), serials));
        match slot {
            Slot::Accepting(_, vlan) => Ok(vlan),
            Slot::Dialling(_) => Err("no slot"),
        }
    }

    /// Records the client that a slot has now, unless it has it already. If another client of the peer had the slot, its tunnel has closed:
    /// OpenVPN itself reports that only once its own time limit has passed.
    fn record_session(
        &mut self,
        common: &Common,
        slot: Slot,
        (peer, client): (Prefix, ClientId),
        (from, serials): (Option<SocketAddr>, [String; 2]),
    ) {
        let is_same_session = self
            .accepted
            .get(&slot)
            .is_some_and(|accepted| accepted.client == client);
        if !is_same_session {
            self.accepted.insert(
                slot,
                Accepted {
                    peer,
                    client,
                    from,
                    serials,
                },
            );
            let was_punched = common.punched_from(slot);
            common.report_closed(slot, CloseReason::PeerClosed);
            let ip = from.map(|from| from.ip().to_canonical());
            let is_expected = ip.is_some_and(|ip| common.punches.take_expected(peer, ip));
            // The path through the NATs is still open if the client comes from the same address again.
            if is_expected || (was_punched.is_some() && was_punched == ip) {
                common.note_punched(slot);
            }
            let endpoint = from.map(|address| Endpoint {
                address,
                transport: self.transport,
            });
            common.add_tunnel(TunnelReading {
                slot,
                peer,
                phase: Phase::Connecting,
                since: common.now(),
                up_since: None,
                endpoint,
            });
        }
    }

    /// Rejects a client if another machine with the same key came first and has a tunnel that works.
    fn check_machine(
        &self,
        common: &Common,
        peer: Prefix,
        env: &ClientEnv,
    ) -> Result<(), &'static str> {
        let Some(from) = env.address().map(|address| address.ip().to_canonical()) else {
            return Ok(());
        };
        let present = common.tunnel_of(peer);
        let at = common.now();
        let admission = common
            .shared_keys
            .borrow_mut()
            .admit(peer, from, present, at);
        let Admission::Rejected { first, to_report } = admission else {
            return Ok(());
        };
        let addresses = [first, from];
        common.facts.key_shared.do_send(KeyShared {
            at,
            peer,
            addresses,
        });
        if let Some(count) = to_report {
            let name = common.name_of(peer);
            tracing::warn!(%peer, name, %first, rejected = %from, count, "two machines use the key of one node, probably a clone of its disk; the first keeps its tunnel: give one of them an identity of its own by warren join --replace -");
        }
        Err(CLONE)
    }

    fn free_slot(&self, common: &Common) -> Option<Slot> {
        let table = common.table.borrow();
        let now = common.now();
        let accepted = table
            .tunnels
            .keys()
            .filter(|slot| matches!(slot, Slot::Accepting(..)))
            .count();
        if accepted >= usize::from(common.max_accepted()) {
            return None;
        }
        let end = FIRST_VLAN.saturating_add(common.settings.max_accepted);
        let mut slots = (FIRST_VLAN..end).map(|vlan| Slot::Accepting(self.transport, vlan));
        slots.find(|slot| {
            !table.tunnels.contains_key(slot)
                && !self.accepted.contains_key(slot)
                && !table.is_cooling_down(*slot, now)
        })
    }
}
