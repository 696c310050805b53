//! Decides how revoked nodes leave the network.
//!
//! Their own traffic is blocked at once. Tunnels to them may carry the traffic of others, so these drain for
//! `DRAIN_TIME` and are then closed, drained or not.
//!
//! ```text
//!             ┌─ connecting ─► CLOSE
//!  revoked ───┤
//!             └─ up, draining ─► DRAIN ─┬─ gone: the planner has closed it once nothing passed
//!                                       └─ DRAIN_TIME over ─► CLOSE
//! ```

use crate::{
    names::{Prefix, Role, Slot},
    observation::{Phase, TunnelIdentity, TunnelReading},
    orders::{CloseReason, Decision, Order},
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A revoked peer's tunnel drains for this long before it is closed.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// A revoked node stays blocked for this long: by then all nodes have closed their tunnels to it, and babeld has
/// forgotten it.
const BLOCK_TIME: Duration = Duration::from_secs(20);

/// Certificates that are newly revoked.
#[derive(Clone, Copy, Debug)]
pub struct Revoked<'a> {
    /// The nodes they belong to.
    pub nodes: &'a BTreeSet<Prefix>,
    /// Accepted tunnels whose client has shown such a certificate. A server shows its certificate's serial
    /// number to nobody, so a tunnel that we dialled closes with any revocation of its peer.
    pub accepted: &'a BTreeSet<Slot>,
}

/// One order of a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevocationOrder {
    /// Send nothing to the node any more.
    Block(Prefix),
    /// Let packets to the node pass again, if any route leads there.
    Unblock(Prefix),
    /// Carry out an order about a tunnel.
    Tunnel(Decision),
}

/// The revocations that are not completed yet.
#[derive(Clone, Debug, Default)]
pub struct Revocation {
    /// Tunnels of revoked certificates that drain, and when each is closed at the latest. A later tunnel on the slot may have a valid one.
    draining: BTreeMap<Slot, (TunnelIdentity, Uptime)>,
    /// Blocked nodes, and until when.
    blocked: BTreeMap<Prefix, Uptime>,
}

impl Revocation {
    /// Returns whether all revocations are completed.
    pub fn is_completed(&self) -> bool {
        self.draining.is_empty() && self.blocked.is_empty()
    }

    /// Takes notice of revoked certificates.
    pub fn on_revoked(
        &mut self,
        revoked: Revoked<'_>,
        me: Prefix,
        tunnels: &BTreeMap<Slot, TunnelReading>,
        now: Uptime,
    ) -> Vec<RevocationOrder> {
        let mut orders = Vec::new();
        for node in revoked.nodes.iter().filter(|node| **node != me) {
            self.blocked.insert(*node, now + BLOCK_TIME);
            orders.push(RevocationOrder::Block(*node));
        }
        let is_revoked = |tunnel: &&TunnelReading| match tunnel.role() {
            Role::Accepted => revoked.accepted.contains(&tunnel.slot),
            Role::Dialled => revoked.nodes.contains(&tunnel.peer),
        };
        for tunnel in tunnels.values().filter(is_revoked) {
            orders.extend(self.revoke(tunnel, now).map(RevocationOrder::Tunnel));
        }
        orders
    }

    fn revoke(&mut self, tunnel: &TunnelReading, now: Uptime) -> Option<Decision> {
        let (slot, peer) = (tunnel.slot, tunnel.peer);
        let reason = CloseReason::Revoked;
        match tunnel.phase {
            Phase::Connecting => Some(Decision {
                order: Order::Close { slot, reason },
                terms: format!("the certificate of {peer} is revoked; the tunnel is not up yet"),
            }),
            Phase::Up | Phase::Draining { .. } => {
                let closing = (tunnel.identity(), now + DRAIN_TIME);
                let entry = self.draining.entry(slot).or_insert(closing);
                if entry.0 != closing.0 {
                    *entry = closing;
                }
                let drains = tunnel.phase.drained_for(reason) != tunnel.phase;
                drains.then(|| Decision {
                    order: Order::Drain { slot, reason },
                    terms: format!(
                        "the certificate of {peer} is revoked; the traffic of others moves away before the \
                         tunnel is closed; closed_within={} s",
                        DRAIN_TIME.as_secs()
                    ),
                })
            }
            Phase::Closing => None,
        }
    }

    /// Decides what is due; to be called several times a second.
    pub fn step(
        &mut self,
        tunnels: &BTreeMap<Slot, TunnelReading>,
        now: Uptime,
    ) -> Vec<RevocationOrder> {
        let mut orders = Vec::new();
        self.blocked.retain(|node, until| {
            if *until <= now {
                orders.push(RevocationOrder::Unblock(*node));
            }
            *until > now
        });
        self.draining.retain(|slot, (identity, deadline)| {
            let present = tunnels.get(slot);
            let Some(tunnel) = present.filter(|tunnel| tunnel.identity() == *identity) else {
                return false;
            };
            let peer = tunnel.peer;
            if *deadline > now {
                return true;
            }
            if tunnel.phase != Phase::Closing {
                let order = Order::Close {
                    slot: *slot,
                    reason: CloseReason::Revoked,
                };
                let terms = format!(
                    "the certificate of {peer} is revoked, and the time to drain has elapsed; drain_time={} s",
                    DRAIN_TIME.as_secs()
                );
                orders.push(RevocationOrder::Tunnel(Decision { order, terms }));
            }
            false
        });
        orders
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Transport;

    const DIALLED: Slot = Slot::Dialling(0);
    const ACCEPTED: Slot = Slot::Accepting(Transport::Udp, 2);
    const UNUSED: Phase = Phase::Draining {
        reason: CloseReason::Unused,
    };
    const REVOKED: Phase = Phase::Draining {
        reason: CloseReason::Revoked,
    };

    fn node(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    fn tunnel(slot: Slot, peer: u32, phase: Phase) -> TunnelReading {
        TunnelReading {
            slot,
            peer: node(peer),
            phase,
            since: Uptime::default(),
            up_since: None,
            endpoint: None,
        }
    }

    fn tunnels(all: &[(Slot, u32, Phase)]) -> BTreeMap<Slot, TunnelReading> {
        all.iter()
            .map(|(slot, peer, phase)| (*slot, tunnel(*slot, *peer, *phase)))
            .collect()
    }

    fn at(second: u64) -> Uptime {
        Uptime::from_secs(second)
    }

    /// The orders after the certificates of these nodes and accepted slots were revoked at second 100.
    fn revoke(
        revocation: &mut Revocation,
        nodes: &[u32],
        accepted: &[Slot],
        all: &[(Slot, u32, Phase)],
    ) -> Vec<RevocationOrder> {
        let revoked = Revoked {
            nodes: &nodes.iter().copied().map(node).collect(),
            accepted: &accepted.iter().copied().collect(),
        };
        revocation.on_revoked(revoked, node(1), &tunnels(all), at(100))
    }

    /// The orders about tunnels, without their terms.
    fn of_tunnels(orders: Vec<RevocationOrder>) -> Vec<Order> {
        let tunnel = |order| match order {
            RevocationOrder::Tunnel(decision) => Some(decision.order),
            RevocationOrder::Block(_) | RevocationOrder::Unblock(_) => None,
        };
        orders.into_iter().filter_map(tunnel).collect()
    }

    fn drain(slot: Slot) -> Order {
        let reason = CloseReason::Revoked;
        Order::Drain { slot, reason }
    }

    fn close(slot: Slot) -> Order {
        let reason = CloseReason::Revoked;
        Order::Close { slot, reason }
    }

    /// What a revocation of a dialled tunnel's peer orders in each phase.
    #[track_caller]
    fn check(phase: Phase, expected: &[Order]) {
        let mut revocation = Revocation::default();
        let orders = revoke(&mut revocation, &[7], &[], &[(DIALLED, 7, phase)]);
        assert_eq!(of_tunnels(orders), expected, "{phase:?}");
    }

    #[test]
    fn a_tunnel_to_a_revoked_node_drains_or_closes_by_its_phase() {
        check(Phase::Connecting, &[close(DIALLED)]);
        check(Phase::Up, &[drain(DIALLED)]);
        check(UNUSED, &[drain(DIALLED)]);
        check(REVOKED, &[]);
        check(Phase::Closing, &[]);
    }

    #[test]
    fn a_dialled_tunnel_goes_by_its_peer_and_an_accepted_one_by_its_certificate() {
        let tunnels = [
            (DIALLED, 7, Phase::Up),
            (Slot::Dialling(1), 8, Phase::Up),
            (ACCEPTED, 7, Phase::Up),
            (Slot::Accepting(Transport::Udp, 3), 9, Phase::Up),
        ];
        let mut revocation = Revocation::default();
        let orders = of_tunnels(revoke(&mut revocation, &[7], &[], &tunnels));
        assert_eq!(orders, [drain(DIALLED)]);
        let mut revocation = Revocation::default();
        let orders = of_tunnels(revoke(&mut revocation, &[7], &[ACCEPTED], &tunnels));
        assert_eq!(orders, [drain(DIALLED), drain(ACCEPTED)]);
    }

    #[test]
    fn a_drained_tunnel_is_closed_once_after_ten_seconds() {
        let mut revocation = Revocation::default();
        revoke(&mut revocation, &[7], &[], &[(DIALLED, 7, Phase::Up)]);
        let draining = tunnels(&[(DIALLED, 7, REVOKED)]);
        let closed: Vec<_> = (101..119)
            .filter(|second| !of_tunnels(revocation.step(&draining, at(*second))).is_empty())
            .collect();
        assert_eq!(closed, [110]);
    }

    #[test]
    fn a_second_revocation_does_not_lengthen_the_drain() {
        let mut revocation = Revocation::default();
        let up = [(DIALLED, 7, Phase::Up)];
        let draining = [(DIALLED, 7, REVOKED)];
        revoke(&mut revocation, &[7], &[], &up);
        let nodes = [node(7)].into();
        let revoked = Revoked {
            nodes: &nodes,
            accepted: &BTreeSet::new(),
        };
        let orders = revocation.on_revoked(revoked, node(1), &tunnels(&draining), at(105));
        assert_eq!(of_tunnels(orders), []);
        let orders = revocation.step(&tunnels(&draining), at(110));
        assert_eq!(of_tunnels(orders), [close(DIALLED)]);
    }

    #[test]
    fn a_tunnel_that_is_gone_or_closing_or_another_peers_is_left_alone() {
        for later in [
            vec![],
            vec![(DIALLED, 8, Phase::Up)],
            vec![(DIALLED, 7, Phase::Closing)],
        ] {
            let mut revocation = Revocation::default();
            revoke(&mut revocation, &[7], &[], &[(DIALLED, 7, Phase::Up)]);
            let orders = revocation.step(&tunnels(&later), at(110));
            assert_eq!(of_tunnels(orders), [], "{later:?}");
        }
    }

    #[test]
    fn a_client_that_came_back_with_another_certificate_keeps_its_tunnel() {
        let mut revocation = Revocation::default();
        revoke(
            &mut revocation,
            &[7],
            &[ACCEPTED],
            &[(ACCEPTED, 7, Phase::Up)],
        );
        let mut later = tunnels(&[(ACCEPTED, 7, Phase::Up)]);
        for tunnel in later.values_mut() {
            tunnel.up_since = Some(at(105));
        }
        assert_eq!(of_tunnels(revocation.step(&later, at(110))), []);
    }

    #[test]
    fn a_revoked_node_is_blocked_for_twenty_seconds_and_this_node_never() {
        let mut revocation = Revocation::default();
        let orders = revoke(&mut revocation, &[1, 7], &[], &[]);
        assert_eq!(orders, [RevocationOrder::Block(node(7))]);
        let none = BTreeMap::new();
        assert_eq!(revocation.step(&none, at(119)), []);
        let unblock = [RevocationOrder::Unblock(node(7))];
        assert_eq!(revocation.step(&none, at(120)), unblock);
        assert_eq!(revocation.step(&none, at(121)), []);
    }

    #[test]
    fn a_node_revoked_again_stays_blocked_for_longer() {
        let mut revocation = Revocation::default();
        revoke(&mut revocation, &[7], &[], &[]);
        let nodes = [node(7)].into();
        let revoked = Revoked {
            nodes: &nodes,
            accepted: &BTreeSet::new(),
        };
        let orders = revocation.on_revoked(revoked, node(1), &BTreeMap::new(), at(115));
        assert_eq!(orders, [RevocationOrder::Block(node(7))]);
        assert_eq!(revocation.step(&BTreeMap::new(), at(120)), []);
        assert_eq!(revocation.step(&BTreeMap::new(), at(135)).len(), 1);
    }

    #[test]
    fn each_order_names_the_node_whose_certificate_is_revoked() {
        let mut revocation = Revocation::default();
        for order in revoke(&mut revocation, &[7], &[], &[(DIALLED, 7, Phase::Up)]) {
            if let RevocationOrder::Tunnel(decision) = order {
                assert!(
                    decision.terms.contains("certificate of 7/16"),
                    "{decision:?}"
                );
            }
        }
    }
}
