//! Slows down who guesses tokens; knows nothing of what a token is.

use crate::clock::UnixSeconds;
use policies::names::Prefix;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

/// FailedClaimLimit that one site may have within [`SPAN_S`].
pub const MAX_PER_NETWORK: usize = 5;

/// FailedClaimLimit that all together may have within [`SPAN_S`] before each site has one try left.
pub const OVERALL: usize = 100;

/// Seconds after which a failure is forgotten.
pub const SPAN_S: i64 = 60;

/// Where a request came from: one IPv4 address, or one /64 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceNetwork(Ipv6Addr);

impl From<IpAddr> for SourceNetwork {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.to_ipv6_mapped()),
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        }
    }
}

/// A count that restarts after a span.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    started_at: UnixSeconds,
    count: usize,
}

impl Count {
    fn is_over(self, span_s: i64, now: UnixSeconds) -> bool {
        // A clock that was set back must not lock anybody out.
        !(0..span_s).contains(&now.seconds_since(self.started_at))
    }

    fn so_far(self, span_s: i64, now: UnixSeconds) -> usize {
        if self.is_over(span_s, now) {
            0
        } else {
            self.count
        }
    }

    fn note(&mut self, span_s: i64, now: UnixSeconds) {
        if self.is_over(span_s, now) {
            *self = Self {
                started_at: now,
                count: 0,
            };
        }
        self.count += 1;
    }
}

/// Counts by key, each for `SPAN_S` seconds, and never more than [`MAX_KEYS`].
#[derive(Clone, Debug)]
struct Counts<K, const SPAN_S: i64>(BTreeMap<K, Count>);

impl<K, const SPAN_S: i64> Default for Counts<K, SPAN_S> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, const SPAN_S: i64> Counts<K, SPAN_S> {
    fn so_far(&self, key: &K, now: UnixSeconds) -> usize {
        self.0.get(key).map_or(0, |count| count.so_far(SPAN_S, now))
    }

    fn note(&mut self, key: K, now: UnixSeconds) {
        if self.0.len() >= MAX_KEYS {
            self.0.retain(|_, count| !count.is_over(SPAN_S, now));
        }
        if self.0.len() >= MAX_KEYS {
            // Rather let somebody guess once more than shut out everybody.
            self.0.clear();
        }
        self.0.entry(key).or_default().note(SPAN_S, now);
    }
}

/// Most sites or nodes that are counted separately.
const MAX_KEYS: usize = 65_536;

/// The failures of the last minute.
///
/// Where all together have failed too often, each site still has one try: who guesses from a
/// thousand networks must not shut out who holds a good token.
#[derive(Clone, Debug, Default)]
pub struct FailedClaimLimit {
    sites: Counts<SourceNetwork, SPAN_S>,
    all: Count,
    off: bool,
}

impl FailedClaimLimit {
    /// Lets everybody try, for measurements.
    pub fn off() -> Self {
        Self {
            off: true,
            ..Self::default()
        }
    }

    /// Returns whether `site` may try at `now`.
    pub fn can_try(&mut self, site: SourceNetwork, now: UnixSeconds) -> bool {
        let most = if self.all.so_far(SPAN_S, now) < OVERALL {
            MAX_PER_NETWORK
        } else {
            1
        };
        self.off || self.sites.so_far(&site, now) < most
    }

    /// `site` failed at `now`.
    pub fn note(&mut self, site: SourceNetwork, now: UnixSeconds) {
        self.sites.note(site, now);
        self.all.note(SPAN_S, now);
    }
}

/// Questions for nodes that one member may ask within [`SPAN_S`].
pub const BOOTSTRAPS: usize = 60;

/// Announcements that one member may make within [`SPAN_S`].
pub const ANNOUNCEMENTS: usize = 60;

/// The length of an hour, in seconds.
const HOUR_S: i64 = 3_600;

/// TooManyFromNetwork from one site who may join within an hour, by an invitation that is known to everybody.
pub const STRANGERS: usize = 3;

/// What members asked within the last minute, and who joined within the hour.
#[derive(Clone, Debug, Default)]
pub struct RequestLimits {
    bootstraps: Counts<Prefix, SPAN_S>,
    announcements: Counts<Prefix, SPAN_S>,
    strangers: Counts<SourceNetwork, HOUR_S>,
    off: bool,
}

impl RequestLimits {
    /// Lets everybody ask, for measurements.
    pub fn off() -> Self {
        Self {
            off: true,
            ..Self::default()
        }
    }

    /// Counts a question for nodes; false where it is one too many.
    pub fn bootstrap(&mut self, prefix: Prefix, now: UnixSeconds) -> bool {
        self.off || Self::count(&mut self.bootstraps, prefix, now, BOOTSTRAPS)
    }

    /// Counts an announcement; false where it is one too many.
    pub fn announcement(&mut self, prefix: Prefix, now: UnixSeconds) -> bool {
        self.off || Self::count(&mut self.announcements, prefix, now, ANNOUNCEMENTS)
    }

    /// Returns whether a newcomer from `site` may join by a public invitation.
    pub fn can_join(&self, site: SourceNetwork, now: UnixSeconds) -> bool {
        self.off || self.strangers.so_far(&site, now) < STRANGERS
    }

    /// A stranger from `site` has joined.
    pub fn joined(&mut self, site: SourceNetwork, now: UnixSeconds) {
        self.strangers.note(site, now);
    }

    fn count(
        minutes: &mut Counts<Prefix, SPAN_S>,
        prefix: Prefix,
        now: UnixSeconds,
        most: usize,
    ) -> bool {
        let may = minutes.so_far(&prefix, now) < most;
        if may {
            minutes.note(prefix, now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets `tries` fail in a row, and returns how many were allowed.
    #[track_caller]
    fn check(tries: &[(&str, i64)], let_through: usize) {
        let mut failures = FailedClaimLimit::default();
        let passed = tries.iter().filter(|(address, at)| {
            let site = SourceNetwork::from(address.parse::<IpAddr>().unwrap());
            let at = UnixSeconds(*at);
            let may = failures.can_try(site, at);
            if may {
                failures.note(site, at);
            }
            may
        });
        assert_eq!(passed.count(), let_through);
    }

    #[test]
    fn a_site_may_fail_five_times_a_minute() {
        check(&[("45.67.0.1", 0); 9], 5);
        check(
            &[("2001:db8::1", 0), ("2001:db8::2", 0), ("2001:db8::3", 0)].repeat(3),
            5,
        );
        check(
            &[[("45.67.0.1", 0); 9], [("45.67.0.1", 60); 9]].concat(),
            10,
        );
    }

    #[test]
    fn an_ipv4_address_is_the_same_site_however_it_is_written() {
        check(&[("45.67.0.1", 0), ("::ffff:45.67.0.1", 0)].repeat(4), 5);
    }

    #[test]
    fn where_a_hundred_have_failed_each_site_has_one_try() {
        let addresses: Vec<String> = (0..200).map(|number| format!("45.67.0.{number}")).collect();
        let tries: Vec<(&str, i64)> = addresses
            .iter()
            .map(|address| (address.as_str(), 0))
            .collect();
        check(&tries, 200);
        check(&tries.repeat(5), 200);
        check(
            &[
                [("45.67.1.1", 0); 5].as_slice(),
                &tries[..95],
                &tries[95..].repeat(2),
            ]
            .concat(),
            205,
        );
    }

    #[test]
    fn a_clock_set_back_does_not_lock_anybody_out() {
        check(
            &[[("45.67.0.1", 1_000); 9], [("45.67.0.1", 0); 9]].concat(),
            10,
        );
    }
}
