//! Recognises a key that two machines use, as after a disk was cloned: tunnels of one node then come from two addresses in
//! turn, and each replaces the other.
//!
//! A node that changes its address comes from a new one, and stays there. Only one that comes back to an address that it
//! has left, several times within a short span, is two machines. From then on the machine that came first keeps its tunnel, so that
//! routes do not flap.

use crate::{names::Prefix, units::Uptime};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// Number of returns to an address that was left, from which a node counts as two machines. A laptop that leaves its Wi-Fi, comes back and
/// leaves it again has two.
const MIN_RETURNS: u32 = 3;
/// Span within which the returns count.
const SPAN: Duration = Duration::from_secs(120);
/// Time after the last sign of a second machine for which it is rejected.
const MEMORY: Duration = Duration::from_secs(600);
/// Minimum interval between two reports about rejected machines of one node.
const REPORT_INTERVAL: Duration = Duration::from_secs(600);
/// Maximum number of nodes that are remembered.
const MAX_NODES: usize = 1024;

/// Whether a client may have a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Nothing is wrong with it.
    Admitted,
    /// Another machine with the same key came first, and has a tunnel.
    Rejected {
        /// The address of the machine that came first.
        first: IpAddr,
        /// The number of rejections since the last report, with this one; `None` if that was a short while ago.
        to_report: Option<u32>,
    },
}

/// The tunnel that a node has when another client with its key comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresentTunnel {
    /// The address that it comes from.
    pub from: IpAddr,
    /// Whether the node's hellos arrived through it lately. A node that has changed its address leaves a silent tunnel behind.
    pub is_heard: bool,
}

/// The addresses from which one node came.
#[derive(Clone, Copy, Debug)]
struct Places {
    first: IpAddr,
    last: IpAddr,
    returns: u32,
    /// When the address last changed.
    changed_at: Uptime,
    /// When rejections were last reported.
    reported_at: Option<Uptime>,
    /// Rejections since then.
    unreported: u32,
}

impl Places {
    /// Counts a rejection; returns how many are to be reported now.
    fn count_rejection(&mut self, now: Uptime) -> Option<u32> {
        self.unreported = self.unreported.saturating_add(1);
        let is_early = |reported_at| now.since(reported_at) < REPORT_INTERVAL;
        if self.reported_at.is_some_and(is_early) {
            return None;
        }
        self.reported_at = Some(now);
        Some(std::mem::take(&mut self.unreported))
    }
}

/// The nodes whose tunnels were accepted lately, and from where.
#[derive(Clone, Debug, Default)]
pub struct SharedKeys(BTreeMap<Prefix, Places>);

impl SharedKeys {
    /// Decides about a client that comes from this address. `present` is the tunnel that the node has already.
    pub fn admit(
        &mut self,
        node: Prefix,
        from: IpAddr,
        present: Option<PresentTunnel>,
        now: Uptime,
    ) -> Admission {
        self.0
            .retain(|_, places| now.since(places.changed_at) < MEMORY);
        let Some(places) = self.0.get_mut(&node) else {
            if self.0.len() < MAX_NODES {
                let places = Places {
                    first: present.map_or(from, |present| present.from),
                    last: from,
                    returns: 0,
                    changed_at: now,
                    reported_at: None,
                    unreported: 0,
                };
                self.0.insert(node, places);
            }
            return Admission::Admitted;
        };
        if from != places.last {
            let is_return = from == places.first || places.returns > 0;
            let is_shared = places.returns >= MIN_RETURNS;
            if now.since(places.changed_at) >= SPAN && !is_shared {
                (places.first, places.returns) = (places.last, 0);
            } else if is_return && present.is_some() {
                places.returns = places.returns.saturating_add(1);
            }
            (places.last, places.changed_at) = (from, now);
        }
        let is_shared = places.returns >= MIN_RETURNS;
        let first = places.first;
        let is_first = |present: PresentTunnel| present.from == first && present.is_heard;
        if is_shared && from != first && present.is_some_and(is_first) {
            // The tunnel of the first machine stays.
            places.last = first;
            let to_report = places.count_rejection(now);
            return Admission::Rejected { first, to_report };
        }
        Admission::Admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets clients come from these addresses at these seconds, each of which replaces the one before unless it is rejected.
    /// Returns which are admitted.
    #[track_caller]
    fn check(clients: &[(u8, u64)], admitted: &[bool]) {
        let node = Prefix::new(7, 16).unwrap();
        let (mut keys, mut present) = (SharedKeys::default(), None);
        let decide = |(from, second): &(u8, u64)| {
            let from = IpAddr::from([192, 0, 2, *from]);
            let admission = keys.admit(node, from, present, Uptime::from_secs(*second));
            let is_admitted = admission == Admission::Admitted;
            if is_admitted {
                let is_heard = true;
                present = Some(PresentTunnel { from, is_heard });
            }
            is_admitted
        };
        let seen: Vec<_> = clients.iter().map(decide).collect();
        assert_eq!(seen, admitted, "{clients:?}");
    }

    #[test]
    fn rejections_are_reported_once_in_ten_minutes_and_counted() {
        let mut places = Places {
            first: [192, 0, 2, 1].into(),
            last: [192, 0, 2, 2].into(),
            returns: MIN_RETURNS,
            changed_at: Uptime::default(),
            reported_at: None,
            unreported: 0,
        };
        let reports = (0..2_000_u64).step_by(10).filter_map(|second| {
            let count = places.count_rejection(Uptime::from_secs(second));
            count.map(|count| (second, count))
        });
        assert_eq!(
            reports.collect::<Vec<_>>(),
            [(0, 1), (600, 60), (1200, 60), (1800, 60)]
        );
    }

    #[test]
    fn of_two_machines_with_one_key_the_first_keeps_its_tunnel() {
        check(
            &[
                (1, 0),
                (2, 5),
                (1, 10),
                (2, 15),
                (1, 20),
                (2, 25),
                (2, 30),
                (1, 35),
                (2, 300),
            ],
            &[true, true, true, true, true, false, false, true, false],
        );
    }

    #[test]
    fn a_node_that_moves_to_another_address_is_admitted() {
        check(&[(1, 0), (2, 50), (3, 90), (3, 95)], &[true; 4]);
        check(&[(1, 0), (2, 30), (1, 60), (2, 90)], &[true; 4]);
        check(
            &[(1, 0), (2, 200), (1, 400), (2, 600), (1, 800)],
            &[true; 5],
        );
    }

    #[test]
    fn the_second_machine_is_admitted_while_the_first_has_no_tunnel_that_works() {
        let node = Prefix::new(7, 16).unwrap();
        let mut keys = SharedKeys::default();
        let address = |number| IpAddr::from([192, 0, 2, number]);
        let mut admit = |from, present: Option<(u8, bool)>, second| {
            let present = present.map(|(from, is_heard)| PresentTunnel {
                from: address(from),
                is_heard,
            });
            keys.admit(node, address(from), present, Uptime::from_secs(second))
        };
        assert_eq!(admit(1, None, 0), Admission::Admitted);
        for second in [5, 15] {
            assert_eq!(admit(2, Some((1, true)), second), Admission::Admitted);
            let returned = admit(1, Some((2, true)), second + 5);
            assert_eq!(returned, Admission::Admitted);
        }
        let rejected = Admission::Rejected {
            first: address(1),
            to_report: Some(1),
        };
        assert_eq!(admit(2, Some((1, true)), 25), rejected);
        assert_eq!(admit(2, Some((1, false)), 30), Admission::Admitted);
        assert_eq!(admit(2, None, 35), Admission::Admitted);
    }

    #[test]
    fn the_number_of_remembered_nodes_is_limited() {
        let mut keys = SharedKeys::default();
        let limit = u32::try_from(MAX_NODES).unwrap();
        for number in 1..=2 * limit {
            let node = Prefix::new(number, 16).unwrap();
            keys.admit(
                node,
                IpAddr::from([192, 0, 2, 1]),
                None,
                Uptime::from_secs(0),
            );
        }
        assert_eq!(keys.0.len(), MAX_NODES);
    }
}
