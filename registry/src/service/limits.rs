//! Limits failed claims, requests of members, and nodes that join by published invitations; knows nothing of
//! what a token is.

use crate::clock::UnixSeconds;
use policies::names::Prefix;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

/// Largest number of failed claims from one network within [`SPAN_S`].
pub const MAX_PER_NETWORK: usize = 5;

/// Number of failed claims from all networks together within [`SPAN_S`], after which each network has only one
/// attempt.
pub const MAX_FAILED_CLAIMS: usize = 100;

/// Length of the interval in which failures and requests are counted, in seconds.
pub const SPAN_S: i64 = 60;

/// The network from which a request came: one IPv4 address, or one /64 of IPv6.
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

/// A count that restarts at zero after an interval.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    started_at: UnixSeconds,
    count: usize,
}

impl Count {
    fn is_outdated(self, span_s: i64, now: UnixSeconds) -> bool {
        // A clock that was set back must not lock out any network.
        !(0..span_s).contains(&now.seconds_since(self.started_at))
    }

    fn so_far(self, span_s: i64, now: UnixSeconds) -> usize {
        if self.is_outdated(span_s, now) {
            0
        } else {
            self.count
        }
    }

    fn note(&mut self, span_s: i64, now: UnixSeconds) {
        if self.is_outdated(span_s, now) {
            *self = Self {
                started_at: now,
                count: 0,
            };
        }
        self.count += 1;
    }
}

/// Counts by key, each over an interval of `SPAN_S` seconds; at most [`MAX_KEYS`] of them.
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
            self.0.retain(|_, count| !count.is_outdated(SPAN_S, now));
        }
        if self.0.len() >= MAX_KEYS {
            // A few more guesses do less harm than a registry that rejects everybody.
            self.0.clear();
        }
        self.0.entry(key).or_default().note(SPAN_S, now);
    }
}

/// Largest number of networks or nodes that are counted separately.
const MAX_KEYS: usize = 65_536;

/// Counts the failed claims of the last minute.
///
/// After too many failures from all networks together, each network still has one attempt. So an attacker with
/// a thousand networks cannot lock out the holder of a valid token.
#[derive(Clone, Debug, Default)]
pub struct FailedClaimLimit {
    sites: Counts<SourceNetwork, SPAN_S>,
    all: Count,
    off: bool,
}

impl FailedClaimLimit {
    /// Allows every attempt, for measurements.
    pub fn off() -> Self {
        Self {
            off: true,
            ..Self::default()
        }
    }

    /// Returns whether `site` may attempt a claim at `now`.
    pub fn can_try(&mut self, site: SourceNetwork, now: UnixSeconds) -> bool {
        let max = if self.all.so_far(SPAN_S, now) < MAX_FAILED_CLAIMS {
            MAX_PER_NETWORK
        } else {
            1
        };
        self.off || self.sites.so_far(&site, now) < max
    }

    /// Counts a failed claim from `site`.
    pub fn note(&mut self, site: SourceNetwork, now: UnixSeconds) {
        self.sites.note(site, now);
        self.all.note(SPAN_S, now);
    }
}

/// Largest number of bootstrap requests of one member within [`SPAN_S`].
pub const MAX_BOOTSTRAP_REQUESTS: usize = 60;

/// Largest number of announcements of one member within [`SPAN_S`].
pub const MAX_ANNOUNCEMENTS: usize = 60;

/// The length of an hour, in seconds.
const HOUR_S: i64 = 3_600;

/// Largest number of nodes that join by published invitations from one network within an hour.
pub const MAX_STRANGERS: usize = 3;

/// Counts the requests of members within the last minute, and the nodes that joined by published invitations
/// within the last hour.
#[derive(Clone, Debug, Default)]
pub struct RequestLimits {
    bootstraps: Counts<Prefix, SPAN_S>,
    announcements: Counts<Prefix, SPAN_S>,
    strangers: Counts<SourceNetwork, HOUR_S>,
    off: bool,
}

impl RequestLimits {
    /// Allows every request, for measurements.
    pub fn off() -> Self {
        Self {
            off: true,
            ..Self::default()
        }
    }

    /// Counts a bootstrap request; returns false if it exceeds the limit.
    pub fn allow_bootstrap(&mut self, prefix: Prefix, now: UnixSeconds) -> bool {
        self.off || Self::count(&mut self.bootstraps, prefix, now, MAX_BOOTSTRAP_REQUESTS)
    }

    /// Counts an announcement; returns false if it exceeds the limit.
    pub fn allow_announcement(&mut self, prefix: Prefix, now: UnixSeconds) -> bool {
        self.off || Self::count(&mut self.announcements, prefix, now, MAX_ANNOUNCEMENTS)
    }

    /// Returns whether a node from `site` may join by a published invitation.
    pub fn can_join(&self, site: SourceNetwork, now: UnixSeconds) -> bool {
        self.off || self.strangers.so_far(&site, now) < MAX_STRANGERS
    }

    /// Counts a node that joined from `site` by a published invitation.
    pub fn note_joined(&mut self, site: SourceNetwork, now: UnixSeconds) {
        self.strangers.note(site, now);
    }

    fn count(
        minutes: &mut Counts<Prefix, SPAN_S>,
        prefix: Prefix,
        now: UnixSeconds,
        max: usize,
    ) -> bool {
        let is_allowed = minutes.so_far(&prefix, now) < max;
        if is_allowed {
            minutes.note(prefix, now);
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets claims from `attempts` (address, time in seconds) fail in a row, and compares how many were allowed.
    #[track_caller]
    fn check(attempts: &[(&str, i64)], expected: usize) {
        let mut failed_claims = FailedClaimLimit::default();
        let allowed = attempts.iter().filter(|(address, at)| {
            let site = SourceNetwork::from(address.parse::<IpAddr>().unwrap());
            let at = UnixSeconds(*at);
            let is_allowed = failed_claims.can_try(site, at);
            if is_allowed {
                failed_claims.note(site, at);
            }
            is_allowed
        });
        assert_eq!(allowed.count(), expected);
    }

    #[test]
    fn a_network_has_five_failed_claims_a_minute() {
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
    fn an_ipv4_mapped_address_is_the_same_network_as_its_ipv4_address() {
        check(&[("45.67.0.1", 0), ("::ffff:45.67.0.1", 0)].repeat(4), 5);
    }

    #[test]
    fn after_a_hundred_failed_claims_each_network_has_one_attempt() {
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
    fn a_clock_that_is_set_back_locks_out_no_network() {
        check(
            &[[("45.67.0.1", 1_000); 9], [("45.67.0.1", 0); 9]].concat(),
            10,
        );
    }
}
