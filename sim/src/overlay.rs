//! The tunnels between the simulated nodes.

use crate::{
    chance::below,
    num::{index, number},
    space::Space,
};
use policies::{link_cost::LinkCost, orders::CloseReason, rng::Rng, units::Uptime};

/// One tunnel between two nodes.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// The node that dialled.
    pub dialler: u32,
    /// The node that accepted.
    pub acceptor: u32,
    /// Its slot at the dialler: `wrnK`.
    pub dial_slot: u16,
    /// Its slot at the acceptor: a VLAN from 2.
    pub accept_slot: u16,
    /// The time at which the tunnel came up.
    pub since: Uptime,
    /// The metric of a hop over the tunnel.
    pub cost: u32,
    /// Since when Babel has been taken off it, and why it is to be closed.
    pub draining: Option<(Uptime, CloseReason)>,
}

#[cfg(test)]
impl Tunnel {
    /// The other end.
    pub fn far(&self, node: u32) -> u32 {
        if self.dialler == node {
            self.acceptor
        } else {
            self.dialler
        }
    }
}

/// The maximum numbers of tunnels of a node.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The maximum number of tunnels that the node dialled.
    pub dial: usize,
    /// The maximum number of tunnels of both roles.
    pub degree: usize,
}

/// The tunnels of all nodes.
#[derive(Clone, Debug)]
pub struct Overlay {
    /// By number; numbers are not used again before the vacant ones are.
    tunnels: Vec<Option<Tunnel>>,
    vacant: Vec<u32>,
    /// For each node its tunnels: the far end and the tunnel's number.
    links: Vec<Vec<(u32, u32)>>,
    /// Nodes whose tunnels were opened, closed, drained or undrained since the last call of `take_changed`.
    changed: Vec<u32>,
    limits: Limits,
    cost: LinkCost,
}

impl Overlay {
    /// Nodes without tunnels.
    pub fn new(nodes: usize, limits: Limits, cost: LinkCost) -> Self {
        let links = vec![Vec::new(); nodes];
        Self {
            tunnels: Vec::new(),
            vacant: Vec::new(),
            links,
            changed: Vec::new(),
            limits,
            cost,
        }
    }

    /// Each node dials its full number of random peers, in turns.
    pub fn random(space: &Space, limits: Limits, cost: LinkCost, rng: &mut Rng) -> Self {
        let nodes = space.nodes();
        let mut overlay = Self::new(nodes, limits, cost);
        for _ in 0..limits.dial {
            let mut order: Vec<_> = (0..number(nodes)).collect();
            rng.shuffle(&mut order);
            for node in order {
                overlay.dial_any(space, node, Uptime::default(), rng);
            }
        }
        overlay
    }

    /// Dials a random node that has room; `false` where none was found in a hundred draws.
    pub fn dial_any(&mut self, space: &Space, node: u32, now: Uptime, rng: &mut Rng) -> bool {
        let nodes = self.links.len();
        (0..100).any(|_| {
            let peer = number(below(rng, nodes));
            self.dial(space, node, peer, now)
        })
    }

    /// Whether the node may take part in one more tunnel.
    pub fn has_room(&self, node: u32) -> bool {
        self.links(node).len() < self.limits.degree
    }

    /// The maximum numbers of tunnels of each node.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Makes a tunnel on the lowest free slots, where both ends have room and no tunnel to each other.
    pub fn dial(&mut self, space: &Space, node: u32, peer: u32, now: Uptime) -> bool {
        let used = self
            .links(node)
            .iter()
            .filter_map(|(_, tunnel)| self.tunnel(*tunnel));
        let mut used: Vec<_> = used
            .filter(|tunnel| tunnel.dialler == node)
            .map(|tunnel| tunnel.dial_slot)
            .collect();
        used.sort_unstable();
        let free = (0..).zip(
            used.iter()
                .copied()
                .map(Some)
                .chain(std::iter::repeat(None)),
        );
        let slot = free
            .filter(|(slot, used)| Some(*slot) != *used)
            .map(|(slot, _)| slot)
            .next()
            .unwrap_or(0);
        self.dial_on(space, node, slot, peer, now)
    }

    /// Makes a tunnel on that slot of the dialler.
    pub fn dial_on(
        &mut self,
        space: &Space,
        node: u32,
        dial_slot: u16,
        peer: u32,
        now: Uptime,
    ) -> bool {
        if node == peer
            || !self.has_room(node)
            || !self.has_room(peer)
            || self.connected(node, peer)
        {
            return false;
        }
        let accepted: Vec<_> = self
            .links(peer)
            .iter()
            .filter_map(|(_, tunnel)| self.tunnel(*tunnel))
            .filter(|tunnel| tunnel.acceptor == peer)
            .map(|tunnel| tunnel.accept_slot)
            .collect();
        let accept_slot = (2..).find(|slot| !accepted.contains(slot)).unwrap_or(2);
        let cost = self
            .cost
            .metric(crate::space::span(space.rtt(node, peer)))
            .max(1);
        let (dialler, acceptor) = (node, peer);
        let tunnel = Tunnel {
            dialler,
            acceptor,
            dial_slot,
            accept_slot,
            since: now,
            cost,
            draining: None,
        };
        let at = match self.vacant.pop() {
            Some(at) => at,
            None => {
                self.tunnels.push(None);
                number(self.tunnels.len() - 1)
            }
        };
        if let Some(place) = self.tunnels.get_mut(index(at)) {
            *place = Some(tunnel);
        }
        self.changed.extend([node, peer]);
        for (one, other) in [(node, peer), (peer, node)] {
            if let Some(links) = self.links.get_mut(index(one)) {
                links.push((other, at));
            }
        }
        true
    }

    /// Whether a tunnel of either role joins the two.
    pub fn connected(&self, node: u32, peer: u32) -> bool {
        self.links(node).iter().any(|(far, _)| *far == peer)
    }

    /// Ends a tunnel.
    pub fn close(&mut self, number: u32) {
        let Some(tunnel) = self.tunnels.get_mut(index(number)).and_then(Option::take) else {
            return;
        };
        for node in [tunnel.dialler, tunnel.acceptor] {
            if let Some(links) = self.links.get_mut(index(node)) {
                links.retain(|(_, other)| *other != number);
            }
        }
        self.vacant.push(number);
        self.changed.extend([tunnel.dialler, tunnel.acceptor]);
    }

    /// Ends all tunnels of a node.
    pub fn isolate(&mut self, node: u32) {
        for (_, tunnel) in self.links(node).to_vec() {
            self.close(tunnel);
        }
    }

    /// The tunnel with this number, or `None` if it is closed.
    pub fn tunnel(&self, number: u32) -> Option<&Tunnel> {
        self.tunnels.get(index(number)).and_then(Option::as_ref)
    }

    /// The nodes whose tunnels came, went, began or ceased to drain since this was asked the last time; each once.
    pub fn take_changed(&mut self) -> Vec<u32> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        changed
    }

    /// Takes Babel off a tunnel, or puts it back.
    pub fn set_draining(&mut self, number: u32, drain: Option<(Uptime, CloseReason)>) {
        if let Some(Some(tunnel)) = self.tunnels.get_mut(index(number)) {
            tunnel.draining = drain;
            self.changed.extend([tunnel.dialler, tunnel.acceptor]);
        }
    }

    /// A node's tunnels: the far end and the tunnel's number.
    pub fn links(&self, node: u32) -> &[(u32, u32)] {
        self.links.get(index(node)).map_or(&[], Vec::as_slice)
    }

    /// The numbers of the tunnels that the node dialled.
    pub fn dialled(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        let own = move |number: &u32| {
            self.tunnel(*number)
                .is_some_and(|tunnel| tunnel.dialler == node)
        };
        self.links(node)
            .iter()
            .map(|(_, number)| *number)
            .filter(own)
    }

    /// The number of nodes.
    pub fn nodes(&self) -> usize {
        self.links.len()
    }

    /// The number of open tunnels.
    pub fn count(&self) -> usize {
        self.tunnels.len() - self.vacant.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(nodes: usize, dial: usize, degree: usize) -> Overlay {
        let limits = Limits { dial, degree };
        Overlay::random(
            &Space::synthetic(nodes, 1),
            limits,
            LinkCost::default(),
            &mut Rng::new(1),
        )
    }

    #[track_caller]
    fn check(overlay: &Overlay, degree: usize) {
        for node in 0..number(overlay.nodes()) {
            let links = overlay.links(node);
            assert!(links.len() <= degree);
            let mut slots: Vec<_> = overlay
                .dialled(node)
                .map(|tunnel| overlay.tunnel(tunnel).unwrap().dial_slot)
                .collect();
            let count = slots.len();
            slots.sort_unstable();
            slots.dedup();
            assert_eq!(slots.len(), count, "two tunnels on a slot");
            for (far, tunnel) in links {
                assert_eq!(overlay.tunnel(*tunnel).unwrap().far(node), *far);
                assert!(overlay.links(*far).contains(&(node, *tunnel)));
            }
        }
    }

    #[test]
    fn a_random_overlay_keeps_its_limits_and_both_ends_agree() {
        let overlay = overlay(60, 5, 15);
        check(&overlay, 15);
        assert_eq!(overlay.count(), 300);
    }

    #[test]
    fn a_closed_tunnels_slot_and_number_are_used_again() {
        let mut overlay = overlay(20, 3, 19);
        let space = Space::synthetic(20, 1);
        let closed: Vec<_> = overlay.dialled(4).collect();
        overlay.close(closed[1]);
        assert_eq!(overlay.count(), 59);
        let peer = (0..20)
            .find(|peer| *peer != 4 && !overlay.connected(4, *peer))
            .unwrap();
        assert!(overlay.dial(&space, 4, peer, Uptime::default()));
        assert_eq!(
            overlay.tunnel(closed[1]).map(|tunnel| tunnel.dial_slot),
            Some(1)
        );
        check(&overlay, 19);
    }

    #[test]
    fn nobody_dials_itself_a_neighbour_or_a_full_node() {
        let space = Space::synthetic(3, 1);
        let mut overlay = Overlay::new(3, Limits { dial: 1, degree: 1 }, LinkCost::default());
        let dial = |overlay: &mut Overlay, a, b| overlay.dial(&space, a, b, Uptime::default());
        assert!(!dial(&mut overlay, 0, 0));
        assert!(dial(&mut overlay, 0, 1));
        assert!(!dial(&mut overlay, 1, 0));
        assert!(!dial(&mut overlay, 2, 1));
    }
}
