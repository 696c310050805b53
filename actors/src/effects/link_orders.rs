//! A queue of orders about kernel links, and the task that carries them out one after the other.
//!
//! Two orders about one slot must not overtake each other, so all orders pass through one queue on the main
//! thread. The actor that gives an order does not wait for it.

use crate::store::TunnelTable;
use ipnet::{IpNet, Ipv6Net};
use os::{
    babel_socket::BabelSocket,
    kernel::{Kernel, KernelError},
};
use policies::names::{Prefix, Slot};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};
use tokio::sync::mpsc;
use wire::errors::Chain;

/// An order about one slot, or about the range of one node. Giving an order twice has the same effect as once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkOrder {
    /// Create dialling slots until there are this many, and enter them in the tunnel table.
    Create(u16),
    /// Give the slot its link-local address, and set it up. An accepting slot is created if it does not exist.
    Up(Slot),
    /// Set the slot down. This is only for a tunnel whose peer is gone: a peer that is still there would have
    /// to miss several hellos before it used another route.
    Down(Slot),
    /// Remove the slot's multicast route, so that babeld's hellos neither leave nor arrive by it, and announce
    /// to the peer that sending to this node is costly.
    Silence(Slot, Prefix),
    /// Announce to the peer, which has silenced its end, that sending to this node is costly.
    RaiseCost(Slot, Prefix),
    /// Restore the slot's multicast route.
    Unsilence(Slot),
    /// Send hellos to the neighbour on the slot, and request all routes from it, several times; for a new tunnel or a restarted babeld.
    RequestRoutes(Slot, Prefix),
    /// Request the neighbour's route to this destination; it answers with a retraction if it has none.
    RequestRoute(Slot, Prefix, IpNet),
    /// Retract this node's default route for packets from this range at the neighbour, and request the
    /// neighbour's.
    RetractDefault(Slot, Ipv6Net),
    /// Send and forward no packet to this range.
    Block(IpNet),
    /// Send and forward packets to this range again.
    Unblock(IpNet),
}

/// Delays before the first and between two requests for all routes. The first ones may come before the slot at the other end exists. The
/// last one is for a lost answer.
const ROUTE_REQUEST_DELAYS: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(200),
    Duration::from_millis(2300),
];

/// The cost of a draining link, which is announced to the peer at once. It equals twenty hops, or 200 ms, so
/// that all but very bad routes are better. Missed hellos multiply it. After eight seconds the link counts as
/// unreachable (measured), and so does any node to which no other route was found by then.
const DRAINING_COST: u16 = 2048;

/// Delays before each announcement of a cost or a retraction; the later ones are for lost packets. An IHU that babeld
/// had already sent arrives before the second announcement.
const ANNOUNCEMENT_DELAYS: [Duration; 3] = [
    Duration::from_millis(0),
    Duration::from_millis(100),
    Duration::from_millis(300),
];

/// The queue of link orders.
#[derive(Clone)]
pub struct LinkOrderQueue {
    orders: mpsc::UnboundedSender<LinkOrder>,
    /// Number of orders that were not carried out yet.
    unfinished: Rc<Cell<usize>>,
}

/// What the task needs that carries out link orders.
pub struct LinkOrderDeps {
    /// The network namespace of the links.
    pub kernel: Kernel,
    /// The socket for Babel packets of the daemon.
    pub sender: BabelSocket,
    /// The prefix of this node.
    pub me: Prefix,
    /// The user of OpenVPN, to whom dialling slots belong.
    pub openvpn_uid: u32,
    /// The tunnel table, in which new dialling slots are entered.
    pub tunnels: Rc<RefCell<TunnelTable>>,
}

impl LinkOrderQueue {
    /// Starts the task that carries orders out.
    pub fn new(deps: LinkOrderDeps) -> Self {
        let (orders, mut queue) = mpsc::unbounded_channel();
        let new = Self::to(orders);
        let unfinished = new.unfinished.clone();
        actix_rt::spawn(async move {
            while let Some(order) = queue.recv().await {
                if let Err(error) = deps.carry_out(order).await {
                    tracing::warn!(?order, error = %Chain(&error), "link order failed");
                }
                unfinished.set(unfinished.get().saturating_sub(1));
            }
        });
        new
    }

    /// Builds a queue that only forwards its orders to `receiver`, for tests.
    pub fn to(receiver: mpsc::UnboundedSender<LinkOrder>) -> Self {
        Self {
            orders: receiver,
            unfinished: Rc::default(),
        }
    }

    /// Returns whether all orders have been carried out.
    pub fn is_empty(&self) -> bool {
        self.unfinished.get() == 0
    }

    /// Adds an order to the queue; it is carried out after all earlier orders.
    pub fn order(&self, order: LinkOrder) {
        // Fails only if the runtime has stopped the task.
        let _ = self.orders.send(order);
        self.unfinished.set(self.unfinished.get().saturating_add(1));
    }
}

impl LinkOrderDeps {
    async fn carry_out(&self, order: LinkOrder) -> Result<(), KernelError> {
        let Self {
            kernel, sender, me, ..
        } = self;
        let announce = |send: Box<dyn Fn(&BabelSocket)>| {
            let sender = sender.clone();
            actix_rt::spawn(async move {
                for delay in ANNOUNCEMENT_DELAYS {
                    tokio::time::sleep(delay).await;
                    send(&sender);
                }
            });
        };
        match order {
            LinkOrder::Create(count) => self.create_dialling_slots(count).await,
            LinkOrder::Up(slot) => kernel.set_up(slot, *me).await,
            LinkOrder::Down(slot) => kernel.set_down(slot).await,
            LinkOrder::Silence(slot, peer) => {
                kernel.silence(slot).await?;
                announce(Box::new(move |sender| {
                    sender.raise_cost(slot, peer, DRAINING_COST);
                    sender.notify_drain(slot, peer);
                }));
                Ok(())
            }
            LinkOrder::RaiseCost(slot, peer) => {
                announce(Box::new(move |sender| {
                    sender.raise_cost(slot, peer, DRAINING_COST)
                }));
                Ok(())
            }
            LinkOrder::RetractDefault(slot, network) => {
                announce(Box::new(move |sender| {
                    sender.retract_default(slot, network);
                    sender.request_default(slot, network);
                }));
                Ok(())
            }
            LinkOrder::RequestRoute(slot, peer, destination) => {
                sender.request_some(slot, peer, &[destination]);
                Ok(())
            }
            LinkOrder::Unsilence(slot) => kernel.unsilence(slot).await,
            LinkOrder::Block(range) => kernel.block(range).await,
            LinkOrder::Unblock(range) => kernel.unblock(range).await,
            LinkOrder::RequestRoutes(slot, peer) => {
                let sender = sender.clone();
                actix_rt::spawn(async move {
                    for delay in ROUTE_REQUEST_DELAYS {
                        tokio::time::sleep(delay).await;
                        sender.greet_and_request_all(slot, peer);
                    }
                });
                Ok(())
            }
        }
    }

    async fn create_dialling_slots(&self, count: u16) -> Result<(), KernelError> {
        let first = self.tunnels.borrow().dialling_slots.len();
        let first = u16::try_from(first).unwrap_or(u16::MAX);
        if first >= count {
            return Ok(());
        }
        let slots = self
            .kernel
            .make_dialling_slots(first..count, self.me, self.openvpn_uid)
            .await?;
        self.tunnels.borrow_mut().dialling_slots.extend(slots);
        Ok(())
    }
}
