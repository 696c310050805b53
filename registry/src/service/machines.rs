//! Notices that two machines announce themselves with one certificate, as after a disk was cloned.
//!
//! Each daemon draws a number at its start and announces it. A node that restarts has a new number, and the old one does not come
//! back; two machines announce their numbers in turn.

use crate::clock::UnixSeconds;
use std::net::IpAddr;

/// Seconds for which a second machine is remembered after its last sign. Nodes announce themselves every 300 s.
const MEMORY_S: i64 = 900;

/// The daemons that announced themselves last with one certificate, by their numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Machines {
    last: Option<(u64, IpAddr)>,
    before: Option<(u64, IpAddr)>,
    /// When a number came back after another one.
    returned_at: Option<UnixSeconds>,
}

impl Machines {
    /// Records an announcement. Returns the address of the other machine, if there are two.
    pub(super) fn announce(
        &mut self,
        instance: u64,
        from: IpAddr,
        now: UnixSeconds,
    ) -> Option<IpAddr> {
        if instance == 0 {
            return None;
        }
        let is_number =
            |known: &Option<(u64, IpAddr)>| known.is_some_and(|(number, _)| number == instance);
        if !is_number(&self.last) {
            if is_number(&self.before) {
                self.returned_at = Some(now);
            }
            self.before = self.last;
        }
        self.last = Some((instance, from));
        let is_recent = |at: UnixSeconds| (0..MEMORY_S).contains(&now.seconds_since(at));
        let (_, other) = self.before?;
        self.returned_at.is_some_and(is_recent).then_some(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Announces these numbers at these seconds, each from an address that ends in it; returns the last bytes of the other machines' addresses.
    #[track_caller]
    fn check(announcements: &[(u8, i64)], others: &[Option<u8>]) {
        let mut machines = Machines::default();
        let address = |number: u8| IpAddr::from([192, 0, 2, number]);
        let seen: Vec<_> = announcements
            .iter()
            .map(|(number, at)| {
                machines.announce(u64::from(*number), address(*number), UnixSeconds(*at))
            })
            .collect();
        let others: Vec<_> = others.iter().map(|other| other.map(address)).collect();
        assert_eq!(seen, others);
    }

    #[test]
    fn a_number_that_comes_back_is_that_of_a_second_machine() {
        check(&[(1, 0), (2, 100), (1, 300)], &[None, None, Some(2)]);
        check(
            &[(1, 0), (2, 100), (1, 300), (2, 400), (2, 700)],
            &[None, None, Some(2), Some(1), Some(1)],
        );
    }

    #[test]
    fn a_node_that_restarts_is_one_machine() {
        check(&[(1, 0), (2, 100), (2, 400), (3, 500)], &[None; 4]);
        check(&[(0, 0), (2, 100), (0, 200), (2, 300)], &[None; 4]);
    }

    #[test]
    fn a_second_machine_that_is_gone_is_forgotten() {
        check(
            &[(1, 0), (2, 100), (1, 300), (1, 1_199), (1, 1_200)],
            &[None, None, Some(2), Some(2), None],
        );
    }
}
