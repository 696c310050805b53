//! Splits the lab's internet in two, and joins the parts again.

use super::Lab;
use crate::nat_router::load_nft_rules;
use anyhow::Result;
use std::ops::Range;

/// The nftables table that drops what comes from the other part, or goes there.
const TABLE: &str = "inet split";

impl Lab {
    /// Lets these nodes reach neither the other nodes nor the registry on the internet. Who looks from the internet's namespace
    /// still sees all.
    ///
    /// # Errors
    /// Fails if the kernel rejects the rules.
    pub fn split(&self, part: Range<usize>) -> Result<()> {
        let others = (0..self.nodes.len()).filter(|index| !part.contains(index));
        let mut addresses: Vec<_> = others.map(|index| self.uplink_address(index)).collect();
        addresses.push(self.registry_address());
        part.into_iter()
            .try_for_each(|index| self.drop_packets(index, &addresses))
    }

    /// Lets one node reach only one other node and the registry, until [`Lab::join_parts`].
    ///
    /// # Errors
    /// Fails if the kernel rejects the rules.
    pub fn leave_one_neighbour(&self, index: usize, neighbour: usize) -> Result<()> {
        let others = (0..self.nodes.len()).filter(|other| ![index, neighbour].contains(other));
        let addresses: Vec<_> = others.map(|other| self.uplink_address(other)).collect();
        self.drop_packets(index, &addresses)
    }

    /// Drops what a node gets from these addresses, and what it sends to them.
    fn drop_packets(&self, index: usize, addresses: &[String]) -> Result<()> {
        let set = addresses.join(", ");
        let rules = format!(
            "table {TABLE} {{\n\
             chain in {{ type filter hook input priority 0; ip saddr {{ {set} }} drop; }}\n\
             chain out {{ type filter hook output priority 0; ip daddr {{ {set} }} drop; }}\n\
             }}\n"
        );
        load_nft_rules(self.node(index)?.namespace(), &rules)
    }

    /// Undoes [`Lab::split`] of the same nodes, or [`Lab::leave_one_neighbour`].
    ///
    /// # Errors
    /// Fails if they are not split from the others.
    pub fn join_parts(&self, part: Range<usize>) -> Result<()> {
        for index in part {
            let rule = format!("delete table {TABLE}\n");
            load_nft_rules(self.node(index)?.namespace(), &rule)?;
        }
        Ok(())
    }
}
