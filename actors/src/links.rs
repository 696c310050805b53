//! Does what is ordered with kernel links, one after the other.
//!
//! Orders for one slot must not overtake each other, so all pass through one queue on the main
//! thread; whoever gives them does not wait.

use crate::{errors::Chain, kernel::Kernel};
use policies::names::{Prefix, Slot};
use std::time::Duration;
use tokio::sync::mpsc;

/// An order for one slot. Each does nothing the second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkOrder {
    /// Give it its link-local address and set it up.
    Up(Slot),
    /// Set it down: for the dead only, since the living far end waits for hellos.
    Down(Slot),
    /// Take its multicast route away, so that Babel's hellos can no longer leave.
    Silence(Slot),
    /// Put the multicast route back.
    Unsilence(Slot),
    /// Change its IPv4 address for a moment, so that babeld exchanges routes at once.
    Poke(Slot),
    /// The same a few seconds later: only for a new babeld, since it disturbs routes in use.
    PokeLater(Slot),
}

/// Both ends of a tunnel are poked this long after it is up.
const POKE_AFTER: Duration = Duration::from_millis(300);

/// babeld answers no request within two seconds of its last full update. So where a new babeld's first
/// request was answered too early to be used, a poke within that time is answered by nobody (measured:
/// a node without some routes for 18 to 29 s after its babeld was started anew).
const POKE_LATER: Duration = Duration::from_millis(2500);

/// How long the address of a poke stays.
const POKE_FOR: Duration = Duration::from_millis(500);

/// Where link orders are given.
#[derive(Clone)]
pub struct Links(mpsc::UnboundedSender<LinkOrder>);

impl Links {
    /// Starts the task that carries orders out with `kernel`.
    pub fn new(kernel: Kernel, me: Prefix) -> Self {
        let (orders, mut given) = mpsc::unbounded_channel();
        actix_rt::spawn(async move {
            while let Some(order) = given.recv().await {
                if let Err(error) = carry_out(&kernel, me, order).await {
                    tracing::warn!(?order, error = %Chain(&error), "link order failed");
                }
            }
        });
        Self(orders)
    }

    /// A queue whose orders end in `to`, for tests.
    pub fn to(to: mpsc::UnboundedSender<LinkOrder>) -> Self {
        Self(to)
    }

    /// Gives an order; it is carried out after those given before.
    pub fn order(&self, order: LinkOrder) {
        // The task ends only with the runtime.
        let _ = self.0.send(order);
    }
}

async fn carry_out(kernel: &Kernel, me: Prefix, order: LinkOrder) -> Result<(), crate::kernel::KernelError> {
    match order {
        LinkOrder::Up(slot) => kernel.set_up(slot, me).await,
        LinkOrder::Down(slot) => kernel.set_down(slot).await,
        LinkOrder::Silence(slot) => kernel.silence(slot).await,
        LinkOrder::Unsilence(slot) => kernel.unsilence(slot).await,
        LinkOrder::Poke(slot) => {
            poke(kernel, slot, POKE_AFTER);
            Ok(())
        }
        LinkOrder::PokeLater(slot) => {
            poke(kernel, slot, POKE_LATER);
            Ok(())
        }
    }
}

fn poke(kernel: &Kernel, slot: Slot, after: Duration) {
    let kernel = kernel.clone();
    actix_rt::spawn(async move {
        tokio::time::sleep(after).await;
        let poked = kernel.poke(slot).await;
        tokio::time::sleep(POKE_FOR).await;
        if let Err(error) = poked.and(kernel.unpoke(slot).await) {
            tracing::debug!(%slot, error = %Chain(&error), "poke failed");
        }
    });
}
