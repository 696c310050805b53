//! Restores the links of slots and servers that other programs renamed, deleted or set down.
//!
//! A link is found by its index. The kernel gives the index of a deleted link to another one if a program asks for it, so the alias or the
//! name must fit, too: the links of others are never changed.

use super::{
    Kernel, KernelError, MTU,
    placed::Placed,
    repair::{HostComparison, Repair, RepairKind, Step},
    request::Request,
    slots::{add_link_local, server_name, set_link, set_link_up},
    sweep::{alias, link_name},
};
use policies::names::{Prefix, Role, Slot};
use rtnetlink::{
    LinkUnspec,
    packet_route::link::{LinkAttribute, LinkFlags, LinkMessage},
};

impl Kernel {
    /// Restores names, states and MTUs of links, and creates deleted dialling slots again. Notes the slots that were deleted or set up.
    pub(super) async fn reconcile_links(
        &self,
        placed: &Placed,
        comparison: &mut HostComparison,
    ) -> Step {
        let (mut requests, mut repairs) = (Vec::new(), Vec::new());
        for wanted in self.wanted_links(placed) {
            let name = &wanted.name;
            let Some(link) = self.own_link(name, wanted.index).await? else {
                continue;
            };
            if wanted.must_be_set_up(&link) {
                comparison.restored_slots.extend(wanted.slot);
            }
            for (what, restoring) in wanted.differences(&link) {
                requests.extend(restoring);
                repairs.push(Repair {
                    kind: RepairKind::Link,
                    object: format!("{name} ({what})"),
                });
            }
        }
        self.execute_all(requests).await?;
        let deleted = &mut comparison.deleted_slots;
        repairs.extend(self.recreate_slots(placed, deleted).await?);
        Ok(repairs)
    }

    /// Returns the links of servers and slots.
    fn wanted_links(&self, placed: &Placed) -> Vec<Wanted> {
        let state = self.state();
        let servers = state.servers.iter().map(|(transport, index)| Wanted {
            name: server_name(*transport).to_owned(),
            index: *index,
            slot: None,
            is_up: true,
            address_of: None,
        });
        let slots = state.slots.iter().map(|(slot, index)| Wanted {
            name: slot.to_string(),
            index: *index,
            slot: Some(*slot),
            is_up: placed.up.contains(slot),
            address_of: placed.ipv6.map(|(_, me)| me),
        });
        servers.chain(slots).collect()
    }

    /// Returns the link of this index; `None` if it is gone, or belongs to another program: it has neither the alias of the node nor the
    /// name of the slot or server.
    async fn own_link(&self, name: &str, index: u32) -> Result<Option<LinkMessage>, KernelError> {
        let link = self.link(index).await?;
        let is_own =
            |link: &LinkMessage| alias(link) == Some(&*self.alias) || link_name(link) == Some(name);
        Ok(link.filter(is_own))
    }

    /// Creates dialling slots again whose links somebody deleted, and forgets accepting slots, which are created when a client connects.
    async fn recreate_slots(&self, placed: &Placed, deleted: &mut Vec<Slot>) -> Step {
        let mut repairs = Vec::new();
        let slots = self.state().slots.clone();
        for (slot, index) in slots {
            if self.own_link(&slot.to_string(), index).await?.is_some() {
                continue;
            }
            deleted.push(slot);
            let owner_uid = {
                let mut state = self.state();
                state.slots.remove(&slot);
                state.placed.up.remove(&slot);
                state.owner_uid
            };
            if let (Slot::Dialling(number), Some((_, me)), Some(owner)) =
                (slot, placed.ipv6, owner_uid)
                && slot.role() == Role::Dialled
            {
                self.make_dialling_slots(number..number.saturating_add(1), me, owner)
                    .await?;
            }
            repairs.push(Repair {
                kind: RepairKind::Link,
                object: format!("{slot} (was deleted)"),
            });
        }
        Ok(repairs)
    }
}

/// A link of the node, and how it should be.
struct Wanted {
    name: String,
    index: u32,
    /// The slot; `None` for a server.
    slot: Option<Slot>,
    /// Whether it is up, with the MTU of slots.
    is_up: bool,
    /// The node whose link-local address a slot has.
    address_of: Option<Prefix>,
}

impl Wanted {
    /// Returns the name that another program has given to the link.
    fn other_name<'link>(&self, link: &'link LinkMessage) -> Option<&'link str> {
        link_name(link).filter(|present| *present != self.name)
    }

    /// Returns whether the link is down, or will be when it gets its name back.
    fn must_be_set_up(&self, link: &LinkMessage) -> bool {
        let is_up = link.header.flags.contains(LinkFlags::Up);
        self.is_up && (!is_up || self.other_name(link).is_some())
    }

    /// Returns what differs at the link, each with the requests that restore it.
    fn differences(&self, link: &LinkMessage) -> Vec<(String, Vec<Request>)> {
        let Self { name, index, .. } = self;
        let is_up = link.header.flags.contains(LinkFlags::Up);
        let mut differences = Vec::new();
        if let Some(present) = self.other_name(link) {
            let mut requests = Vec::new();
            // Linux before 6.2 renames no link that is up.
            if is_up {
                let down = LinkUnspec::new_with_index(*index).down().build();
                requests.push(set_link(format!("set link {present} down"), down));
            }
            let renamed = LinkUnspec::new_with_index(*index).name(name.clone());
            let doing = format!("rename link {present} to {name}");
            requests.push(set_link(doing, renamed.build()));
            requests.extend(self.set_up());
            differences.push((format!("was renamed to {present}"), requests));
        } else if self.must_be_set_up(link) {
            differences.push(("was set down".to_owned(), self.set_up()));
        }
        if self.is_up && mtu_of(link).is_some_and(|mtu| mtu < MTU) {
            let message = LinkUnspec::new_with_index(*index).mtu(MTU).build();
            let request = set_link(format!("set the MTU of {name} to {MTU}"), message);
            differences.push(("had a smaller MTU".to_owned(), vec![request]));
        }
        differences
    }

    /// Returns the requests that set the link up. A link that was down has lost its address, and babeld ignores a link that is up and
    /// has none for half a minute, so the address comes first.
    fn set_up(&self) -> Vec<Request> {
        if !self.is_up {
            return Vec::new();
        }
        let address = self
            .address_of
            .map(|me| add_link_local(&self.name, self.index, me));
        let up = set_link_up(&self.name, self.index);
        address.into_iter().chain([up]).collect()
    }
}

fn mtu_of(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|part| match part {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}
