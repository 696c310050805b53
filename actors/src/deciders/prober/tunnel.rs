//! The state that the prober keeps of each tunnel.

use super::*;
use policies::{
    names::{Endpoint, Role, Transport},
    observation::{TunnelIdentity, TunnelReading},
    path_mtu::{FullSize, PathMtu},
};

/// A tunnel that is up, and so is probed.
pub(super) struct Tunnel {
    pub(super) peer: Prefix,
    role: Role,
    /// Whether one of the two nodes is metered.
    pub(super) is_metered: bool,
    /// When it came up; this distinguishes it from a later tunnel to the same peer on the same slot.
    pub(super) up_since: Option<Uptime>,
    /// The link-local address of the peer.
    pub(super) address: Ipv6Addr,
    /// The index of the link; `None` after a probe could not be sent, until the index is read again.
    pub(super) link: Option<u32>,
    pub(super) probing: Probing,
    /// Where the peer is reached; `None` while that is unknown.
    pub(super) endpoint: Option<Endpoint>,
    pub(super) path_mtu: PathMtu,
    /// Whether the MTU of the path was reduced.
    pub(super) is_path_reduced: bool,
    /// What was last known of full-size packets.
    pub(super) reported_full_size: FullSize,
    /// When the last probe was sent.
    pub(super) sent_at: Option<Uptime>,
    /// When the last answer arrived.
    pub(super) answered_at: Option<Uptime>,
    /// When this tunnel was last probed because of a received suspicion.
    pub(super) suspected_at: Option<Uptime>,
    /// When the close of this tunnel was last ordered.
    pub(super) close_ordered_at: Option<Uptime>,
    /// When it was last seen that this node drains the tunnel, or that the peer announced a drain.
    pub(super) drain_seen_at: Option<Uptime>,
}

impl Tunnel {
    pub(super) fn new(reading: &LinkReading, settings: &ProberSettings, now: Uptime) -> Self {
        let (peer, up_since) = (reading.tunnel.peer, reading.tunnel.up_since);
        let link = link_index(reading.tunnel.slot);
        let (role, is_metered) = (reading.tunnel.role(), settings.is_metered);
        let pace = pace(settings.pace, role, is_metered);
        Self {
            peer,
            role,
            is_metered,
            up_since,
            address: link_local(peer),
            link,
            probing: Probing::new(pace, now),
            endpoint: reading.tunnel.endpoint,
            path_mtu: path_mtu(reading.tunnel.endpoint, now),
            is_path_reduced: false,
            reported_full_size: FullSize::Unknown,
            sent_at: None,
            answered_at: None,
            suspected_at: None,
            close_ordered_at: None,
            drain_seen_at: None,
        }
    }

    /// Returns what distinguishes this tunnel from another one on its slot.
    pub(super) fn identity(&self) -> TunnelIdentity {
        TunnelIdentity {
            peer: self.peer,
            up_since: self.up_since,
        }
    }

    /// Returns whether this is the tunnel of a reading, and not an earlier one on its slot.
    pub(super) fn is_of(&self, reading: &TunnelReading) -> bool {
        self.identity() == reading.identity()
    }

    /// Returns whether the table still has this tunnel on the slot.
    pub(super) fn is_in(&self, table: &TunnelTable, slot: Slot) -> bool {
        let reading = table.tunnels.get(&slot);
        reading.is_some_and(|reading| self.is_of(reading))
    }

    /// Returns the role of this node, with all probes since the tunnel came up.
    pub(super) fn totals(&self) -> (Role, &ProbeTotals) {
        (self.role, self.probing.totals())
    }

    /// Returns the role of this node, with all probes of a tunnel that has closed.
    pub(super) fn into_totals(self, now: Uptime) -> (Role, ProbeTotals) {
        (self.role, self.probing.into_totals(now))
    }

    /// Checks the path again if the peer has another endpoint now.
    pub(super) fn set_endpoint(&mut self, endpoint: Option<Endpoint>, now: Uptime) {
        if self.endpoint != endpoint {
            self.endpoint = endpoint;
            self.path_mtu = path_mtu(endpoint, now);
            self.is_path_reduced = false;
        }
    }

    /// Probes at this pace of the network from now on, or less often if the tunnel allows it.
    pub(super) fn set_pace(&mut self, network: ProbePace) {
        self.probing
            .set_pace(pace(network, self.role, self.is_metered));
    }

    /// Takes note that the peer is metered.
    pub(super) fn mark_metered(&mut self, network: ProbePace) {
        self.is_metered = true;
        self.set_pace(network);
    }

    /// Returns whether either end drains this tunnel, and so is about to close it.
    pub(super) fn is_draining(&self, now: Uptime) -> bool {
        self.drain_seen_at
            .is_some_and(|seen_at| now.since(seen_at) < DRAIN_LIFETIME)
    }

    /// Returns whether the peer may be judged suspect or dead at any moment, so that it is judged every
    /// [`WATCH_INTERVAL`].
    pub(super) fn is_watched(&self, now: Uptime) -> bool {
        let is_overdue = self.sent_at > self.answered_at
            && self
                .sent_at
                .is_some_and(|sent_at| now.since(sent_at) >= ANSWER_OVERDUE_AFTER);
        let is_suspected = self
            .suspected_at
            .is_some_and(|suspected_at| now.since(suspected_at) < WATCH_TIME);
        (is_overdue && self.probing.is_busy(now)) || is_suspected
    }
}

/// Starts to check the path to an endpoint.
fn path_mtu(endpoint: Option<Endpoint>, now: Uptime) -> PathMtu {
    let transport = endpoint.map_or(Transport::Udp, |endpoint| endpoint.transport);
    PathMtu::new(transport, now)
}

/// Returns the pace of one tunnel.
fn pace(network: ProbePace, role: Role, is_metered: bool) -> ProbePace {
    let pace = match role {
        Role::Dialled => network,
        Role::Accepted => network.accepted(),
    };
    if is_metered { pace.metered() } else { pace }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::{observation::LinkCounters, parameters::Parameters};

    #[test]
    fn a_client_that_connects_again_has_another_tunnel_on_the_slot_at_once() {
        let up = |up_since| TunnelReading {
            slot: Slot::Accepting(Transport::Udp, 3),
            peer: "2/16".parse().expect("a prefix"),
            phase: Phase::Up,
            since: Uptime::default(),
            up_since,
            endpoint: None,
        };
        let tunnel = up(Some(Uptime::default()));
        let slot = tunnel.slot;
        let link = LinkReading {
            tunnel: tunnel.clone(),
            counters: LinkCounters::default(),
        };
        let settings = ProberSettings {
            me: "1/16".parse().expect("a prefix"),
            network: Network::new("fd00:42::/48".parse().expect("a range")).expect("a network"),
            pace: ProbePace::new(&Parameters::default(), 8),
            is_metered: false,
            openvpn_uid: 0,
        };
        let probed = Tunnel::new(&link, &settings, Uptime::default());
        let mut table = TunnelTable::default();
        assert!(!probed.is_in(&table, slot));
        table.tunnels.insert(slot, tunnel);
        assert!(probed.is_in(&table, slot));
        let again = TunnelReading {
            phase: Phase::Connecting,
            ..up(None)
        };
        table.tunnels.insert(slot, again);
        assert!(!probed.is_in(&table, slot));
    }
}
