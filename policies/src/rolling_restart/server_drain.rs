//! Decides when a draining server may restart: all its tunnels end with its process.

use crate::{
    names::{Prefix, Slot},
    routes::RouteIndex,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Shortest drain of a server with tunnels: meanwhile the costs at the far ends are read again.
const MIN_DRAIN_TIME: Duration = Duration::from_secs(3);
/// A server that is not drained after this time keeps its process for now.
const MAX_DRAIN_TIME: Duration = Duration::from_secs(20);

/// The judgement of a server's drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerDrain {
    /// Traffic still moves away.
    Wait,
    /// Nothing is routed through its tunnels any more.
    Done,
    /// Traffic stays on its tunnels.
    GiveUp,
}

/// Judges the drain of a server with tunnels on `slots`. `drained` holds the planner's judgement of each tunnel:
/// whether it carries nothing any more.
pub(super) fn server_drain(
    slots: &BTreeSet<Slot>,
    drained: &BTreeMap<Slot, bool>,
    drained_for: Duration,
) -> ServerDrain {
    let is_drained = |slot: &Slot| drained.get(slot).copied().unwrap_or(false);
    let all_drained = slots.iter().all(is_drained);
    if slots.is_empty() || (all_drained && drained_for >= MIN_DRAIN_TIME) {
        ServerDrain::Done
    } else if drained_for >= MAX_DRAIN_TIME {
        ServerDrain::GiveUp
    } else {
        ServerDrain::Wait
    }
}

/// A node that only these slots lead to; `index` must have been made with none of these slots staying.
pub(super) fn only_route(index: &RouteIndex, slots: &BTreeSet<Slot>) -> Option<Prefix> {
    let mut slots = slots.iter();
    slots.find_map(|slot| index.service(*slot).only_route)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{names::Transport, observation::Route};

    fn slot(number: u16) -> Slot {
        Slot::Accepting(Transport::Udp, number)
    }

    #[track_caller]
    fn check(slots: &[u16], drained: &[(u16, bool)], seconds: u64, expected: ServerDrain) {
        let slots = slots.iter().copied().map(slot).collect();
        let drained = drained.iter().map(|(number, is)| (slot(*number), *is));
        let drained = drained.collect();
        let drained_for = Duration::from_secs(seconds);
        assert_eq!(server_drain(&slots, &drained, drained_for), expected);
    }

    #[test]
    fn a_server_restarts_once_all_its_tunnels_are_drained_and_stays_where_one_is_not() {
        let one_left = [(2, true), (3, false)];
        check(&[2, 3], &[(2, true), (3, true)], 2, ServerDrain::Wait);
        check(
            &[2, 3],
            &[(2, true), (3, true), (9, false)],
            3,
            ServerDrain::Done,
        );
        check(&[2, 3], &one_left, 19, ServerDrain::Wait);
        check(&[2, 3], &one_left, 20, ServerDrain::GiveUp);
    }

    #[test]
    fn a_tunnel_nobody_has_judged_is_not_drained_and_a_server_without_tunnels_is() {
        check(&[2, 3], &[(2, true)], 10, ServerDrain::Wait);
        check(&[], &[], 0, ServerDrain::Done);
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
            let index = RouteIndex::new(&routes, node(1), |at| at != slot(2));
            only_route(&index, &leaving)
        };
        assert_eq!(only(&[(7, 2, true), (7, 3, false)]), None);
        assert_eq!(only(&[(7, 2, true), (8, 3, true)]), Some(node(7)));
    }
}
