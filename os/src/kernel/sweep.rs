//! Removes everything that a node left in this network namespace, and nothing else.

use super::{
    ALIAS_PREFIX, Kernel, KernelError, State, exit_routing,
    numbers::FAMILIES,
    placed::Placed,
    request::Request,
    rules::{delete_rule, is_same_rule, table_rules},
    slots::server_name,
};
use nix::errno::Errno;
use policies::names::{Slot, Transport};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use std::path::{Path, PathBuf};

/// The numbers of things that a sweep removed or restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Slots and TAPs of servers.
    pub links: usize,
    /// Routes of the daemon and of babeld. Those that the kernel adds to each link disappear with the link, and are
    /// not counted.
    pub routes: usize,
    /// Addresses of the node on `lo`.
    pub addresses: usize,
    /// The number of removed routing rules.
    pub rules: usize,
    /// The nftables table of the node: 1 if there was one.
    pub tables: usize,
    /// Settings of the host that were restored.
    pub settings: usize,
}

impl Kernel {
    /// Removes everything that an earlier daemon with the same root left, or that this handle created:
    /// babeld's routes, the node's rules, routes and address, its nftables table, and its links. Restores the changed settings.
    ///
    /// It is called when the daemon starts and when it stops, and by `warren cleanup`. All children must have exited
    /// before, since an OpenVPN process whose TAP disappears logs in a busy loop. A failure does not prevent the other
    /// steps; the first failure is returned.
    ///
    /// # Errors
    ///
    /// [`KernelError::OtherNode`] if links of a node with another root exist. Routes and rules do not tell whose
    /// they are, so nothing is removed then. Otherwise: the kernel rejects a change.
    pub async fn sweep(&self, ledger: &Path) -> Result<Swept, KernelError> {
        if let Some(root) = self.other_node().await? {
            return Err(KernelError::OtherNode { root });
        }
        // From now on nothing of what is removed here is restored.
        self.state().placed = Placed::default();
        let _changing = self.host_changes.lock().await;
        let babel = self.flush_babel_routes().await;
        let host = self.leave_host().await;
        let rules = self.delete_rules().await;
        let links = self.remove_links().await;
        let has_table = self.remove_packet_filter();
        let settings = self.restore_sysctls(ledger);
        let (routes, addresses) = host?;
        Ok(Swept {
            routes: babel? + routes,
            addresses,
            rules: rules?,
            links: links?,
            tables: usize::from(has_table?),
            settings: settings?,
        })
    }

    /// Returns the root of another node that has links in this network namespace; `None` if there is none.
    async fn other_node(&self) -> Result<Option<PathBuf>, KernelError> {
        let mut other = None;
        self.links(|link| {
            let root = alias(&link).and_then(|alias| alias.strip_prefix(ALIAS_PREFIX));
            if kind_of_link(&link).is_some()
                && alias(&link) != Some(&*self.alias)
                && let Some(root) = root
            {
                other = Some(PathBuf::from(root));
            }
        })
        .await?;
        Ok(other)
    }

    /// Deletes all rules that a node adds, of whatever network they are; returns how many there were.
    async fn delete_rules(&self) -> Result<usize, KernelError> {
        let mut found = Vec::new();
        for family in FAMILIES {
            let by_table = table_rules(family).into_iter();
            let known: Vec<_> = by_table.chain(exit_routing::rule_messages()).collect();
            let rules = self.rules(family).await?;
            found.extend(rules.iter().filter_map(|rule| {
                let mut known = known.iter();
                known.find(|known| is_same_rule(known, rule)).cloned()
            }));
        }
        let count = found.len();
        self.execute_all(found.into_iter().map(delete_rule)).await?;
        Ok(count)
    }

    /// Deletes all links that carry the alias of this node; returns how many there were.
    async fn remove_links(&self) -> Result<usize, KernelError> {
        let mut taps = Vec::new();
        let mut accepting = Vec::new();
        self.links(|link| match self.kind_of_own_link(&link) {
            Some(OwnLink::Tap) => taps.push(link.header.index),
            Some(OwnLink::AcceptingSlot) => accepting.push(link.header.index),
            None => {}
        })
        .await?;
        let count = taps.len() + accepting.len();
        self.state().forward_probe = None;
        // Deleting a TAP deletes its accepting slots, which is faster than deleting them one by one.
        for indexes in [taps, accepting] {
            let delete = |index| {
                let mut message = LinkMessage::default();
                message.header.index = index;
                Request::change("delete a link", RouteNetlinkMessage::DelLink(message))
                    .forgive(&[Errno::ENODEV])
            };
            self.execute_all(indexes.into_iter().map(delete)).await?;
        }
        let State { slots, servers, .. } = &mut *self.state();
        slots.clear();
        servers.clear();
        Ok(count)
    }

    /// Returns what kind of link this is, or `None` if it does not belong to this node. The alias is that of the node even if another
    /// program has renamed the link.
    pub(super) fn kind_of_own_link(&self, link: &LinkMessage) -> Option<OwnLink> {
        let is_own = alias(link) == Some(&*self.alias);
        is_own.then(|| kind_of_link(link).unwrap_or(OwnLink::Tap))
    }
}

/// Returns the alias of a link.
pub(super) fn alias(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|part| match part {
        LinkAttribute::IfAlias(alias) => Some(alias.as_str()),
        _ => None,
    })
}

/// Returns the name of a link.
pub(super) fn link_name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|part| match part {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// Returns what kind of link of a node has this link's name; `None` if no link of a node has it.
fn kind_of_link(link: &LinkMessage) -> Option<OwnLink> {
    let name = link_name(link)?;
    if [Transport::Udp, Transport::Tcp]
        .map(server_name)
        .contains(&name)
    {
        return Some(OwnLink::Tap);
    }
    match name.parse().ok()? {
        Slot::Dialling(_) => Some(OwnLink::Tap),
        Slot::Accepting(..) => Some(OwnLink::AcceptingSlot),
    }
}

/// Kinds of links that belong to a node.
pub(super) enum OwnLink {
    /// A dialling slot, the TAP of a server, or a link with another name.
    Tap,
    AcceptingSlot,
}
