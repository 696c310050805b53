//! Reads the nodes' routing tables, and follows the paths that their kernels would use.

use crate::{ip, network::Lab};
use anyhow::{Context, Result};
use ipnet::Ipv6Net;
use serde::Deserialize;
use std::{collections::BTreeMap, net::Ipv6Addr, thread};
use wire::overlay;

/// Number of the table that babeld writes to.
const BABELD_TABLE: &str = "197";
/// Hops of a path, above which it is taken for a loop.
const MAX_HOPS: usize = 64;

/// Whether this link is a slot of an accepted tunnel, on the TAP of the UDP or the TCP server.
pub fn is_accepting_slot(link: &str) -> bool {
    link.starts_with("wrnu.") || link.starts_with("wrnt.")
}

/// Whether this link is a slot of a dialled tunnel.
pub fn is_dialling_slot(link: &str) -> bool {
    let number = link.strip_prefix("wrn");
    number.is_some_and(|number| number.parse::<u16>().is_ok())
}

/// One hop of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The next node, by its number in the lab.
    pub next_node: usize,
    /// The link that the packet leaves by.
    pub link: String,
}

/// All routes between the lab's nodes at one moment.
#[derive(Clone, Debug)]
pub struct KernelRoutes {
    /// The next hop towards each destination, by node and then by destination.
    hops: Vec<BTreeMap<usize, Hop>>,
}

/// One route, as `ip -json route` prints it.
#[derive(Deserialize)]
struct RouteEntry {
    dst: String,
    gateway: Option<Ipv6Addr>,
    dev: Option<String>,
}

impl KernelRoutes {
    /// Reads the tables of all nodes of the lab. A table that cannot be read counts as empty.
    ///
    /// # Errors
    /// Fails if a node has not joined.
    pub fn read(lab: &Lab) -> Result<Self> {
        let mut addresses = Vec::new();
        let mut nodes_by_link_local = BTreeMap::new();
        for node in lab.nodes() {
            let identity = node.identity()?;
            addresses.push(identity.address);
            let prefix = identity
                .prefix
                .parse()
                .with_context(|| format!("node {} has prefix {}", node.index(), identity.prefix))?;
            nodes_by_link_local.insert(overlay::link_local(prefix), node.index());
        }
        let hops = read_tables(lab)
            .iter()
            .map(|table| parse_table(table, &addresses, &nodes_by_link_local))
            .collect();
        Ok(Self { hops })
    }

    /// The next hop from `from` towards `to`.
    pub fn next_hop(&self, from: usize, to: usize) -> Option<&Hop> {
        self.hops.get(from)?.get(&to)
    }

    /// The nodes on the path from `from` to `to`, `to` included; `None` if there is no route somewhere, or a loop.
    pub fn path(&self, from: usize, to: usize) -> Option<Vec<usize>> {
        let mut path = Vec::new();
        let mut current = from;
        while current != to {
            current = self.next_hop(current, to)?.next_node;
            path.push(current);
            if path.len() > MAX_HOPS {
                return None;
            }
        }
        Some(path)
    }

    /// All ordered pairs of nodes.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let nodes = 0..self.hops.len();
        nodes
            .clone()
            .flat_map(move |from| nodes.clone().map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
    }

    /// The pairs whose path leads through `transit` and does not end there.
    pub fn pairs_through(&self, transit: usize) -> Vec<(usize, usize)> {
        let leads_through = |(from, to): &(usize, usize)| {
            let path = self.path(*from, *to).unwrap_or_default();
            *from != transit && *to != transit && path.contains(&transit)
        };
        self.pairs().filter(leads_through).collect()
    }

    /// How many destinations `from` reaches over `next_node` by the selected links.
    pub fn destinations_via(
        &self,
        from: usize,
        next_node: usize,
        is_selected: impl Fn(&str) -> bool,
    ) -> usize {
        let table = self.hops.get(from).into_iter().flat_map(BTreeMap::values);
        table
            .filter(|hop| hop.next_node == next_node && is_selected(&hop.link))
            .count()
    }

    /// The mean number of hops over all pairs, 0 in a network of one node; `None` if a pair has no path.
    pub fn mean_hops(&self) -> Option<f64> {
        let mut hops = 0u32;
        let mut pairs = 0u32;
        for (from, to) in self.pairs() {
            hops += u32::try_from(self.path(from, to)?.len()).ok()?;
            pairs += 1;
        }
        Some(f64::from(hops) / f64::from(pairs.max(1)))
    }
}

/// Reads the tables of all nodes at the same time, so that they fit together.
fn read_tables(lab: &Lab) -> Vec<String> {
    let arguments = ["-6", "-json", "route", "show", "table", BABELD_TABLE];
    thread::scope(|scope| {
        let readers: Vec<_> = lab
            .nodes()
            .iter()
            .map(|node| scope.spawn(move || ip::output(node.namespace(), &arguments)))
            .collect();
        readers
            .into_iter()
            .map(|reader| reader.join().ok().and_then(Result::ok).unwrap_or_default())
            .collect()
    })
}

/// The hops of one node's table, by destination.
fn parse_table(
    table: &str,
    addresses: &[Ipv6Addr],
    nodes_by_link_local: &BTreeMap<Ipv6Addr, usize>,
) -> BTreeMap<usize, Hop> {
    let entries: Vec<RouteEntry> = serde_json::from_str(table).unwrap_or_default();
    let mut hops = BTreeMap::new();
    for entry in entries {
        let address = || entry.dst.parse::<Ipv6Addr>().ok();
        let range = entry
            .dst
            .parse()
            .ok()
            .or_else(|| address().map(Ipv6Net::from));
        let next_node = entry
            .gateway
            .and_then(|gateway| nodes_by_link_local.get(&gateway).copied());
        let (Some(range), Some(next_node), Some(link)) = (range, next_node, entry.dev) else {
            continue;
        };
        let destinations = addresses
            .iter()
            .enumerate()
            .filter(|(_, address)| range.contains(*address));
        for (destination, _) in destinations {
            let link = link.clone();
            hops.insert(destination, Hop { next_node, link });
        }
    }
    hops
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The routes of three nodes in a line; node 1 is in the middle.
    fn routes_of_a_line() -> KernelRoutes {
        let addresses: Vec<Ipv6Addr> = (0..3)
            .map(|n| format!("fd00:0:0:{n}::1").parse().unwrap())
            .collect();
        let nodes_by_link_local: BTreeMap<Ipv6Addr, usize> = (0..3)
            .map(|n| (format!("fe80::10:0:{n}").parse().unwrap(), n))
            .collect();
        let route = |to: usize, via: usize, link: &str| {
            format!(
                r#"{{"dst":"fd00:0:0:{to}::/64","gateway":"fe80::10:0:{via}","dev":"{link}","metric":1024}}"#
            )
        };
        let tables = [
            format!("[{},{}]", route(1, 1, "wrn0"), route(2, 1, "wrn0")),
            format!("[{},{}]", route(0, 0, "wrnu.2"), route(2, 2, "wrn0")),
            format!("[{},{}]", route(0, 1, "wrnu.2"), route(1, 1, "wrnu.2")),
        ];
        let hops = tables
            .iter()
            .map(|table| parse_table(table, &addresses, &nodes_by_link_local))
            .collect();
        KernelRoutes { hops }
    }

    #[test]
    fn the_ends_of_a_line_reach_each_other_through_its_middle() {
        let routes = routes_of_a_line();
        assert_eq!(routes.path(0, 2), Some(vec![1, 2]));
        assert_eq!(routes.path(0, 1), Some(vec![1]));
        assert_eq!(routes.pairs_through(1), [(0, 2), (2, 0)]);
        assert_eq!(routes.pairs_through(0), []);
        assert_eq!(routes.mean_hops(), Some(8.0 / 6.0));
        assert_eq!(routes.destinations_via(0, 1, is_dialling_slot), 2);
        assert_eq!(routes.destinations_via(0, 1, is_accepting_slot), 0);
        assert_eq!(routes.destinations_via(1, 0, is_accepting_slot), 1);
    }

    #[test]
    fn there_is_no_path_where_a_route_is_missing_or_loops() {
        let mut routes = routes_of_a_line();
        routes.hops[1].insert(
            2,
            Hop {
                next_node: 0,
                link: "wrnu.2".into(),
            },
        );
        assert_eq!(routes.path(0, 2), None);
        routes.hops[1].clear();
        assert_eq!(routes.path(0, 2), None);
        assert_eq!(routes.mean_hops(), None);
    }

    #[test]
    fn a_server_s_tap_is_no_slot() {
        for (link, is_dialling, is_accepting) in [
            ("wrn0", true, false),
            ("wrnu.2", false, true),
            ("wrnt.2", false, true),
            ("wrnu", false, false),
            ("eth0", false, false),
        ] {
            assert_eq!(is_dialling_slot(link), is_dialling, "{link}");
            assert_eq!(is_accepting_slot(link), is_accepting, "{link}");
        }
    }
}
