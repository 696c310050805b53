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
        let set = addresses.join(", ");
        let rules = format!(
            "table {TABLE} {{\n\
             chain in {{ type filter hook input priority 0; ip saddr {{ {set} }} drop; }}\n\
             chain out {{ type filter hook output priority 0; ip daddr {{ {set} }} drop; }}\n\
             }}\n"
        );
        for index in part {
            load_nft_rules(self.node(index)?.namespace(), &rules)?;
        }
        Ok(())
    }

    /// Undoes [`Lab::split`] of the same nodes.
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
