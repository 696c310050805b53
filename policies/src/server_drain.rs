//! Decides when a server that drains may end: all its tunnels end with it.

use crate::{
    names::{Prefix, Slot},
    units::Uptime,
    ways::Ways,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A server drains at least so long: the far ends' costs are read anew meanwhile.
const LEAST: Duration = Duration::from_secs(3);
/// A server that is not drained after this long is kept for now.
const MOST: Duration = Duration::from_secs(20);

/// How a server's drain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerDrain {
    /// It goes on.
    Wait,
    /// Nothing is routed through its tunnels any more.
    Done,
    /// Something still is, and shall stay.
    GiveUp,
}

/// Looks at the drain of a server's tunnels, on `slots`, that began at `since`; `drained` says of each that
/// the planner has looked at whether it may end.
pub fn server_drain(
    slots: &BTreeSet<Slot>,
    drained: &BTreeMap<Slot, bool>,
    since: Uptime,
    now: Uptime,
) -> ServerDrain {
    let dwell = now.since(since);
    let all = slots
        .iter()
        .all(|slot| drained.get(slot).copied().unwrap_or(false));
    if slots.is_empty() || (all && dwell >= LEAST) {
        ServerDrain::Done
    } else if dwell >= MOST {
        ServerDrain::GiveUp
    } else {
        ServerDrain::Wait
    }
}

/// A node that is reached by these slots alone; `ways` were sorted with none of them staying.
pub fn only_way(ways: &Ways, slots: &BTreeSet<Slot>) -> Option<Prefix> {
    slots.iter().find_map(|slot| ways.service(*slot).only_way)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{names::Transport, world::Route};

    fn slot(number: u16) -> Slot {
        Slot::Accepting(Transport::Udp, number)
    }

    #[track_caller]
    fn check(slots: &[u16], drained: &[(u16, bool)], seconds: u64, expected: ServerDrain) {
        let slots = slots.iter().copied().map(slot).collect();
        let drained = drained
            .iter()
            .map(|(number, is)| (slot(*number), *is))
            .collect();
        let (since, now) = (Uptime::from_secs(100), Uptime::from_secs(100 + seconds));
        assert_eq!(server_drain(&slots, &drained, since, now), expected);
    }

    #[test]
    fn a_server_may_end_once_all_its_tunnels_may_and_is_kept_where_one_stays() {
        check(&[2, 3], &[(2, true), (3, true)], 2, ServerDrain::Wait);
        check(
            &[2, 3],
            &[(2, true), (3, true), (9, false)],
            3,
            ServerDrain::Done,
        );
        check(&[2, 3], &[(2, true), (3, false)], 19, ServerDrain::Wait);
        check(&[2, 3], &[(2, true), (3, false)], 20, ServerDrain::GiveUp);
    }

    #[test]
    fn what_nobody_has_looked_at_is_not_drained_and_a_server_without_tunnels_may_end_at_once() {
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
        let goes = [slot(2)].into();
        let only = |routes: &[(u32, u16, bool)]| {
            let routes: Vec<_> = routes.iter().copied().map(route).collect();
            only_way(&Ways::of(&routes, node(1), |at| at != slot(2)), &goes)
        };
        assert_eq!(only(&[(7, 2, true), (7, 3, false)]), None);
        assert_eq!(only(&[(7, 2, true), (8, 3, true)]), Some(node(7)));
    }
}
