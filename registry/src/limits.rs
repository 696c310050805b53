//! Slows down who guesses tokens; knows nothing of what a token is.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv6Addr},
};

/// Failures that one site may have within [`SPAN_S`].
pub const PER_SITE: usize = 5;

/// Failures that all together may have within [`SPAN_S`].
pub const OVERALL: usize = 100;

/// Seconds after which a failure is forgotten.
pub const SPAN_S: i64 = 60;

/// Where a request came from: one IPv4 address, or one /64 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site(Ipv6Addr);

impl From<IpAddr> for Site {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.to_ipv6_mapped()),
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        }
    }
}

/// The failures of the last minute, at most [`OVERALL`].
#[derive(Clone, Debug, Default)]
pub struct Failures {
    recent: VecDeque<(i64, Site)>,
}

impl Failures {
    /// Whether `site` may try at `now_s`.
    pub fn may_try(&mut self, site: Site, now_s: i64) -> bool {
        self.recent.retain(|(at_s, _)| (0..SPAN_S).contains(&(now_s - at_s)));
        let of_site = self.recent.iter().filter(|(_, other)| *other == site).count();
        of_site < PER_SITE && self.recent.len() < OVERALL
    }

    /// `site` failed at `now_s`.
    pub fn note(&mut self, site: Site, now_s: i64) {
        if self.recent.len() < OVERALL {
            self.recent.push_back((now_s, site));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets `tries` fail, one after the other, and says how many were let through.
    #[track_caller]
    fn check(tries: &[(&str, i64)], let_through: usize) {
        let mut failures = Failures::default();
        let passed = tries.iter().filter(|(address, at_s)| {
            let site = Site::from(address.parse::<IpAddr>().unwrap());
            let may = failures.may_try(site, *at_s);
            if may {
                failures.note(site, *at_s);
            }
            may
        });
        assert_eq!(passed.count(), let_through);
    }

    #[test]
    fn a_site_may_fail_five_times_a_minute() {
        check(&[("45.67.0.1", 0); 9], 5);
        check(&[("2001:db8::1", 0), ("2001:db8::2", 0), ("2001:db8::3", 0)].repeat(3), 5);
        check(&[[("45.67.0.1", 0); 9], [("45.67.0.1", 60); 9]].concat(), 10);
    }

    #[test]
    fn an_ipv4_address_is_the_same_site_however_it_is_written() {
        check(&[("45.67.0.1", 0), ("::ffff:45.67.0.1", 0)].repeat(4), 5);
    }

    #[test]
    fn all_together_may_fail_a_hundred_times_a_minute() {
        let addresses: Vec<String> = (0..200).map(|number| format!("45.67.0.{number}")).collect();
        let tries: Vec<(&str, i64)> = addresses.iter().map(|address| (address.as_str(), 0)).collect();
        check(&tries, 100);
    }

    #[test]
    fn a_clock_set_back_does_not_lock_anybody_out() {
        check(&[[("45.67.0.1", 1_000); 9], [("45.67.0.1", 0); 9]].concat(), 10);
    }
}
