//! Goes on with the links that an earlier program of this process has created.

use super::{
    Kernel, KernelError,
    host::delete_route,
    ledger,
    numbers::{BLOCK_METRIC, FAMILIES, PROTOCOL, TABLE},
    slots::server_name,
    sweep::{OwnLink, link_name},
};
use policies::names::Transport;
use rtnetlink::packet_route::{
    link::LinkFlags,
    route::{RouteAttribute, RouteMessage},
};
use std::path::Path;

impl Kernel {
    /// Enters the slots and TAPs of this node that exist, which belong to the user `owner_uid`, and the changed settings that
    /// `ledger` lists. Makes ranges reachable again that were blocked: whoever blocks a range has forgotten it. Everything
    /// else stays as it is.
    ///
    /// # Errors
    ///
    /// The kernel rejects a request, or a setting cannot be read or changed.
    pub async fn take_over(&self, owner_uid: u32, ledger: &Path) -> Result<(), KernelError> {
        let mut links = Vec::new();
        self.links(|link| {
            if let (Some(kind), Some(name)) = (self.kind_of_own_link(&link), link_name(&link)) {
                let is_up = link.header.flags.contains(LinkFlags::Up);
                links.push((kind, name.to_owned(), link.header.index, is_up));
            }
        })
        .await?;
        self.state().owner_uid = Some(owner_uid);
        for (kind, name, index, is_up) in links {
            let mut state = self.state();
            let servers = [Transport::Udp, Transport::Tcp];
            let server = servers.into_iter().find(|is| server_name(*is) == name);
            match (kind, server, name.parse()) {
                (OwnLink::Tap, Some(transport), _) => drop(state.servers.insert(transport, index)),
                (_, None, Ok(slot)) => {
                    state.slots.insert(slot, index);
                    if is_up {
                        state.placed.up.insert(slot);
                    }
                }
                (OwnLink::Tap | OwnLink::AcceptingSlot, _, _) => {}
            }
        }
        match ledger::load(ledger) {
            Some(changes) => {
                let placed = &mut self.state().placed;
                (placed.ledger, placed.changes) = (Some(ledger.into()), changes);
            }
            None => self.apply_host_settings(ledger)?,
        }
        let mut blocked = Vec::new();
        for family in FAMILIES {
            let routes = self.routes(family, TABLE).await?;
            blocked.extend(routes.into_iter().filter(is_block));
        }
        self.execute_all(blocked.into_iter().map(delete_route))
            .await
    }

    /// Returns whether this handle has the TAP of the server of this transport.
    pub fn has_server_tap(&self, transport: Transport) -> bool {
        self.state().servers.contains_key(&transport)
    }
}

/// Returns whether this is a route by which [`Kernel::block`] makes a range unreachable.
fn is_block(route: &RouteMessage) -> bool {
    let has_metric = |part: &RouteAttribute| matches!(part, RouteAttribute::Priority(metric) if *metric == BLOCK_METRIC);
    route.header.protocol == PROTOCOL && route.attributes.iter().any(has_metric)
}
