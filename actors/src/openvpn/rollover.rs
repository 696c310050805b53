//! Starts OpenVPN's processes anew, one by one, after certificates or keys have changed, since each reads
//! them at its start only.
//!
//! What is started anew is drained first. Dialled tunnels are handed to the planner, which closes a draining
//! one once nothing passes, or gives up; a server is done here, since all its tunnels end with it.

use policies::{
    names::{Prefix, Slot},
    units::Uptime,
    world::{BabelTable, INFINITY, Route},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Between two processes.
pub(super) const REST: Duration = Duration::from_secs(3);
/// What could not be drained is tried again after this.
pub(super) const AGAIN: Duration = Duration::from_secs(30);
/// A server drains at least so long: by then the far ends have missed five hellos of a second.
const LEAST: Duration = Duration::from_secs(6);
/// A server that is not drained after this long is kept for now.
const MOST: Duration = Duration::from_secs(20);

/// What is to be started anew, and how far that has come. Outlives the actor.
#[derive(Debug, Default)]
pub(super) struct Rollover {
    /// Servers that were started before have old files.
    pub(super) servers_before: Uptime,
    /// Dialled tunnels that were begun before have old files.
    pub(super) dials_before: Uptime,
    /// Not before.
    begin: Uptime,
    /// From then on nothing is drained any more.
    force: Option<Uptime>,
    /// The network document that is applied once nothing is left to do.
    pub(super) version: u64,
    /// Nothing before this.
    pub(super) rests_until: Uptime,
    /// When a dialled tunnel was last begun to drain for this.
    pub(super) tried: BTreeMap<Slot, Uptime>,
}

impl Rollover {
    /// New files: a new turn, or one that goes on with more to do.
    pub(super) fn changed(&mut self, change: &crate::messages::CredentialsChanged) {
        self.version = change.network_version;
        if !change.servers && !change.dials {
            return;
        }
        if change.servers {
            self.servers_before = change.at;
        }
        if change.dials {
            self.dials_before = change.at;
        }
        self.begin = change.at + change.after;
        self.force = Some(change.at + change.at_the_latest);
        self.tried.clear();
    }

    /// Whether something may be done now.
    pub(super) fn may(&self, now: Uptime) -> bool {
        self.begin <= now && self.rests_until <= now
    }

    /// Whether there is no time left to drain.
    pub(super) fn must(&self, now: Uptime) -> bool {
        self.force.is_some_and(|force| force <= now)
    }

    /// Whether that dialled tunnel was not tried a short while ago.
    pub(super) fn may_try(&self, slot: Slot, now: Uptime) -> bool {
        self.tried.get(&slot).is_none_or(|at| now.since(*at) >= AGAIN)
    }
}

/// How a server's drain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerDrain {
    /// It goes on.
    Wait,
    /// Nothing is routed through its tunnels any more.
    Done,
    /// Something still is, and shall stay.
    GiveUp,
}

/// Looks at the drain of a server's tunnels that began at `since`.
pub(super) fn server_drain(
    table: Option<&BabelTable>,
    slots: &BTreeSet<Slot>,
    since: Uptime,
    now: Uptime,
) -> ServerDrain {
    let used = table.is_none_or(|table| {
        table
            .routes
            .iter()
            .any(|route| route.installed && route.metric < INFINITY && slots.contains(&route.slot))
    });
    let dwell = now.since(since);
    if slots.is_empty() || (!used && dwell >= LEAST) {
        ServerDrain::Done
    } else if dwell >= MOST {
        ServerDrain::GiveUp
    } else {
        ServerDrain::Wait
    }
}

/// A node that is reached by these slots alone.
pub(super) fn only_way(table: &BabelTable, slots: &BTreeSet<Slot>) -> Option<Prefix> {
    let ways = table.routes.iter().filter(|route| route.metric < INFINITY);
    let (by_them, others): (Vec<&Route>, Vec<&Route>) = ways.partition(|route| slots.contains(&route.slot));
    let others: BTreeSet<Prefix> = others.into_iter().map(|route| route.node).collect();
    by_them.into_iter().map(|route| route.node).find(|node| !others.contains(node))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    fn table(routes: &[(u32, u16, bool)]) -> BabelTable {
        let route = |(number, slot, installed): &(u32, u16, bool)| Route {
            node: node(*number),
            slot: Slot::Dialling(*slot),
            via: node(*number),
            installed: *installed,
            metric: 96,
            refmetric: 0,
        };
        BabelTable { neighbours: vec![], routes: routes.iter().map(route).collect() }
    }

    #[track_caller]
    fn check(routes: &[(u32, u16, bool)], seconds: u64, expected: ServerDrain, only: Option<u32>) {
        let (table, slots) = (table(routes), [Slot::Dialling(1)].into());
        let (since, now) = (Uptime::from_secs(100), Uptime::from_secs(100 + seconds));
        assert_eq!(server_drain(Some(&table), &slots, since, now), expected);
        assert_eq!(only_way(&table, &slots), only.map(node));
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
        let drain = server_drain(None, &slots, Uptime::from_secs(1), Uptime::from_secs(10));
        assert_eq!(drain, ServerDrain::Wait);
        assert_eq!(
            server_drain(None, &BTreeSet::new(), Uptime::from_secs(1), Uptime::from_secs(1)),
            ServerDrain::Done
        );
    }
}
