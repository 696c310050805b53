//! Another program deletes or changes what a running node has on its host.

use super::{Extent, Scenario, TIMEOUT, log_line, reaches, run_ip, time_until};
use crate::{Lab, Options, ip, netns, node::Node, wait::wait_until};
use anyhow::{Context, Result};
use policies::link_cost::LinkCost;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use wire::control::{
    NeighbourEntry, ROUTES_PATH, RoutesDocument, TUNNELS_PATH, TunnelEntry, TunnelsDocument,
};

/// The IPv4 range of the network.
const IPV4_RANGE: &str = "10.42.0.0/16";
/// Longest wait until all nodes have IPv4, for which their babelds restart one after the other.
const IPV4_TIMEOUT: Duration = Duration::from_secs(90);

/// Longest wait until babeld has received enough hellos on a link for its least cost: a minute, and another one for each that is lost.
const COST_TIMEOUT: Duration = Duration::from_secs(180);
/// A document of the node may still show for three seconds what was before a change.
const MAX_DOCUMENT_AGE: Duration = Duration::from_secs(4);
/// How often a route is deleted that babeld adds again before the node does.
const MAX_DELETIONS: usize = 3;

/// Whether a host is as it was before.
type IsRestored<'a> = Box<dyn Fn() -> bool + 'a>;

/// A node that is meddled with, and one that it reaches.
struct Pair<'a> {
    node: &'a Node,
    peer: &'a Node,
}

pub(super) fn measure(extent: Extent) -> Result<Vec<Scenario>> {
    let lab = Lab::build_converged(Options::with_nodes(3))?;
    let (node, peer) = (lab.node(0)?, lab.node(1)?);
    let pair = Pair { node, peer };
    if extent == Extent::Full {
        lab.registry_command("set", &["ipv4", IPV4_RANGE])?;
        let has_ipv4 = || {
            let routes = pair.listing(&["-4", "route", "show", "table", "197"]);
            (routes.lines().count() >= 2).then_some(())
        };
        wait_until(IPV4_TIMEOUT, has_ipv4).context("no IPv4 routes")?;
    }
    lab.wait_for_settled_tunnels()?;
    let changed = tunnel_in_use(node)?;
    // This one comes first, since the node gives a tunnel up whose link stays down for seconds.
    let mut scenarios = pair.change_links(&changed.slot);
    // While its cost falls with each hello, babeld itself adds a deleted route again.
    wait_for_least_costs(node, &changed.peer)?;
    scenarios.extend(pair.delete_rules());
    scenarios.extend(pair.delete_routes());
    scenarios.extend(pair.delete_copies());
    scenarios.extend(pair.delete_everything());
    scenarios.extend(pair.flush_addresses()?);
    scenarios.extend(pair.change_settings()?);
    lab.stop_nodes();
    Ok(scenarios)
}

/// The first tunnel that is up at this moment, once the node has published one.
fn tunnel_in_use(node: &Node) -> Result<TunnelEntry> {
    let tunnel = || {
        let document: TunnelsDocument = node.control_document(TUNNELS_PATH).ok()?;
        let mut tunnels = document.tunnels.into_iter();
        tunnels.find(|tunnel| tunnel.phase == "up")
    };
    wait_until(TIMEOUT, tunnel).context("no tunnel is up")
}

/// Waits until all links of the node have the cost of a link on which each hello arrives, for as long as a document may be old.
fn wait_for_least_costs(node: &Node, peer: &str) -> Result<()> {
    let mut least_since = Instant::now();
    let mut last = None;
    let are_least = || {
        let costs = neighbours_with_least_costs(node, peer);
        let is_least = costs.as_ref().is_ok_and(|(_, is_least)| *is_least);
        last = Some(costs);
        if !is_least {
            least_since = Instant::now();
        }
        (least_since.elapsed() >= MAX_DOCUMENT_AGE).then_some(())
    };
    wait_until(COST_TIMEOUT, are_least)
        .with_context(|| format!("a link keeps a high cost, or {peer} is no neighbour: {last:?}"))
}

/// The neighbours on the links of the node's tunnels, and whether there is one on each, this peer is one, and all have the least cost. babeld
/// keeps the neighbour on the link of a tunnel that has closed for a minute or two.
fn neighbours_with_least_costs(node: &Node, peer: &str) -> Result<(Vec<NeighbourEntry>, bool)> {
    let tunnels: TunnelsDocument = node.control_document(TUNNELS_PATH)?;
    let routes: RoutesDocument = node.control_document(ROUTES_PATH)?;
    let slots: BTreeSet<_> = tunnels.tunnels.iter().map(|tunnel| &tunnel.slot).collect();
    let mut neighbours = routes.neighbours;
    neighbours.retain(|neighbour| slots.contains(&neighbour.slot));
    let least = LinkCost::default().hop;
    let is_least = neighbours.len() == slots.len()
        && neighbours.iter().any(|neighbour| neighbour.peer == peer)
        && neighbours.iter().all(|neighbour| neighbour.cost <= least);
    Ok((neighbours, is_least))
}

impl Pair<'_> {
    /// What `ip` lists inside the node's namespace; empty if it fails.
    fn listing(&self, arguments: &[&str]) -> String {
        ip::output(self.node.namespace(), arguments).unwrap_or_default()
    }

    /// Makes a change by `ip`, and measures the time until the host is as before and the node reaches its peer. A route is deleted again
    /// if it is there again and the node has not counted that: babeld may have added it first.
    fn check(&self, name: &str, kind: &str, lines: &str, is_restored: IsRestored<'_>) -> Scenario {
        let max_changes = if kind == "route" { MAX_DELETIONS } else { 1 };
        let (mut repaired, mut is_counted) = self.change(kind, lines, &is_restored);
        for _ in 1..max_changes {
            if repaired.is_some() && !is_counted {
                (repaired, is_counted) = self.change(kind, lines, &is_restored);
            }
        }
        let line = log_line(
            self.node,
            &[
                "another program removed or changed",
                &format!("kind=\"{kind}\""),
            ],
        );
        let report = line.filter(|_| is_counted);
        let passed = repaired.is_some() && report.is_some();
        Scenario::new(name, repaired, report, passed)
    }

    /// Makes a change by `ip`. Returns the time until the host was as before and the node reached its peer, and whether the node has
    /// counted a repair of this kind.
    fn change(
        &self,
        kind: &str,
        lines: &str,
        is_restored: &IsRestored<'_>,
    ) -> (Option<Duration>, bool) {
        let metric = format!("warren_host_repairs_total{{kind=\"{kind}\"}}");
        let before = self.node.metric(&metric).unwrap_or_default();
        drop(run_ip(self.node.namespace(), lines));
        let repaired = time_until(TIMEOUT, || is_restored() && reaches(self.node, self.peer));
        let is_counted = || {
            let count = self.node.metric(&metric).ok()?;
            (count > before).then_some(())
        };
        let is_counted = wait_until(Duration::from_secs(3), is_counted).is_some();
        (repaired, is_counted)
    }

    /// Checks that a listing is as before after a change.
    fn check_listing(&self, name: &str, kind: &str, line: &str, listed: &[&str]) -> Scenario {
        let before = sorted(&self.listing(listed));
        let is_restored = move || sorted(&self.listing(listed)) == before;
        self.check(name, kind, &format!("{line}\n"), Box::new(is_restored))
    }

    fn delete_rules(&self) -> Vec<Scenario> {
        let mut scenarios = Vec::new();
        for family in ["-6", "-4"] {
            let listed = [family, "rule"];
            let priorities: Vec<String> = self
                .listing(&listed)
                .lines()
                .filter_map(|line| Some(line.split_once(':')?.0.to_owned()))
                .filter(|priority| matches!(priority.parse(), Ok(31_999..=32_006)))
                .collect();
            for priority in priorities {
                let line = format!("{family} rule del pref {priority}");
                scenarios.push(self.check_listing(&line, "rule", &line, &listed));
            }
        }
        scenarios
    }

    /// Deletes each route of the daemon in the main table, and each IPv6 route of babeld. Its IPv4 routes are not restored.
    fn delete_routes(&self) -> Vec<Scenario> {
        let mut scenarios = Vec::new();
        for (family, table, protocol) in [
            ("-6", "main", "197"),
            ("-6", "197", "babel"),
            ("-4", "main", "197"),
        ] {
            let listed = [family, "route", "show", "table", table, "proto", protocol];
            for route in self.listing(&listed).lines() {
                let words: Vec<&str> = route.split_whitespace().collect();
                let length = if words.first() == Some(&"unreachable") {
                    2
                } else {
                    1
                };
                let destination = words.get(..length).unwrap_or_default().join(" ");
                let line =
                    format!("{family} route del {destination} table {table} proto {protocol}");
                scenarios.push(self.check_listing(&line, "route", &line, &listed));
            }
        }
        scenarios
    }

    /// Deletes the copies of babeld's routes, which only matter for a moment; they are not counted.
    fn delete_copies(&self) -> Vec<Scenario> {
        let listed = ["-6", "route", "show", "table", "198"];
        let before = sorted(&self.listing(&listed));
        drop(run_ip(self.node.namespace(), "-6 route flush table 198\n"));
        let repaired = time_until(TIMEOUT, || sorted(&self.listing(&listed)) == before);
        let passed = repaired.is_some();
        vec![Scenario::new(
            "-6 route flush table 198",
            repaired,
            None,
            passed,
        )]
    }

    /// Deletes all rules and routes at once, as systemd-networkd does when it restarts.
    fn delete_everything(&self) -> Vec<Scenario> {
        let rules = ["-6", "rule"];
        let before = sorted(&self.listing(&rules));
        let mut lines = String::new();
        for priority in [31_999, 32_000, 32_001] {
            lines.push_str(&format!("-6 rule del pref {priority}\n"));
        }
        for table in ["197", "198"] {
            lines.push_str(&format!("-6 route flush table {table}\n"));
        }
        lines.push_str("-6 route flush proto 197\n");
        let is_restored =
            move || sorted(&self.listing(&rules)) == before && reaches(self.peer, self.node);
        let name = "all rules and routes deleted, as by systemd-networkd";
        vec![self.check(name, "route", &lines, Box::new(is_restored))]
    }

    fn flush_addresses(&self) -> Result<Vec<Scenario>> {
        let lo = ["addr", "show", "lo", "scope", "global"];
        let line = "addr flush dev lo scope global";
        let slot = ["-6", "-o", "addr", "show", "scope", "link"];
        let on_lo = self.check_listing(line, "address", line, &lo);
        let used = tunnel_in_use(self.node)?.slot;
        let flush_slot = format!("-6 addr flush dev {used} scope link");
        let on_slot = self.check_listing(&flush_slot, "address", &flush_slot, &slot);
        Ok(vec![on_lo, on_slot])
    }

    fn change_settings(&self) -> Result<Vec<Scenario>> {
        let namespace = self.node.namespace();
        let slot = tunnel_in_use(self.node)?.slot;
        let mut scenarios = Vec::new();
        for (link, key, wrong, right) in [
            ("all", "forwarding", "0", "1"),
            (slot.as_str(), "accept_ra", "2", "0"),
            (slot.as_str(), "disable_ipv6", "1", "0"),
        ] {
            let path = format!("net/ipv6/conf/{link}/{key}");
            netns::write_sysctl(namespace, &path, wrong)?;
            // In the spelling of sysctl(8), the points in a link's name are slashes.
            let name = format!("net.ipv6.conf.{}.{key}", link.replace('.', "/"));
            let is_right = move || self.setting(&name) == right;
            let title = format!("{path} = {wrong}");
            scenarios.push(self.check(&title, "sysctl", "", Box::new(is_right)));
        }
        netns::write_sysctl(namespace, "net/ipv6/conf/all/disable_ipv6", "1")?;
        let is_reached = || reaches(self.peer, self.node);
        let title = "net/ipv6/conf/all/disable_ipv6 = 1 while the node runs";
        scenarios.push(self.check(title, "sysctl", "", Box::new(is_reached)));
        netns::write_sysctl(namespace, "net/ipv6/conf/all/disable_ipv6", "0")?;
        Ok(scenarios)
    }

    fn setting(&self, name: &str) -> String {
        let value = self.node.command("sysctl", &["-n", name]);
        value.unwrap_or_default().trim().to_owned()
    }

    fn change_links(&self, slot: &str) -> Vec<Scenario> {
        let listed = ["-o", "link", "show", "up"];
        let names = move || names(&self.listing(&listed));
        let before = names();
        let is_restored = move || names() == before;
        let line = format!("link set {slot} down");
        vec![self.check(&line, "link", &line, Box::new(is_restored))]
    }
}

/// The lines in order, without those that change by themselves.
fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(|line| line.trim().to_owned()).collect();
    lines.sort();
    lines
}

/// The names of the links in a listing with one link a line.
fn names(text: &str) -> Vec<String> {
    let name = |line: &str| line.split(':').nth(1).map(|name| name.trim().to_owned());
    let mut names: Vec<_> = text.lines().filter_map(name).collect();
    names.sort();
    names
}
