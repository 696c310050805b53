//! What the prober knows of one tunnel.

use super::*;

/// One tunnel under probe.
pub(super) struct Tunnel {
    pub(super) peer: Prefix,
    /// When it came up: tells it from a later one on the same slot.
    pub(super) up_since: Option<Uptime>,
    pub(super) address: Ipv6Addr,
    /// The link's index; looked up anew after a failure.
    pub(super) link: Option<u32>,
    pub(super) probing: Probing,
    pub(super) sent: Option<Uptime>,
    pub(super) answered: Option<Uptime>,
    pub(super) rumour: Option<Uptime>,
    pub(super) ordered: Option<Uptime>,
    /// When we drained this tunnel, or the peer said that it does.
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
        self.drains.is_some_and(|said| now.since(said) < DRAINS_FOR)
    }

    /// Whether a verdict may fall at any moment.
    pub(super) fn alert(&self, now: Uptime) -> bool {
        let overdue =
            self.sent > self.answered && self.sent.is_some_and(|sent| now.since(sent) >= OVERDUE);
        overdue && self.probing.is_busy(now)
            || self.rumour.is_some_and(|heard| now.since(heard) < ALERT)
    }
}
