//! Carries a drain through: until the processes of the drained tunnels restart, or the drain is given up.
//!
//! The tunnels of a server drain together, since all of them end with its process. Dialled tunnels drain together as long as
//! every node has a route by other tunnels.

use super::{
    MAX_WAIT_FOR_PEERS, RestartObservation, RestartOrder, RollingRestart, ServerReading,
    attempts::Attempted,
};
use crate::{
    names::{Prefix, Slot, Transport},
    observation::{Phase, Route},
    orders::{AbandonReason, CloseReason, Decision, Order},
    routes::RouteIndex,
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Shortest drain: meanwhile the costs at the far ends are read again, and other routes are announced.
const MIN_DRAIN_TIME: Duration = Duration::from_secs(3);
/// Processes whose tunnels are not drained after this time stay as they are for now, where hellos are rare.
pub(super) const MAX_DRAIN_TIME: Duration = Duration::from_secs(20);
/// The same in hello intervals: after eight of them babeld takes a draining tunnel for unreachable (measured), and traffic that
/// still passes it is lost.
const MAX_DRAIN_HELLOS: u32 = 7;

/// A node must be reached by draining tunnels alone for this long before their drain is given up, since tables change in steps.
const NEEDED_TIME: Duration = Duration::from_secs(1);

/// The processes that restart together.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// The server of this transport.
    Server(Transport),
    /// The dialled tunnels on these slots.
    Dials(BTreeSet<Slot>),
}

/// Tunnels that drain so that their processes can restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Draining {
    target: Target,
    since: Uptime,
    /// Since when a node has been reached by these tunnels alone.
    needed_since: Option<Uptime>,
}

impl Draining {
    fn new(target: Target, since: Uptime) -> Self {
        Self {
            target,
            since,
            needed_since: None,
        }
    }
}

/// The judgement of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    /// Traffic still moves away.
    Wait,
    /// Nothing is routed through the tunnels any more.
    Done,
    /// Traffic stays on the tunnels.
    GiveUp,
}

/// Judges the drain of the tunnels on `slots`. `drained` holds the planner's judgement of each tunnel: whether it carries
/// nothing any more.
fn judge(
    slots: &BTreeSet<Slot>,
    drained: &BTreeMap<Slot, bool>,
    (drained_for, limit): (Duration, Duration),
) -> Judgement {
    let all_drained = slots.iter().all(|slot| is_drained(*slot, drained));
    if slots.is_empty() || (all_drained && drained_for >= MIN_DRAIN_TIME) {
        Judgement::Done
    } else if drained_for >= limit {
        Judgement::GiveUp
    } else {
        Judgement::Wait
    }
}

fn is_drained(slot: Slot, drained: &BTreeMap<Slot, bool>) -> bool {
    drained.get(&slot).copied().unwrap_or(false)
}

/// A node that only these slots lead to.
fn only_route(routes: Option<&[Route]>, me: Prefix, slots: &BTreeSet<Slot>) -> Option<Prefix> {
    let index = RouteIndex::new(routes?, me, |slot| !slots.contains(&slot));
    let mut slots = slots.iter();
    slots.find_map(|slot| index.service(*slot).only_route)
}

/// Those of the dialled tunnels that drain together: at most half of all tunnels, and together no only route to a node, but at
/// least one, whose drain shows whether a node needs it.
fn dials_to_drain(seen: &RestartObservation<'_>, dials: &[Slot]) -> BTreeSet<Slot> {
    let limit = (seen.tunnels.len() / 2).max(1);
    let mut chosen = BTreeSet::new();
    for slot in dials {
        chosen.insert(*slot);
        let is_needed = only_route(seen.routes, seen.me, &chosen).is_some();
        if chosen.len() > limit || is_needed {
            chosen.remove(slot);
        }
    }
    if chosen.is_empty() {
        chosen.extend(dials.first());
    }
    chosen
}

impl RollingRestart {
    /// Drains all tunnels of a server. Whether a node needs them shows only then: neighbours that reach the node through this
    /// one announce no route of their own before.
    pub(super) fn drain_server(
        &mut self,
        transport: Transport,
        server: &ServerReading,
        seen: &RestartObservation<'_>,
        orders: &mut Vec<RestartOrder>,
    ) {
        let running_for = seen.now.since(server.started_at).as_secs();
        let terms = format!(
            "server-{transport} runs with old certificates or keys and has to restart; tunnels={} running_for={running_for} s",
            server.slots.len()
        );
        drain(&server.slots, &terms, seen, orders);
        orders.push(RestartOrder::StopAccepting { transport });
        self.draining = Some(Draining::new(Target::Server(transport), seen.now));
    }

    /// Drains as many of the dialled tunnels as possible. Once the restart is forced, one restarts without a drain.
    pub(super) fn drain_dials(
        &mut self,
        dials: &[Slot],
        seen: &RestartObservation<'_>,
        orders: &mut Vec<RestartOrder>,
    ) {
        if let Some(first) = dials.first().filter(|_| self.is_forced(seen.now)) {
            self.attempts.note(Attempted::Dial(*first), seen.now);
            return self.restart_dials(&[*first].into(), Duration::ZERO, seen, orders);
        }
        let chosen = dials_to_drain(seen, dials);
        let terms = format!(
            "OpenVPN runs with old certificates or keys and has to restart; tunnels={}",
            chosen.len()
        );
        drain(&chosen, &terms, seen, orders);
        self.draining = Some(Draining::new(Target::Dials(chosen), seen.now));
    }

    /// Restarts the processes of drained tunnels, or gives the drain up.
    pub(super) fn continue_drain(
        &mut self,
        draining: Draining,
        seen: &RestartObservation<'_>,
        orders: &mut Vec<RestartOrder>,
    ) {
        let slots = match &draining.target {
            Target::Server(transport) => match seen.servers.get(transport) {
                Some(server) => server.slots.clone(),
                None => return,
            },
            Target::Dials(slots) => {
                let is_dialled = |slot: &&Slot| seen.dials.contains_key(slot);
                slots.iter().filter(is_dialled).copied().collect()
            }
        };
        let drained_for = seen.now.since(draining.since);
        let node = only_route(seen.routes, seen.me, &slots);
        let needed_since = node.map(|_| draining.needed_since.unwrap_or(seen.now));
        let is_needed = needed_since.is_some_and(|since| seen.now.since(since) >= NEEDED_TIME)
            && drained_for >= MIN_DRAIN_TIME;
        let limit = seen.hello_interval.saturating_mul(MAX_DRAIN_HELLOS);
        let limit = limit.min(MAX_DRAIN_TIME);
        match judge(&slots, seen.drained, (drained_for, limit)) {
            judgement @ (Judgement::Wait | Judgement::GiveUp)
                if (is_needed || judgement == Judgement::GiveUp) && !self.is_forced(seen.now) =>
            {
                let reason = match is_needed {
                    true => AbandonReason::OnlyRoute,
                    false => AbandonReason::Deadline,
                };
                self.give_up(
                    &draining.target,
                    &slots,
                    (reason, drained_for),
                    seen,
                    orders,
                );
            }
            Judgement::Wait => {
                self.draining = Some(Draining {
                    needed_since,
                    ..draining
                });
            }
            Judgement::Done | Judgement::GiveUp => match draining.target {
                Target::Server(transport) => {
                    self.restart_server(transport, &slots, drained_for, seen, orders);
                }
                Target::Dials(_) => self.restart_dials(&slots, drained_for, seen, orders),
            },
        }
    }

    fn restart_server(
        &mut self,
        transport: Transport,
        slots: &BTreeSet<Slot>,
        drained_for: Duration,
        seen: &RestartObservation<'_>,
        orders: &mut Vec<RestartOrder>,
    ) {
        if !slots.is_empty() {
            self.settle(slots, seen);
        }
        let terms = format!(
            "server-{transport} restarts with the new certificates or keys; drained_for={} s",
            drained_for.as_secs()
        );
        orders.push(RestartOrder::RestartServer {
            transport,
            drained_for,
            closings: closings(slots, &terms, seen),
        });
    }

    fn restart_dials(
        &mut self,
        slots: &BTreeSet<Slot>,
        drained_for: Duration,
        seen: &RestartObservation<'_>,
        orders: &mut Vec<RestartOrder>,
    ) {
        self.settle(slots, seen);
        let terms = format!(
            "OpenVPN restarts with the new certificates or keys, and dials the same peer; drained_for={} s",
            drained_for.as_secs()
        );
        orders.push(RestartOrder::RestartDials {
            closings: closings(slots, &terms, seen),
        });
    }

    /// Keeps the locks until the peers of the tunnels on these slots are back.
    fn settle(&mut self, slots: &BTreeSet<Slot>, seen: &RestartObservation<'_>) {
        let tunnels = slots.iter().filter_map(|slot| seen.tunnels.get(slot));
        let peers = tunnels.map(|tunnel| tunnel.peer).collect();
        self.locks.settle(peers, seen.now + MAX_WAIT_FOR_PEERS);
        if self.is_forced(seen.now) {
            self.pause(seen.now);
        }
    }

    /// Restarts those dialled tunnels that have drained, and gives up the drain of all others.
    fn give_up(
        &mut self,
        target: &Target,
        slots: &BTreeSet<Slot>,
        (reason, drained_for): (AbandonReason, Duration),
        seen: &RestartObservation<'_>,
        orders: &mut Vec<RestartOrder>,
    ) {
        let (mut done, mut kept) = (BTreeSet::new(), slots.clone());
        match target {
            Target::Server(transport) => {
                let transport = *transport;
                self.attempts.note(Attempted::Server(transport), seen.now);
                orders.push(RestartOrder::ResumeAccepting { transport });
            }
            Target::Dials(_) => {
                let by_state = slots.iter().copied();
                (done, kept) = by_state.partition(|slot| is_drained(*slot, seen.drained));
                for slot in &kept {
                    self.attempts.note(Attempted::Dial(*slot), seen.now);
                }
            }
        }
        let drains_for_this = |slot: &Slot| {
            let tunnel = seen.tunnels.get(slot);
            tunnel.is_some_and(|tunnel| tunnel.phase.drain_reason() == Some(CloseReason::Renewed))
        };
        for slot in kept.into_iter().filter(drains_for_this) {
            orders.push(RestartOrder::Tunnel(Decision {
                order: Order::Undrain { slot, reason },
                terms: format!(
                    "traffic stays on the tunnel, whose process restarts later; drained_for={} s",
                    drained_for.as_secs()
                ),
            }));
        }
        if done.is_empty() {
            self.pause(seen.now);
            self.release_locks(orders);
        } else {
            self.restart_dials(&done, drained_for, seen, orders);
        }
    }
}

/// Orders the drain of those tunnels that are up.
fn drain(
    slots: &BTreeSet<Slot>,
    terms: &str,
    seen: &RestartObservation<'_>,
    orders: &mut Vec<RestartOrder>,
) {
    let is_up = |slot: &Slot| {
        let tunnel = seen.tunnels.get(slot);
        tunnel.is_some_and(|tunnel| tunnel.phase == Phase::Up)
    };
    for slot in slots.iter().copied().filter(is_up) {
        let reason = CloseReason::Renewed;
        orders.push(RestartOrder::Tunnel(Decision {
            order: Order::Drain { slot, reason },
            terms: terms.to_owned(),
        }));
    }
}

/// The decisions that a restart closes the tunnels on these slots.
fn closings(slots: &BTreeSet<Slot>, terms: &str, seen: &RestartObservation<'_>) -> Vec<Decision> {
    let tunnels = slots.iter().copied();
    let tunnels = tunnels.filter(|slot| seen.tunnels.contains_key(slot));
    let reason = CloseReason::Renewed;
    let closing = |slot| Decision {
        order: Order::Close { slot, reason },
        terms: terms.to_owned(),
    };
    tunnels.map(closing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u16) -> Slot {
        Slot::Accepting(Transport::Udp, number)
    }

    #[track_caller]
    fn check(slots: &[u16], drained: &[(u16, bool)], seconds: u64, expected: Judgement) {
        let slots = slots.iter().copied().map(slot).collect();
        let drained = drained.iter().map(|(number, is)| (slot(*number), *is));
        let drained = drained.collect();
        let drained_for = Duration::from_secs(seconds);
        let times = (drained_for, MAX_DRAIN_TIME);
        assert_eq!(judge(&slots, &drained, times), expected);
    }

    #[test]
    fn a_server_restarts_once_all_its_tunnels_are_drained_and_stays_where_one_is_not() {
        let one_left = [(2, true), (3, false)];
        check(&[2, 3], &[(2, true), (3, true)], 2, Judgement::Wait);
        check(
            &[2, 3],
            &[(2, true), (3, true), (9, false)],
            3,
            Judgement::Done,
        );
        check(&[2, 3], &one_left, 19, Judgement::Wait);
        check(&[2, 3], &one_left, 20, Judgement::GiveUp);
    }

    #[test]
    fn a_tunnel_nobody_has_judged_is_not_drained_and_a_server_without_tunnels_is() {
        check(&[2, 3], &[(2, true)], 10, Judgement::Wait);
        check(&[], &[], 0, Judgement::Done);
    }

    #[test]
    fn a_node_that_no_other_slot_leads_to_is_named() {
        let node = |number| Prefix::new(number, 16).unwrap();
        let route = |(number, at, installed): (u32, u16, bool)| Route {
            node: node(number),
            slot: slot(at),
            via: node(number),
            installed,
            metric: 96,
            refmetric: 0,
        };
        let leaving = [slot(2)].into();
        let only = |routes: &[(u32, u16, bool)]| {
            let routes: Vec<_> = routes.iter().copied().map(route).collect();
            only_route(Some(&routes), node(1), &leaving)
        };
        assert_eq!(only(&[(7, 2, true), (7, 3, false)]), None);
        assert_eq!(only(&[(7, 2, true), (8, 3, true)]), Some(node(7)));
    }
}
