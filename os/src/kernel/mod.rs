//! Kernel links, addresses, routes and settings, by netlink, `ioctl`, `bpf` and `/proc/sys`.
//!
//! Knows slots by their names only, and nothing of tunnels, peers or processes. Everything it
//! creates is marked (alias, route protocol, rule priority), so that [`Kernel::sweep`] finds the
//! residue of a dead predecessor and touches nothing else.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the attributes of netlink messages are not exhaustive"
)]

mod bpf;
mod counters;
mod errors;
mod exit_routing;
mod fallback_routes;
mod host;
mod ledger;
mod numbers;
mod request;
mod slots;
mod sweep;
mod sysctl;
mod tun;
mod underlay;

pub use errors::KernelError;
pub use exit_routing::Exit;
pub use fallback_routes::{Destination, RouteChange};
pub use host::{NETWORK_METRIC, NODE_METRIC};
pub use numbers::{
    DEFAULT_TABLE, EXIT_RULE_PRIORITIES, FALLBACK_PRIORITY, FALLBACK_TABLE, RULE_PRIORITY, TABLE,
};
pub use slots::{AcceptingKind, MTU};
pub use sweep::Swept;
pub use tun::{TUN, make_tun_node};
pub use underlay::{Gateway, UplinkAddress, has_ipv6};

use counters::Counters;
use policies::names::{Slot, Transport};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// One network namespace, as one node uses it. Cheap to clone: all clones are one handle.
#[derive(Clone)]
pub struct Kernel {
    netlink: rtnetlink::Handle,
    alias: Arc<str>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Interface index of each slot that we made.
    slots: BTreeMap<Slot, u32>,
    /// Interface index of the TAP of each server.
    servers: BTreeMap<Transport, u32>,
    /// The result of [`Kernel::accepting_kind`], once it was determined.
    accepting: Option<Option<AcceptingKind>>,
    counters: Option<Counters>,
}

/// The index of a slot's link in this namespace; `None` where there is no such link.
pub fn link_index(slot: Slot) -> Option<u32> {
    nix::net::if_::if_nametoindex(slot.to_string().as_str()).ok()
}

impl Kernel {
    /// Opens the kernel's interfaces for the node whose files lie below `root`.
    ///
    /// Belongs to the network namespace of the calling thread, which must also be that of every
    /// later caller. Must be called within a tokio runtime, on which it leaves one task.
    ///
    /// # Errors
    ///
    /// No netlink socket, or a `root` too long for a link's alias (248 bytes).
    pub fn open(root: &Path) -> Result<Self, KernelError> {
        let alias = format!("warren {}", root.display());
        // IFALIASZ of linux/if.h, with its NUL.
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
        })
    }

    /// Every slot that this handle made, sorted.
    pub fn slots(&self) -> Vec<Slot> {
        self.state().slots.keys().copied().collect()
    }

    /// The interface index of a slot.
    ///
    /// # Errors
    ///
    /// [`KernelError::NoSlot`] where this handle has not made it.
    pub fn index(&self, slot: Slot) -> Result<u32, KernelError> {
        self.state()
            .slots
            .get(&slot)
            .copied()
            .ok_or(KernelError::NoSlot { slot })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
