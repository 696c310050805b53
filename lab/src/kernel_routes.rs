//! Reads which way the nodes' kernels would send, hop by hop, and counts.

use crate::{ip, network::Lab};
use anyhow::{Context, Result};
use ipnet::Ipv6Net;
use serde::Deserialize;
use std::{collections::BTreeMap, net::Ipv6Addr, thread, time::Instant};
use wire::overlay;

/// The table that babeld writes to.
const TABLE: &str = "197";
/// A longer way is a loop.
const LONGEST: usize = 64;

/// One step of a way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The next node, by number.
    pub to: usize,
    /// The link it leaves by.
    pub link: String,
}

/// All routes between the nodes at one moment.
#[derive(Clone, Debug)]
pub struct Routes {
    /// When they were read.
    pub at: Instant,
    /// By node; in it by destination.
    hops: Vec<BTreeMap<usize, Hop>>,
}

/// As `ip -json route` tells it.
#[derive(Deserialize)]
struct Line {
    dst: String,
    gateway: Option<Ipv6Addr>,
    dev: Option<String>,
}

impl Routes {
    /// Reads the tables of all nodes of the lab; that of a node that has none is empty.
    ///
    /// # Errors
    /// Where a node has not joined.
    pub fn read(lab: &Lab) -> Result<Self> {
        let at = Instant::now();
        let mut addresses = Vec::new();
        let mut neighbours = BTreeMap::new();
        for node in lab.nodes() {
            let identity = node.identity()?;
            addresses.push(identity.address);
            let prefix = identity
                .prefix
                .parse()
                .with_context(|| format!("prefix {}", identity.prefix))?;
            neighbours.insert(overlay::link_local(prefix), node.index());
        }
        let tables: Vec<String> = thread::scope(|scope| {
            let ask =
                |namespace| ip::read(namespace, &["-6", "-json", "route", "show", "table", TABLE]);
            let readers: Vec<_> = lab
                .nodes()
                .iter()
                .map(|node| scope.spawn(move || ask(node.namespace())))
                .collect();
            readers
                .into_iter()
                .map(|reader| reader.join().ok().and_then(Result::ok).unwrap_or_default())
                .collect()
        });
        let hops = tables
            .iter()
            .map(|table| hops_of(table, &addresses, &neighbours))
            .collect();
        Ok(Self { at, hops })
    }

    /// The next step from `from` towards `to`.
    pub fn hop(&self, from: usize, to: usize) -> Option<&Hop> {
        self.hops.get(from)?.get(&to)
    }

    /// The nodes on the way from `from` to `to`, the latter included; `None` where the way ends or loops.
    pub fn way(&self, from: usize, to: usize) -> Option<Vec<usize>> {
        let mut way = Vec::new();
        let mut here = from;
        while here != to {
            here = self.hop(here, to)?.to;
            way.push(here);
            if way.len() > LONGEST {
                return None;
            }
        }
        Some(way)
    }

    /// All ordered pairs.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let all = 0..self.hops.len();
        all.clone()
            .flat_map(move |from| all.clone().map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
    }

    /// Pairs whose way leads through `transit` without ending there.
    pub fn pairs_through(&self, transit: usize) -> Vec<(usize, usize)> {
        let through = |(from, to): &(usize, usize)| {
            let way = self.way(*from, *to).unwrap_or_default();
            *to != transit && way.contains(&transit)
        };
        self.pairs()
            .filter(|pair| pair.0 != transit)
            .filter(through)
            .collect()
    }

    /// Destinations that `from` reaches over a link to `to`; of the links, those that `wanted` lets in.
    pub fn served(&self, from: usize, to: usize, wanted: impl Fn(&str) -> bool) -> usize {
        let table = self.hops.get(from).into_iter().flat_map(BTreeMap::values);
        table
            .filter(|hop| hop.to == to && wanted(&hop.link))
            .count()
    }

    /// Mean number of hops over all pairs; `None` where a pair has no way.
    pub fn mean_hops(&self) -> Option<f64> {
        let mut hops = 0u32;
        let mut pairs = 0u32;
        for (from, to) in self.pairs() {
            hops += u32::try_from(self.way(from, to)?.len()).ok()?;
            pairs += 1;
        }
        (pairs > 0).then(|| f64::from(hops) / f64::from(pairs))
    }
}

fn hops_of(
    table: &str,
    addresses: &[Ipv6Addr],
    neighbours: &BTreeMap<Ipv6Addr, usize>,
) -> BTreeMap<usize, Hop> {
    let lines: Vec<Line> = serde_json::from_str(table).unwrap_or_default();
    let mut hops = BTreeMap::new();
    for line in lines {
        let range = line
            .dst
            .parse()
            .ok()
            .or_else(|| line.dst.parse::<Ipv6Addr>().ok().map(Ipv6Net::from));
        let to = line
            .gateway
            .and_then(|gateway| neighbours.get(&gateway).copied());
        let (Some(range), Some(to), Some(link)) = (range, to, line.dev) else {
            continue;
        };
        let ends = addresses
            .iter()
            .enumerate()
            .filter(|(_, address)| range.contains(*address));
        for (end, _) in ends {
            hops.insert(
                end,
                Hop {
                    to,
                    link: link.clone(),
                },
            );
        }
    }
    hops
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of three nodes; 1 is in the middle.
    fn line() -> Routes {
        let addresses: Vec<Ipv6Addr> = (0..3)
            .map(|n| format!("fd00:0:0:{n}::1").parse().unwrap())
            .collect();
        let neighbours: BTreeMap<Ipv6Addr, usize> = (0..3)
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
            .map(|table| hops_of(table, &addresses, &neighbours))
            .collect();
        Routes {
            at: Instant::now(),
            hops,
        }
    }

    #[test]
    fn the_ends_of_a_line_meet_through_its_middle() {
        let routes = line();
        assert_eq!(routes.way(0, 2), Some(vec![1, 2]));
        assert_eq!(routes.way(0, 1), Some(vec![1]));
        assert_eq!(routes.pairs_through(1), [(0, 2), (2, 0)]);
        assert_eq!(routes.pairs_through(0), []);
        assert_eq!(routes.mean_hops(), Some(8.0 / 6.0));
        assert_eq!(routes.served(0, 1, |link| link == "wrn0"), 2);
        assert_eq!(routes.served(0, 1, |link| link == "wrn1"), 0);
    }

    #[test]
    fn a_way_that_ends_or_loops_is_none() {
        let mut routes = line();
        routes.hops[1].insert(
            2,
            Hop {
                to: 0,
                link: "wrnu.2".into(),
            },
        );
        assert_eq!(routes.way(0, 2), None);
        routes.hops[1].clear();
        assert_eq!(routes.way(0, 2), None);
        assert_eq!(routes.mean_hops(), None);
    }
}
