//! What a lab is built with, and how that differs from the shipped defaults.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

/// The number of nodes from which on each node dials one tunnel more.
const MANY_NODES: usize = 12;

/// What a lab is built with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The number of nodes.
    pub nodes: usize,
    /// Tunnels that each node dials; `None` for the network's default.
    pub tunnels_to_dial: Option<u16>,
    /// Interval between two plans of the policy; `None` for the network's default.
    pub refresh: Option<Duration>,
    /// The age below which the policy closes no tunnel; `None` for the network's default.
    pub min_age: Option<Duration>,
    /// Lifetime of certificates; `None` for the registry's default.
    pub certificate_life: Option<Duration>,
    /// How long the registry keeps announcements of endpoints; `None` for the registry's default.
    pub announcement_ttl: Option<Duration>,
    /// The numbers of the nodes that live on a LAN of their own, behind a NAT router with UPnP.
    pub nodes_behind_nat: BTreeSet<usize>,
    /// The numbers of the nodes that share one LAN, behind one NAT router with UPnP.
    pub nodes_on_lan: BTreeSet<usize>,
    /// The numbers of the nodes whose configuration has `metered: true`.
    pub metered_nodes: BTreeSet<usize>,
    /// Whether all addresses of registry and nodes are private, as in one LAN: 192.168.0.0/16 instead of 45.67.0.0/16.
    pub has_private_addresses: bool,
    /// The registry's name in DNS, by which nodes reach it; `None` for its address.
    pub registry_name: Option<String>,
    /// Whether the registry's CA is below a root CA, whose key is in [`crate::Lab::offline_root_folder`].
    pub has_offline_root: bool,
    /// The `warren` that the nodes run; `None` for that of [`crate::process::warren_program`].
    pub program: Option<PathBuf>,
    /// The age of the registry's CA, which lasts ten years; `None` for a new one.
    pub ca_age: Option<Duration>,
    /// Whether the run's folder with its logs is kept; `WARREN_LAB_KEEP=1` does the same for all labs.
    pub keep_files: bool,
}

impl Options {
    /// A lab of that many nodes, which dial so few tunnels that the network is no full mesh.
    pub fn with_nodes(nodes: usize) -> Self {
        Self {
            nodes,
            tunnels_to_dial: Some(tunnels_to_dial(nodes)),
            ..Self::default()
        }
    }

    /// A lab like that of [`Options::with_nodes`], whose last node is metered if `has_metered_node` is set.
    pub fn with_metered_node(nodes: usize, has_metered_node: bool) -> Self {
        Self {
            metered_nodes: nodes
                .checked_sub(1)
                .filter(|_| has_metered_node)
                .into_iter()
                .collect(),
            ..Self::with_nodes(nodes)
        }
    }

    /// Returns the address on the network that connects all, whose last two bytes are these.
    pub(super) fn underlay_address(&self, last_bytes: &str) -> String {
        let site = if self.has_private_addresses {
            "192.168"
        } else {
            "45.67"
        };
        format!("{site}.{last_bytes}")
    }

    /// The settings that differ from the shipped defaults, for people.
    pub fn differences_from_defaults(&self) -> String {
        let span = |name: &str, span: Option<Duration>| {
            span.map(|span| format!("{name} {} s", span.as_secs_f64()))
        };
        let dial = self
            .tunnels_to_dial
            .map(|count| format!("tunnels-to-dial {count}"));
        let differences: Vec<String> = [
            dial,
            span("refresh", self.refresh),
            span("min-age", self.min_age),
            span("certificate-life", self.certificate_life),
            span("announcement-ttl", self.announcement_ttl),
        ]
        .into_iter()
        .flatten()
        .collect();
        if differences.is_empty() {
            return "none".to_owned();
        }
        differences.join(", ")
    }
}

/// Tunnels that each node of a lab dials, so that the network is no full mesh: 2, and 3 from twelve nodes on.
pub fn tunnels_to_dial(nodes: usize) -> u16 {
    if nodes < MANY_NODES { 2 } else { 3 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_that_differ_are_listed() {
        assert_eq!(Options::default().differences_from_defaults(), "none");
        let options = Options {
            refresh: Some(Duration::from_millis(1_500)),
            ..Options::with_nodes(12)
        };
        assert_eq!(
            options.differences_from_defaults(),
            "tunnels-to-dial 3, refresh 1.5 s"
        );
    }
}
