//! Removes all that a node left in this network namespace, and nothing else.

use super::{Kernel, KernelError, State, request::Request, slots::server_name};
use nix::errno::Errno;
use policies::names::{Slot, Transport};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use std::path::Path;

/// The counts of what a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Links with a name and the alias of ours.
    pub links: usize,
    /// Routes of ours and babeld's, and the node's address.
    pub routes: usize,
    /// Settings of the host that were put back.
    pub settings: usize,
}

impl Kernel {
    /// Removes all residue of a predecessor with the same root, and everything that this handle
    /// created: babeld's routes, the rules, our routes and the node's address, our links, and the
    /// changed settings.
    ///
    /// It is for the start and for the orderly stop. The children must be dead and reaped, since
    /// an OpenVPN whose TAP vanishes spins. Every part is tried; the first failure is returned.
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

    /// Deletes every link that has a name and the alias of ours; how many.
    async fn remove_links(&self) -> Result<usize, KernelError> {
        let mut taps = Vec::new();
        let mut accepting = Vec::new();
        self.links(|link| match self.ours(&link) {
            Some(Ours::Tap) => taps.push(link.header.index),
            Some(Ours::Accepting) => accepting.push(link.header.index),
            None => {}
        })
        .await?;
        let found = taps.len() + accepting.len();
        // Accepting slots go with their TAP; asked for one by one, they would take longer.
        for doomed in [taps, accepting] {
            let delete = |index| {
                let mut message = LinkMessage::default();
                message.header.index = index;
                Request::change("delete a link", RouteNetlinkMessage::DelLink(message))
                    .forgive(&[Errno::ENODEV])
            };
            self.ask_all(doomed.into_iter().map(delete)).await?;
        }
        let State { slots, servers, .. } = &mut *self.state();
        slots.clear();
        servers.clear();
        Ok(found)
    }

    fn ours(&self, link: &LinkMessage) -> Option<Ours> {
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
            return Some(Ours::Tap);
        }
        match name.parse().ok()? {
            Slot::Dialling(_) => Some(Ours::Tap),
            Slot::Accepting(..) => Some(Ours::Accepting),
        }
    }
}

/// Kinds of links that are ours.
enum Ours {
    Tap,
    Accepting,
}
