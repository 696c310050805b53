//! Carries out orders about kernel links, one after the other.
//!
//! Orders for one slot must not overtake each other, so all pass through one queue on the main
//! thread; the actor that gives an order does not wait.

use ipnet::{IpNet, Ipv6Net};
use os::{babel_socket::BabelSocket, kernel::Kernel};
use policies::names::{Prefix, Slot};
use std::time::Duration;
use tokio::sync::mpsc;
use wire::errors::Chain;

/// An order about one slot, or about the routes to one node. Each has no effect the second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkOrder {
    /// Give it its link-local address and set it up.
    Up(Slot),
    /// Set it down: for the dead only, since the living far end waits for hellos.
    Down(Slot),
    /// Remove its multicast route, so that Babel's hellos can neither leave nor come, and announce
    /// to the peer that sending to us is costly.
    Silence(Slot, Prefix),
    /// The peer has silenced its end: announce the same cost to it.
    RaiseCost(Slot, Prefix),
    /// Put the multicast route back.
    Unsilence(Slot),
    /// Ask the neighbour there for all its routes, soon and once more: it or our babeld is new.
    RequestRoutes(Slot),
    /// Retract our default route for this range at the neighbour, and request the neighbour's.
    RetractDefault(Slot, Ipv6Net),
    /// Send nothing to that node any more, neither our own packets nor those of others.
    Block(IpNet),
    /// Send to it again, if there is a route.
    Unblock(IpNet),
}

/// Waits before a neighbour is asked, and asked once more. babeld's own hellos come first; and a neighbour's babeld answers no
/// second such question within two seconds, so that a lost answer is had again only after that.
const REQUEST_AFTER: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(2500)];

/// The cost of a draining link, announced to the far end at once: twenty hops, or 200 ms, so that
/// all but very bad routes are better. Missed hellos multiply it; eight seconds later the link
/// counts as unreachable (measured), and a node that has found no other route by then becomes unreachable.
const DRAINING_COST: u16 = 2048;

/// Delays before the cost is announced, and announced again in case a packet was lost; an IHU of
/// babeld's own that was already sent arrives before the second.
const RAISE_AFTER: [Duration; 3] = [
    Duration::from_millis(0),
    Duration::from_millis(100),
    Duration::from_millis(300),
];

/// The queue of link orders.
#[derive(Clone)]
pub struct Links(mpsc::UnboundedSender<LinkOrder>);

impl Links {
    /// Starts the task that carries orders out with `kernel` and `sender`.
    pub fn new(kernel: Kernel, sender: BabelSocket, me: Prefix) -> Self {
        let (orders, mut given) = mpsc::unbounded_channel();
        actix_rt::spawn(async move {
            while let Some(order) = given.recv().await {
                if let Err(error) = carry_out(&kernel, &sender, me, order).await {
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

async fn carry_out(
    kernel: &Kernel,
    sender: &BabelSocket,
    me: Prefix,
    order: LinkOrder,
) -> Result<(), os::kernel::KernelError> {
    let repeat = |send: Box<dyn Fn(&BabelSocket)>| {
        let sender = sender.clone();
        actix_rt::spawn(async move {
            for after in RAISE_AFTER {
                tokio::time::sleep(after).await;
                send(&sender);
            }
        });
    };
    match order {
        LinkOrder::Up(slot) => kernel.set_up(slot, me).await,
        LinkOrder::Down(slot) => kernel.set_down(slot).await,
        LinkOrder::Silence(slot, peer) => {
            kernel.silence(slot).await?;
            repeat(Box::new(move |sender| {
                sender.raise_cost(slot, peer, DRAINING_COST);
                sender.notify_drain(slot, peer);
            }));
            Ok(())
        }
        LinkOrder::RaiseCost(slot, peer) => {
            repeat(Box::new(move |sender| {
                sender.raise_cost(slot, peer, DRAINING_COST)
            }));
            Ok(())
        }
        LinkOrder::RetractDefault(slot, network) => {
            repeat(Box::new(move |sender| {
                sender.retract_default(slot, network);
                sender.request_default(slot, network);
            }));
            Ok(())
        }
        LinkOrder::Unsilence(slot) => kernel.unsilence(slot).await,
        LinkOrder::Block(range) => kernel.bar(range).await,
        LinkOrder::Unblock(range) => kernel.unbar(range).await,
        LinkOrder::RequestRoutes(slot) => {
            let sender = sender.clone();
            actix_rt::spawn(async move {
                for after in REQUEST_AFTER {
                    tokio::time::sleep(after).await;
                    sender.request_all(slot);
                }
            });
            Ok(())
        }
    }
}
