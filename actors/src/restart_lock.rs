//! Acquires and releases restart locks. A node that restarts its processes holds its own lock and those of all its neighbours.

use membership::peer_api::PeerApiClient;
use os::clock::Clock;
use policies::{names::Prefix, restart_lock::RestartLock};
use reqwest::Method;
use std::{
    collections::BTreeSet,
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
    /// A lock that nobody holds.
    pub fn new(clock: Clock) -> Self {
        Self {
            lock: Arc::default(),
            clock,
        }
    }

    /// Grants the lock to `node`, unless another node holds it or a tunnel here has just changed; returns
    /// whether it was granted.
    pub fn acquire(&self, node: Prefix) -> bool {
        self.lock().acquire(node, self.clock.now())
    }

    /// Releases the lock, if `node` still holds it.
    pub fn release(&self, node: Prefix) {
        self.lock().release(node);
    }

    /// Records that a tunnel of this node connects, drains or closes now; no other node is granted the lock
    /// until the routes have settled.
    pub fn note_tunnel_change(&self) {
        self.lock().note_tunnel_change(self.clock.now());
    }

    /// Returns the node that holds the lock.
    pub fn holder(&self) -> Option<Prefix> {
        self.lock().holder(self.clock.now())
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

/// Releases the locks of this node and those neighbours. If a release is lost, the lock expires by itself.
pub async fn release_all(
    me: Prefix,
    neighbours: BTreeSet<Prefix>,
    own: SharedRestartLock,
    peers: PeerApiClient,
) {
    own.release(me);
    for node in neighbours.iter().filter(|node| **node != me) {
        if let Err(error) = peers.call_restart_lock(*node, Method::DELETE).await {
            tracing::debug!(peer = %node, error = %Chain(&error), "restart lock not released; it expires");
        }
    }
}
