//! Limits how many datagrams of the link are decrypted, of all sources together and of each.

use crate::units::Uptime;
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// The span over which datagrams are counted.
const SPAN: Duration = Duration::from_secs(1);
/// Maximum number of datagrams in a span.
const MAX_DATAGRAMS: u32 = 256;
/// Maximum number of datagrams of one source in a span: two searches by either address family, and answers to them.
const MAX_OF_ONE_SOURCE: u32 = 16;

/// Counts the datagrams of the present span.
#[derive(Clone, Debug, Default)]
pub struct Intake {
    started_at: Uptime,
    all: u32,
    by_source: BTreeMap<IpAddr, u32>,
}

impl Intake {
    /// Returns whether a datagram from this source may be decrypted now; counts it if so.
    pub fn allow(&mut self, source: IpAddr, now: Uptime) -> bool {
        if now.since(self.started_at) >= SPAN {
            *self = Self {
                started_at: now,
                ..Self::default()
            };
        }
        // There are at most as many sources as datagrams.
        if self.all >= MAX_DATAGRAMS {
            return false;
        }
        let of_source = self.by_source.entry(source).or_default();
        if *of_source >= MAX_OF_ONE_SOURCE {
            return false;
        }
        *of_source += 1;
        self.all += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    /// Counts how many of 100 datagrams each of `sources` sends in a second are let in.
    #[track_caller]
    fn check(intake: &mut Intake, second: u64, sources: u32, expected: u32) {
        let mut allowed = 0;
        for _ in 0..100 {
            for source in 0..sources {
                let source = Ipv4Addr::from_bits(source).into();
                allowed += u32::from(intake.allow(source, Uptime::from_secs(second)));
            }
        }
        assert_eq!(allowed, expected, "{sources} sources");
    }

    #[test]
    fn one_source_cannot_use_up_what_others_may_send_and_all_together_are_limited() {
        let mut intake = Intake::default();
        check(&mut intake, 1, 1, MAX_OF_ONE_SOURCE);
        check(&mut intake, 1, 2, MAX_OF_ONE_SOURCE);
        check(&mut intake, 2, 3, 3 * MAX_OF_ONE_SOURCE);
        check(&mut intake, 3, 1_000, MAX_DATAGRAMS);
        check(&mut intake, 3, 1_000, 0);
        check(&mut intake, 4, 1, MAX_OF_ONE_SOURCE);
    }
}
