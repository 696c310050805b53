//! Kernel links, addresses, routes and settings, by netlink, `ioctl`, `bpf` and `/proc/sys`.
//!
//! This module knows slots only as names of links, and nothing of tunnels, peers or processes. Everything it
//! creates is marked by an alias, a route protocol or a rule priority. By these marks [`Kernel::sweep`]
//! finds what an earlier daemon left, and removes nothing else.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the attributes of netlink messages are not exhaustive"
)]

mod alternate_routes;
mod bpf;
mod counters;
mod errors;
mod exit_routing;
mod fallback_routes;
mod forward_probe;
mod host;
mod host_watch;
mod ipv4_overlap;
mod ledger;
mod main_table;
mod nftables;
mod numbers;
mod packet_filter;
mod placed;
mod reconcile;
mod reconcile_links;
mod repair;
mod request;
mod route_lookup;
mod rules;
mod segments;
mod slots;
mod sweep;
mod sysctl;
mod takeover;
mod tun;
mod underlay;

pub use errors::KernelError;
pub use exit_routing::Exit;
pub use fallback_routes::{Destination, NextHopRoute, RouteChange};
pub use host_watch::HostWatch;
pub use ledger::RECEIVE_BUFFER_BYTES;
pub use numbers::{
    ALTERNATE_PRIORITY, ALTERNATE_TABLE, DEFAULT_TABLE, EXIT_RULE_PRIORITIES, FALLBACK_PRIORITY,
    FALLBACK_TABLE, NETWORK_METRIC, NODE_METRIC, RULE_PRIORITY, TABLE,
};
pub use packet_filter::{PacketFilter, Redirect};
pub use repair::{HostComparison, Repair, RepairKind};
pub use route_lookup::Diversion;
pub use segments::Segment;
pub(crate) use slots::server_name;
pub use slots::{AcceptingKind, MTU};
pub use sweep::Swept;
pub use tun::{TUN, make_tun_node};
pub use underlay::{Gateway, UplinkAddress, has_ipv6};

use counters::Counters;
use forward_probe::ForwardProbe;
use ipnet::Ipv4Net;
use main_table::Reading;
use placed::Placed;
use policies::names::{Role, Slot, Transport};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The beginning of the alias of each link of a node; the path of its root follows.
const ALIAS_PREFIX: &str = "warren ";

/// A handle to one network namespace, for one node. Clones share its state.
#[derive(Clone)]
pub struct Kernel {
    netlink: rtnetlink::Handle,
    alias: Arc<str>,
    state: Arc<Mutex<State>>,
    /// Held while the host is changed in several steps, so that a comparison never sees only some of them.
    host_changes: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct State {
    /// The interface index of each slot that this handle created.
    slots: BTreeMap<Slot, u32>,
    /// The interface index of each server's TAP.
    servers: BTreeMap<Transport, u32>,
    /// What the node has put on the host.
    placed: Placed,
    /// The user to whom the TAPs belong; `None` before the first one was created.
    owner_uid: Option<u32>,
    /// The link by which it is probed whether the host forwards packets; `None` before the first probe.
    forward_probe: Option<ForwardProbe>,
    /// The result of [`Kernel::accepting_kind`]; the outer option is `None` until it is known.
    accepting: Option<Option<AcceptingKind>>,
    counters: Option<Counters>,
    /// The network of the host that overlaps a range.
    overlap: Option<Reading<Ipv4Net, Option<String>>>,
    /// The indexes of the links of the default routes.
    default_links: Option<Reading<(), BTreeSet<u32>>>,
}

/// Returns the index of a slot's link in this namespace; `None` if there is no such link.
pub fn link_index(slot: Slot) -> Option<u32> {
    nix::net::if_::if_nametoindex(slot.to_string().as_str()).ok()
}

/// Returns the slot whose link has this index in this namespace; `None` if there is no such link, or it is no slot.
pub fn slot_of_link(index: u32) -> Option<Slot> {
    let name = nix::net::if_::if_indextoname(index).ok()?;
    name.to_str().ok()?.parse().ok()
}

impl Kernel {
    /// Opens a handle for the node whose files are below `root`.
    ///
    /// The handle belongs to the network namespace of the calling thread, and must be used only in that
    /// namespace. The function must be called within a tokio runtime, on which it spawns a task.
    ///
    /// # Errors
    ///
    /// The netlink socket cannot be opened, or `root` is longer than a link's alias can hold (248 bytes).
    pub fn open(root: &Path) -> Result<Self, KernelError> {
        let alias = format!("{ALIAS_PREFIX}{}", root.display());
        // IFALIASZ of linux/if.h is 256, with the final NUL.
        if alias.len() > 255 {
            return Err(KernelError::LongRoot {
                root: root.to_owned(),
            });
        }
        let (connection, netlink, _) =
            rtnetlink::new_connection_with_strict_check().map_err(KernelError::Open)?;
        tokio::spawn(connection);
        Ok(Self {
            netlink,
            alias: alias.into(),
            state: Arc::default(),
            host_changes: Arc::default(),
        })
    }

    /// Returns all slots that this handle created, sorted.
    pub fn slots(&self) -> Vec<Slot> {
        self.state().slots.keys().copied().collect()
    }

    /// Returns those of them on which tunnels are dialled.
    pub fn dialling_slots(&self) -> Vec<Slot> {
        let mut slots = self.slots();
        slots.retain(|slot| slot.role() == Role::Dialled);
        slots
    }

    /// Returns the interface index of a slot.
    ///
    /// # Errors
    ///
    /// [`KernelError::NoSlot`] if this handle did not create the slot, or if another program has deleted or renamed its link. The index
    /// may then be that of another link.
    pub fn index(&self, slot: Slot) -> Result<u32, KernelError> {
        let index = self.state().slots.get(&slot).copied();
        index
            .filter(|index| slot_of_link(*index) == Some(slot))
            .ok_or(KernelError::NoSlot { slot })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
