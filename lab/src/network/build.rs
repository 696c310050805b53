//! Creates the namespaces and links of a lab.

use super::{
    Lab,
    registry::REGISTRY,
    underlay::{BRIDGE, UNDERLAY_PREFIX_LENGTH, bridge_port, configure_uplink},
};
use crate::{
    ip,
    nat_router::{NatRouter, has_nftables, load_nft_rules},
    netns,
    node::Node,
};
use anyhow::Result;

/// Role of the namespace with the bridge that stands for the internet.
const INTERNET: &str = "net";
/// The internet carries no multicasts of one host to all others, as a LAN does.
const NO_LAN_RULES: &str = "
table bridge internet {
    chain forward {
        type filter hook forward priority 0
        udp dport 328 drop
    }
}
";
/// Role of the registry's namespace.
const REGISTRY_ROLE: &str = "reg";

fn node_role(index: usize) -> String {
    format!("n{index}")
}

fn router_role(index: usize) -> String {
    format!("r{index}")
}

fn switch_role(index: usize) -> String {
    format!("s{index}")
}

impl Lab {
    /// The namespace of the lab's internet.
    pub fn internet_namespace(&self) -> String {
        self.run.namespace(INTERNET)
    }

    /// The registry's namespace.
    pub fn registry_namespace(&self) -> String {
        self.run.namespace(REGISTRY_ROLE)
    }

    pub(super) fn is_behind_nat(&self, index: usize) -> bool {
        self.options.nodes_behind_nat.contains(&index) || self.is_on_lan(index)
    }

    fn is_on_lan(&self, index: usize) -> bool {
        self.options.nodes_on_lan.contains(&index)
    }

    /// The number of the router in front of a node that is behind NAT. The nodes of one LAN share one.
    pub(super) fn router_of(&self, index: usize) -> usize {
        let first = self.options.nodes_on_lan.first().copied();
        first.filter(|_| self.is_on_lan(index)).unwrap_or(index)
    }

    pub(super) fn create_namespaces_and_links(&mut self) -> Result<()> {
        self.create_namespaces()?;
        self.create_internet()?;
        configure_uplink(&self.options, &self.registry_namespace(), REGISTRY)?;
        for index in 0..self.options.nodes {
            self.create_node(index)?;
        }
        Ok(())
    }

    fn create_namespaces(&self) -> Result<()> {
        let fixed_roles = [INTERNET.to_owned(), REGISTRY_ROLE.to_owned()];
        let node_roles = (0..self.options.nodes).map(node_role);
        let router_roles = (0..self.options.nodes)
            .filter(|index| self.is_behind_nat(*index) && self.router_of(*index) == *index)
            .flat_map(|index| [router_role(index), switch_role(index)]);
        let lines: String = fixed_roles
            .into_iter()
            .chain(node_roles)
            .chain(router_roles)
            .map(|role| format!("netns add {}\n", self.run.namespace(&role)))
            .collect();
        ip::batch(None, &lines)
    }

    /// Creates the bridge, and a cable from it to the registry and to each node or its router.
    fn create_internet(&self) -> Result<()> {
        let cable = |port: &str, role: &str| {
            format!(
                "link add {port} type veth peer name eth0 netns {}\nlink set {port} master internet up\n",
                self.run.namespace(role)
            )
        };
        let bridge_address = self.options.underlay_address(BRIDGE);
        let mut lines = format!(
            "link set lo up\nlink add internet type bridge\nlink set internet up\naddr add {bridge_address}/{UNDERLAY_PREFIX_LENGTH} dev internet\n",
        );
        lines.push_str(&cable("reg", REGISTRY_ROLE));
        let has_cable = |index: &usize| self.router_of(*index) == *index;
        for index in (0..self.options.nodes).filter(has_cable) {
            let role = if self.is_behind_nat(index) {
                router_role(index)
            } else {
                node_role(index)
            };
            lines.push_str(&cable(&bridge_port(index), &role));
        }
        let internet = self.internet_namespace();
        ip::batch(Some(&internet), &lines)?;
        // In a kernel without nftables, the nodes find each other there as on a LAN.
        if !self.options.has_private_addresses && has_nftables() {
            load_nft_rules(&internet, NO_LAN_RULES)?;
        }
        // Without forwarding the bridge would announce that it is no router, and its neighbours would drop the routes
        // that it advertises.
        netns::write_sysctl(&internet, "net/ipv6/conf/all/forwarding", "1")
    }

    /// The namespaces of the nodes behind the router of that number.
    fn site_of(&self, router: usize) -> Vec<String> {
        let nodes = (0..self.options.nodes).filter(|index| self.router_of(*index) == router);
        nodes
            .map(|index| self.run.namespace(&node_role(index)))
            .collect()
    }

    fn create_node(&mut self, index: usize) -> Result<()> {
        let namespace = self.run.namespace(&node_role(index));
        if self.router_of(index) != index {
            // The router of its LAN is there already, with all cables.
        } else if self.is_behind_nat(index) {
            let [router, switch] =
                [router_role(index), switch_role(index)].map(|role| self.run.namespace(&role));
            let folder = self.run.make_folder(&format!("router{index}"))?;
            configure_uplink(&self.options, &router, &format!("2.{}", index + 1))?;
            self.nat_routers.push(NatRouter::build(
                router,
                &switch,
                &self.site_of(index),
                folder,
            )?);
        } else {
            configure_uplink(&self.options, &namespace, &format!("1.{}", index + 1))?;
        }
        let root = self.run.make_folder(&node_role(index))?;
        let program = self.program.clone();
        self.nodes.push(Node::new(index, namespace, root, program));
        Ok(())
    }
}
