//! Acquires and releases restart locks. A node that restarts its processes holds its own lock and those of all its neighbours.

use futures_util::future::join_all;
use membership::peer_api::PeerApiClient;
use os::clock::Clock;
use policies::{
    names::{Prefix, Slot},
    observation::{BabelTable, TunnelReading},
    restart_lock::RestartLock,
};
use reqwest::Method;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use wire::errors::Chain;

/// This node's own restart lock. The peer API's thread grants it to neighbours, so it is shared between threads.
#[derive(Clone)]
pub struct SharedRestartLock {
    lock: Arc<Mutex<RestartLock>>,
    clock: Clock,
}

impl SharedRestartLock {
    /// The lock of node `me`, which nobody holds.
    pub fn new(me: Prefix, clock: Clock) -> Self {
        Self {
            lock: Arc::new(Mutex::new(RestartLock::new(me))),
            clock,
        }
    }

    /// Grants the lock to `node`, unless its holders exclude that or a tunnel here has just changed; returns
    /// whether it was granted.
    pub fn acquire(&self, node: Prefix) -> bool {
        self.lock().acquire(node, self.clock.now())
    }

    /// Releases the lock, if `node` still holds it.
    pub fn release(&self, node: Prefix) {
        self.lock().release(node);
    }

    /// Records the state of all tunnels; while one changes, nobody is granted the lock who did not cause that.
    pub fn note_tunnels(&self, tunnels: &BTreeMap<Slot, TunnelReading>) {
        self.lock().note_tunnels(tunnels, self.clock.now());
    }

    /// Records babeld's table, which decides whether several neighbours can share the lock.
    pub fn note_table(&self, table: Option<Arc<BabelTable>>) {
        self.lock().note_table(table);
    }

    /// Returns the nodes that hold the lock.
    pub fn holders(&self) -> BTreeSet<Prefix> {
        self.lock().holders(self.clock.now())
    }

    /// Returns whether `node` holds the lock.
    pub fn is_holder(&self, node: Prefix) -> bool {
        self.lock().is_holder(node, self.clock.now())
    }

    /// Frees an expired lock, and returns the node that did not release it in time.
    pub fn take_expired(&self) -> Option<Prefix> {
        self.lock().take_expired(self.clock.now())
    }

    fn lock(&self) -> MutexGuard<'_, RestartLock> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Acquires the locks of this node and those neighbours, and returns whether all were granted. If one was not,
/// the others are released.
///
/// Every node acquires locks in the order of prefixes, so that of two nodes that want the same locks one
/// succeeds. A neighbour that does not answer counts as having granted its lock: it is dead, or runs a version
/// without locks.
pub async fn acquire_all(
    me: Prefix,
    neighbours: BTreeSet<Prefix>,
    own: SharedRestartLock,
    peers: PeerApiClient,
) -> bool {
    let mut all = neighbours;
    all.insert(me);
    for node in &all {
        let is_granted = if *node == me {
            own.acquire(me)
        } else {
            request(*node, &peers).await
        };
        if !is_granted {
            tracing::debug!(%node, "node did not grant its restart lock");
            let acquired = all.iter().take_while(|earlier| *earlier != node);
            release_all(me, acquired.copied().collect(), own, peers).await;
            return false;
        }
    }
    true
}

async fn request(node: Prefix, peers: &PeerApiClient) -> bool {
    let answer = peers.call_restart_lock(node, Method::POST).await;
    answer.unwrap_or_else(|error| {
        tracing::debug!(peer = %node, error = %Chain(&error), "no answer to the request for a restart lock; going on without it");
        true
    })
}

/// Releases the locks of this node and those neighbours, all at the same time. If a release is lost, the lock expires by itself.
pub async fn release_all(
    me: Prefix,
    neighbours: BTreeSet<Prefix>,
    own: SharedRestartLock,
    peers: PeerApiClient,
) {
    own.release(me);
    let release = async |node: Prefix| {
        if let Err(error) = peers.call_restart_lock(node, Method::DELETE).await {
            tracing::debug!(peer = %node, error = %Chain(&error), "restart lock not released; it expires");
        }
    };
    let others = neighbours.into_iter().filter(|node| *node != me);
    join_all(others.map(release)).await;
}
