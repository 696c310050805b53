//! The state of one tunnel, as the prober sees it.

use super::*;

/// One tunnel under probe.
pub(super) struct Tunnel {
    pub(super) peer: Prefix,
    /// The time at which it came up, which distinguishes it from a later tunnel on the same slot.
    pub(super) up_since: Option<Uptime>,
    pub(super) address: Ipv6Addr,
    /// The index of the link; read again after a failure.
    pub(super) link: Option<u32>,
    pub(super) probing: Probing,
    pub(super) sent: Option<Uptime>,
    pub(super) answered: Option<Uptime>,
    pub(super) rumour: Option<Uptime>,
    pub(super) ordered: Option<Uptime>,
    /// The time at which we drained this tunnel, or the peer announced a drain.
    pub(super) drains: Option<Uptime>,
}

impl Tunnel {
    pub(super) fn new(reading: &LinkReading, pace: ProbePace, now: Uptime) -> Self {
        let (peer, up_since) = (reading.tunnel.peer, reading.tunnel.up_since);
        let link = link_index(reading.tunnel.slot);
        Self {
            peer,
            up_since,
            address: link_local(peer),
            link,
            probing: Probing::new(pace, now),
            sent: None,
            answered: None,
            rumour: None,
            ordered: None,
            drains: None,
        }
    }

    /// Whether either end is about to close this tunnel.
    pub(super) fn drains(&self, now: Uptime) -> bool {
        self.drains
            .is_some_and(|since| now.since(since) < DRAINS_FOR)
    }

    /// Returns whether a verdict may be due at any moment.
    pub(super) fn alert(&self, now: Uptime) -> bool {
        let overdue =
            self.sent > self.answered && self.sent.is_some_and(|sent| now.since(sent) >= OVERDUE);
        overdue && self.probing.is_busy(now)
            || self.rumour.is_some_and(|since| now.since(since) < ALERT)
    }
}
