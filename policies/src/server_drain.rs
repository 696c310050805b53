//! Decides when a server that drains may end: all its tunnels end with it.

use crate::{
    names::{Prefix, Slot},
    units::Uptime,
    ways::Ways,
};
use std::{collections::BTreeSet, time::Duration};

/// A server drains at least so long: by then the far ends have missed five hellos of a second.
const LEAST: Duration = Duration::from_secs(6);
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

/// Looks at the drain of a server's tunnels, on `slots`, that began at `since`. Without `ways` nothing is
/// known to have moved.
pub fn server_drain(ways: Option<&Ways>, slots: &BTreeSet<Slot>, since: Uptime, now: Uptime) -> ServerDrain {
    let used = ways.is_none_or(|ways| slots.iter().any(|slot| ways.service(*slot).nodes > 0));
    let dwell = now.since(since);
    if slots.is_empty() || (!used && dwell >= LEAST) {
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
    use crate::world::Route;

    fn node(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    fn ways(routes: &[(u32, u16, bool)], slots: &BTreeSet<Slot>) -> Ways {
        let route = |(number, slot, installed): &(u32, u16, bool)| Route {
            node: node(*number),
            slot: Slot::Dialling(*slot),
            via: node(*number),
            installed: *installed,
            metric: 96,
            refmetric: 0,
        };
        let routes: Vec<_> = routes.iter().map(route).collect();
        Ways::of(&routes, node(1), |slot| !slots.contains(&slot))
    }

    #[track_caller]
    fn check(routes: &[(u32, u16, bool)], seconds: u64, expected: ServerDrain, only: Option<u32>) {
        let slots = [Slot::Dialling(1)].into();
        let ways = ways(routes, &slots);
        let (since, now) = (Uptime::from_secs(100), Uptime::from_secs(100 + seconds));
        assert_eq!(server_drain(Some(&ways), &slots, since, now), expected);
        assert_eq!(only_way(&ways, &slots), only.map(node));
    }

    #[test]
    fn a_server_is_drained_once_no_route_uses_it_and_given_up_where_one_stays() {
        check(&[(7, 1, false), (7, 2, true)], 5, ServerDrain::Wait, None);
        check(&[(7, 1, false), (7, 2, true)], 6, ServerDrain::Done, None);
        check(&[(7, 1, true), (7, 2, false)], 19, ServerDrain::Wait, None);
        check(&[(7, 1, true), (8, 2, true)], 20, ServerDrain::GiveUp, Some(7));
    }

    #[test]
    fn without_a_table_nothing_is_known_to_have_moved() {
        let slots = [Slot::Dialling(1)].into();
        let drain = |slots, now| server_drain(None, slots, Uptime::from_secs(1), Uptime::from_secs(now));
        assert_eq!(drain(&slots, 10), ServerDrain::Wait);
        assert_eq!(drain(&BTreeSet::new(), 1), ServerDrain::Done);
    }
}
