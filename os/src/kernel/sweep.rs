//! Removes everything that a node left in this network namespace, and nothing else.

use super::{Kernel, KernelError, State, request::Request, slots::server_name};
use nix::errno::Errno;
use policies::names::{Slot, Transport};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use std::path::Path;

/// The numbers of things that a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Slots and TAPs of servers.
    pub links: usize,
    /// Routes of the daemon and of babeld, and addresses of the node.
    pub routes: usize,
    /// Settings of the host that were restored.
    pub settings: usize,
}

impl Kernel {
    /// Removes everything that an earlier daemon with the same root left, or that this handle created:
    /// babeld's routes, the node's rules, routes and address, and its links. Restores the changed settings.
    ///
    /// It is called when the daemon starts and when it stops. All children must have exited before, since an
    /// OpenVPN process whose TAP disappears logs in a busy loop. A failure does not prevent the other steps;
    /// the first failure is returned.
    ///
    /// # Errors
    ///
    /// The kernel rejects a change.
    pub async fn sweep(&self, ledger: &Path) -> Result<Swept, KernelError> {
        let babel = self.flush_babel_routes().await;
        let host = self.leave_host().await;
        let links = self.remove_links().await;
        let settings = self.restore_sysctls(ledger);
        Ok(Swept {
            routes: babel? + host?,
            links: links?,
            settings: settings?,
        })
    }

    /// Deletes all links that carry a name and the alias of this node; returns how many there were.
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

    /// Returns what kind of link this is, or `None` if it does not belong to this node.
    fn kind_of_own_link(&self, link: &LinkMessage) -> Option<OwnLink> {
        let has_alias = |part: &LinkAttribute| matches!(part, LinkAttribute::IfAlias(alias) if *alias == *self.alias);
        if !link.attributes.iter().any(has_alias) {
            return None;
        }
        let name = link.attributes.iter().find_map(|part| match part {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })?;
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
}

/// Kinds of links that belong to a node.
enum OwnLink {
    /// A dialling slot, or the TAP of a server.
    Tap,
    AcceptingSlot,
}
