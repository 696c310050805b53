//! Creates the namespaces and links of a lab.

use super::{
    Lab,
    registry::REGISTRY,
    underlay::{BRIDGE, UNDERLAY_PREFIX_LENGTH, bridge_port, configure_uplink},
};
use crate::{ip, nat_router::NatRouter, netns, node::Node};
use anyhow::Result;

/// Role of the namespace with the bridge that stands for the internet.
const INTERNET: &str = "net";
/// Role of the registry's namespace.
const REGISTRY_ROLE: &str = "reg";

fn node_role(index: usize) -> String {
    format!("n{index}")
}

fn router_role(index: usize) -> String {
    format!("r{index}")
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
        self.options.nodes_behind_nat.contains(&index)
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
        let router_roles = self
            .options
            .nodes_behind_nat
            .iter()
            .map(|index| router_role(*index));
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
        for index in 0..self.options.nodes {
            let role = if self.is_behind_nat(index) {
                router_role(index)
            } else {
                node_role(index)
            };
            lines.push_str(&cable(&bridge_port(index), &role));
        }
        let internet = self.internet_namespace();
        ip::batch(Some(&internet), &lines)?;
        // Without forwarding the bridge would announce that it is no router, and its neighbours would drop the routes
        // that it advertises.
        netns::write_sysctl(&internet, "net/ipv6/conf/all/forwarding", "1")
    }

    fn create_node(&mut self, index: usize) -> Result<()> {
        let namespace = self.run.namespace(&node_role(index));
        if self.is_behind_nat(index) {
            let router = self.run.namespace(&router_role(index));
            let folder = self.run.make_folder(&format!("router{index}"))?;
            configure_uplink(&self.options, &router, &format!("2.{}", index + 1))?;
            self.nat_routers
                .push(NatRouter::build(router, &namespace, folder)?);
        } else {
            configure_uplink(&self.options, &namespace, &format!("1.{}", index + 1))?;
        }
        let root = self.run.make_folder(&node_role(index))?;
        let program = self.program.clone();
        self.nodes.push(Node::new(index, namespace, root, program));
        Ok(())
    }
}
