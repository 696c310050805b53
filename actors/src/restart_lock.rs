//! Takes turns with the neighbours: who ends tunnels by plan asks each of them before.

use membership::peer_api::PeerApiClient;
use os::clock::Clock;
use policies::{names::Prefix, turn::Turn};
use reqwest::Method;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use wire::errors::Chain;

/// The turn that this node has to give; the peer API gives it to neighbours.
#[derive(Clone)]
pub struct SharedTurn {
    turn: Arc<Mutex<Turn>>,
    clock: Clock,
}

impl SharedTurn {
    /// A turn that nobody has.
    pub fn new(clock: Clock) -> Self {
        Self {
            turn: Arc::default(),
            clock,
        }
    }

    /// Gives it to `by`; whether that was possible.
    pub fn take(&self, by: Prefix) -> bool {
        self.turn().take(by, self.clock.now())
    }

    /// Takes it back from `by`.
    pub fn give_back(&self, by: Prefix) {
        self.turn().give_back(by);
    }

    /// A tunnel here is coming or going.
    pub fn disturb(&self) {
        self.turn().disturb(self.clock.now());
    }

    /// Who has it.
    pub fn holder(&self) -> Option<Prefix> {
        self.turn().holder(self.clock.now())
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the turns of this node and those neighbours, in the order of prefixes, so that of two who ask
/// for the same turns one gets on; whether it has them all. A neighbour that does not answer has no say:
/// it is dead, or of another version.
pub async fn take_all(
    me: Prefix,
    neighbours: BTreeSet<Prefix>,
    own: SharedTurn,
    asker: PeerApiClient,
) -> bool {
    let mut all = neighbours;
    all.insert(me);
    for node in &all {
        let given = if *node == me {
            own.take(me)
        } else {
            ask(*node, &asker).await
        };
        if !given {
            tracing::debug!(by = %node, "no turn to end tunnels yet");
            let taken = all
                .iter()
                .take_while(|taken| *taken != node)
                .copied()
                .collect();
            give_all_back(me, taken, own, asker).await;
            return false;
        }
    }
    true
}

async fn ask(node: Prefix, asker: &PeerApiClient) -> bool {
    asker.turn(node, Method::POST).await.unwrap_or_else(|error| {
        tracing::debug!(peer = %node, error = %Chain(&error), "neighbour not asked for its turn");
        true
    })
}

/// Gives the turns of this node and those neighbours back. What a neighbour does not hear of ends by itself.
pub async fn give_all_back(
    me: Prefix,
    neighbours: BTreeSet<Prefix>,
    own: SharedTurn,
    asker: PeerApiClient,
) {
    own.give_back(me);
    for node in neighbours.iter().filter(|node| **node != me) {
        if let Err(error) = asker.turn(*node, Method::DELETE).await {
            tracing::debug!(peer = %node, error = %Chain(&error), "turn not given back; it ends by itself");
        }
    }
}
