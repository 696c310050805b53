//! The traffic of each tunnel, computed from the counters of its link.
//!
//! The counters of a slot continue from one tunnel to the next; those of a tunnel start at 0 when it is opened.
//! Sums by role are computed from slots, not from tunnels, so that they include the last bytes of a tunnel.

use crate::messages::{LinksSampled, TunnelCameUp, TunnelClosed, TunnelOpened};
use policies::{
    names::{Prefix, Role, Slot, Transport},
    observation::{LinkCounters, Phase, TunnelReading},
    units::Uptime,
};
use std::{collections::BTreeMap, time::Duration};

/// Time for which a closed tunnel is still shown, so that two scrapes 15 s apart see its last bytes.
pub const SHOWN_AFTER_CLOSE: Duration = Duration::from_secs(30);

/// Time constant of the smoothing of rates, in seconds.
const SMOOTHING_S: f64 = 5.0;

/// One tunnel and its traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The tunnel, as last read.
    pub tunnel: TunnelReading,
    /// When the tunnel closed; `None` if it has not.
    pub closed_at: Option<Uptime>,
    /// The traffic of this tunnel since it was opened.
    pub carried: LinkCounters,
    /// The smoothed rate of received bytes per second.
    pub rx_rate: f64,
    /// The smoothed rate of sent bytes per second.
    pub tx_rate: f64,
    /// Number of times that the tunnel came up.
    times_up: u64,
    /// When the tunnel was opened.
    opened_at: Uptime,
    /// When the counters were last read.
    read_at: Option<Uptime>,
    /// When a reading last showed a frame that had been received.
    received_at: Option<Uptime>,
}

impl Row {
    fn new(tunnel: TunnelReading) -> Self {
        let carried = LinkCounters::default();
        Self {
            opened_at: tunnel.since,
            times_up: 0,
            tunnel,
            closed_at: None,
            carried,
            rx_rate: 0.0,
            tx_rate: 0.0,
            read_at: None,
            received_at: None,
        }
    }

    /// Returns whether the tunnel is up, so that frames pass. A draining tunnel is still up.
    pub fn is_up(&self) -> bool {
        self.closed_at.is_none() && matches!(self.tunnel.phase, Phase::Up | Phase::Draining { .. })
    }

    /// Returns the transport of the tunnel, by the slot of an accepted one and the endpoint of a dialled one.
    pub fn transport(&self) -> Option<Transport> {
        match self.tunnel.slot {
            Slot::Accepting(transport, _) => Some(transport),
            Slot::Dialling(_) => self.tunnel.endpoint.map(|endpoint| endpoint.transport),
        }
    }

    /// Returns how long no frame has been received, or the time since the tunnel came up if there was none.
    /// `None` if the tunnel is not up.
    pub fn silent_for(&self, now: Uptime) -> Option<Duration> {
        let up_since = self.tunnel.up_since.filter(|_| self.is_up())?;
        let last = self.received_at.map_or(up_since, |at| at.max(up_since));
        Some(now.since(last))
    }

    /// Returns how often the tunnel came up again, because OpenVPN was restarted at either end.
    pub fn reconnects(&self) -> u64 {
        self.times_up.saturating_sub(1)
    }

    /// Adds the traffic since the last reading, and updates the rates.
    fn add_traffic(&mut self, increase: LinkCounters, at: Uptime) {
        self.carried = sum(self.carried, increase);
        if increase.rx_packets > 0 {
            self.received_at = Some(at);
        }
        if let Some(last_read_at) = self.read_at.replace(at) {
            let seconds = at.since(last_read_at).as_secs_f64();
            if seconds > 0.0 {
                let weight = 1.0 - (-seconds / SMOOTHING_S).exp();
                self.rx_rate += (float(increase.rx_bytes) / seconds - self.rx_rate) * weight;
                self.tx_rate += (float(increase.tx_bytes) / seconds - self.tx_rate) * weight;
            }
        }
    }
}

/// How a tunnel came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CameUp {
    /// It came up for the first time.
    First {
        /// The time since it was opened.
        took: Duration,
    },
    /// It came up again.
    Again {
        /// How often that happened so far.
        times: u64,
    },
}

/// The traffic of all tunnels that a slot has had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SlotTraffic {
    last_reading: LinkCounters,
    total: LinkCounters,
}

impl SlotTraffic {
    /// Records a reading, and returns the increase since the last one. If the link was recreated, its counters
    /// have started at 0 again.
    fn add_reading(&mut self, reading: LinkCounters) -> LinkCounters {
        let increase = reading.since(self.last_reading).unwrap_or(reading);
        self.last_reading = reading;
        self.total = sum(self.total, increase);
        increase
    }
}

/// The rows of all tunnels.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    live: BTreeMap<Slot, Row>,
    /// The tunnels that closed less than [`SHOWN_AFTER_CLOSE`] ago.
    closed: Vec<Row>,
    slots: BTreeMap<Slot, SlotTraffic>,
}

impl Rows {
    /// Returns the tunnels that exist, by slot.
    pub fn live(&self) -> impl Iterator<Item = &Row> {
        self.live.values()
    }

    /// Returns the tunnels that exist, and then those that closed less than [`SHOWN_AFTER_CLOSE`] ago.
    pub fn all(&self) -> impl Iterator<Item = &Row> {
        self.live.values().chain(&self.closed)
    }

    /// Returns the peer of the tunnel on a slot.
    pub fn peer(&self, slot: Slot) -> Option<Prefix> {
        self.live.get(&slot).map(|row| row.tunnel.peer)
    }

    /// Returns the traffic of all slots of a role since the daemon started.
    pub fn total(&self, role: Role) -> LinkCounters {
        let of_role = self.slots.iter().filter(|(slot, _)| slot.role() == role);
        of_role.fold(LinkCounters::default(), |total, (_, traffic)| {
            sum(total, traffic.total)
        })
    }

    /// Records a reading of all tunnels; a tunnel that is not in it has closed.
    pub fn on_links_sampled(&mut self, reading: LinksSampled) {
        let at = reading.at;
        let mut before = std::mem::take(&mut self.live);
        for link in reading.links {
            let slot = link.tunnel.slot;
            if self.has_closed_since(slot, link.tunnel.peer, at) {
                continue;
            }
            let same = |row: &Row| row.tunnel.peer == link.tunnel.peer;
            let row = match before.remove(&slot) {
                Some(row) if same(&row) => row,
                other => {
                    self.move_to_closed(other, at);
                    Row::new(link.tunnel.clone())
                }
            };
            let increase = self
                .slots
                .entry(slot)
                .or_default()
                .add_reading(link.counters);
            self.insert_live(Row {
                tunnel: link.tunnel,
                ..row
            })
            .add_traffic(increase, at);
        }
        before
            .into_values()
            .for_each(|row| self.move_to_closed(Some(row), at));
        self.closed.retain(|row| {
            row.closed_at
                .is_some_and(|closed_at| at.since(closed_at) < SHOWN_AFTER_CLOSE)
        });
    }

    /// Adds an opened tunnel. Its counters start at 0, even if the slot's last tunnel had the same peer.
    pub fn on_tunnel_opened(&mut self, fact: &TunnelOpened) {
        let (slot, peer, since) = (fact.slot, fact.peer, fact.at);
        let closed = self.live.remove(&slot);
        self.move_to_closed(closed, since);
        let phase = match fact.is_up {
            true => Phase::Up,
            false => Phase::Connecting,
        };
        let tunnel = TunnelReading {
            slot,
            peer,
            phase,
            since,
            up_since: fact.is_up.then_some(since),
            endpoint: None,
        };
        self.insert_live(Row {
            times_up: u64::from(fact.is_up),
            ..Row::new(tunnel)
        });
    }

    /// Records that a tunnel came up; returns `None` if there is no such tunnel.
    pub(super) fn on_tunnel_up(&mut self, fact: &TunnelCameUp) -> Option<CameUp> {
        let row = self.live.get_mut(&fact.slot)?;
        if row.tunnel.peer != fact.peer {
            return None;
        }
        row.times_up = row.times_up.saturating_add(1);
        Some(match row.reconnects() {
            0 => CameUp::First {
                took: fact.at.since(row.opened_at),
            },
            times => CameUp::Again { times },
        })
    }

    /// Moves a closed tunnel to the closed ones, and returns its traffic. Readings that were taken before the close
    /// but arrive after it are ignored.
    pub fn on_tunnel_closed(&mut self, fact: &TunnelClosed) -> Option<LinkCounters> {
        let row = self
            .live
            .remove(&fact.slot)
            .filter(|row| row.tunnel.peer == fact.peer)?;
        let carried = row.carried;
        self.move_to_closed(Some(row), fact.at);
        Some(carried)
    }

    /// Returns whether this tunnel has closed at the time `at` or later.
    fn has_closed_since(&self, slot: Slot, peer: Prefix, at: Uptime) -> bool {
        let same = |row: &&Row| row.tunnel.slot == slot && row.tunnel.peer == peer;
        self.closed
            .iter()
            .filter(same)
            .any(|row| row.closed_at.is_some_and(|closed_at| at <= closed_at))
    }

    /// Adds a row of a tunnel that exists. Removes a closed tunnel with the same peer on the same slot, since both
    /// would have the same labels.
    fn insert_live(&mut self, row: Row) -> &mut Row {
        let slot = row.tunnel.slot;
        self.closed
            .retain(|old| old.tunnel.slot != slot || old.tunnel.peer != row.tunnel.peer);
        self.live.entry(slot).insert_entry(row).into_mut()
    }

    fn move_to_closed(&mut self, row: Option<Row>, at: Uptime) {
        let Some(row) = row else { return };
        self.closed
            .retain(|old| old.tunnel.slot != row.tunnel.slot || old.tunnel.peer != row.tunnel.peer);
        self.closed.push(Row {
            closed_at: Some(at),
            rx_rate: 0.0,
            tx_rate: 0.0,
            ..row
        });
    }
}

fn sum(a: LinkCounters, b: LinkCounters) -> LinkCounters {
    LinkCounters {
        rx_bytes: a.rx_bytes.saturating_add(b.rx_bytes),
        tx_bytes: a.tx_bytes.saturating_add(b.tx_bytes),
        rx_packets: a.rx_packets.saturating_add(b.rx_packets),
        tx_packets: a.tx_packets.saturating_add(b.tx_packets),
        rx_dropped: a.rx_dropped.saturating_add(b.rx_dropped),
        tx_dropped: a.tx_dropped.saturating_add(b.tx_dropped),
    }
}

/// Converts a number to the nearest floating-point number.
pub fn float(n: u64) -> f64 {
    let high = u32::try_from(n >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(n & 0xffff_ffff).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::{observation::LinkReading, orders::CloseReason};

    const SLOT: Slot = Slot::Dialling(0);

    fn peer(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    fn sample(seconds: u64, links: &[(Slot, u32, u64)]) -> LinksSampled {
        let at = Uptime::from_secs(seconds);
        let link = |&(slot, number, rx_bytes): &(Slot, u32, u64)| LinkReading {
            tunnel: TunnelReading {
                slot,
                peer: peer(number),
                phase: Phase::Up,
                since: at,
                up_since: Some(at),
                endpoint: None,
            },
            counters: LinkCounters {
                rx_bytes,
                ..LinkCounters::default()
            },
        };
        LinksSampled {
            at,
            links: links.iter().map(link).collect(),
            free_slots: vec![],
            was_reached: false,
        }
    }

    fn closed(seconds: u64, number: u32) -> TunnelClosed {
        TunnelClosed {
            at: Uptime::from_secs(seconds),
            slot: SLOT,
            peer: peer(number),
            decided_at: Uptime::from_secs(seconds),
            reason: CloseReason::Unused,
            lived: Duration::from_secs(1),
        }
    }

    /// Rows as (peer, bytes received, closed).
    #[track_caller]
    fn check(rows: &Rows, expected: &[(u32, u64, bool)]) {
        let seen: Vec<_> = rows
            .all()
            .map(|row| {
                (
                    row.tunnel.peer.number(),
                    row.carried.rx_bytes,
                    row.closed_at.is_some(),
                )
            })
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_tunnel_counts_from_its_start_and_the_total_includes_closed_tunnels() {
        let mut rows = Rows::default();
        rows.on_links_sampled(sample(1, &[(SLOT, 7, 100)]));
        rows.on_links_sampled(sample(2, &[(SLOT, 7, 300)]));
        rows.on_links_sampled(sample(3, &[(SLOT, 8, 350)]));
        check(&rows, &[(8, 50, false), (7, 300, true)]);
        assert_eq!(rows.total(Role::Dialled).rx_bytes, 350);
        assert_eq!(rows.total(Role::Accepted).rx_bytes, 0);
    }

    #[test]
    fn a_closed_tunnel_is_shown_for_half_a_minute() {
        let mut rows = Rows::default();
        rows.on_links_sampled(sample(1, &[(SLOT, 7, 100)]));
        assert_eq!(rows.on_tunnel_closed(&closed(2, 7)).unwrap().rx_bytes, 100);
        rows.on_links_sampled(sample(31, &[]));
        check(&rows, &[(7, 100, true)]);
        rows.on_links_sampled(sample(32, &[]));
        check(&rows, &[]);
        assert_eq!(rows.total(Role::Dialled).rx_bytes, 100);
    }

    #[test]
    fn a_reading_taken_before_the_close_does_not_bring_the_tunnel_back() {
        let mut rows = Rows::default();
        rows.on_links_sampled(sample(1, &[(SLOT, 7, 100)]));
        rows.on_tunnel_closed(&closed(3, 7));
        rows.on_links_sampled(sample(2, &[(SLOT, 7, 120)]));
        check(&rows, &[(7, 100, true)]);
    }

    #[test]
    fn a_new_tunnel_to_the_same_peer_on_the_same_slot_starts_at_zero() {
        let mut rows = Rows::default();
        rows.on_links_sampled(sample(1, &[(SLOT, 7, 100)]));
        rows.on_tunnel_closed(&closed(2, 7));
        rows.on_tunnel_opened(&TunnelOpened {
            at: Uptime::from_secs(3),
            is_up: false,
            slot: SLOT,
            peer: peer(7),
        });
        check(&rows, &[(7, 0, false)]);
        rows.on_links_sampled(sample(4, &[(SLOT, 7, 130)]));
        check(&rows, &[(7, 30, false)]);
    }

    #[test]
    fn a_tunnel_that_comes_up_again_is_a_reconnect_and_no_setup() {
        let mut rows = Rows::default();
        let (slot, peer) = (SLOT, peer(7));
        let up = |seconds| TunnelCameUp {
            at: Uptime::from_secs(seconds),
            slot,
            peer,
        };
        assert_eq!(rows.on_tunnel_up(&up(1)), None);
        let at = Uptime::from_secs(2);
        rows.on_tunnel_opened(&TunnelOpened {
            at,
            is_up: false,
            slot,
            peer,
        });
        rows.on_links_sampled(sample(3, &[(SLOT, 7, 0)]));
        let took = Duration::from_secs(3);
        assert_eq!(rows.on_tunnel_up(&up(5)), Some(CameUp::First { took }));
        assert_eq!(rows.on_tunnel_up(&up(9)), Some(CameUp::Again { times: 1 }));
        assert_eq!(rows.live().next().unwrap().reconnects(), 1);
    }

    #[test]
    fn a_tunnel_that_was_taken_over_has_its_age_and_was_up_before() {
        let mut rows = Rows::default();
        let (slot, peer, at) = (SLOT, peer(7), Uptime::from_secs(2));
        rows.on_tunnel_opened(&TunnelOpened {
            at,
            is_up: true,
            slot,
            peer,
        });
        let row = rows.live().next().unwrap();
        assert_eq!((row.is_up(), row.tunnel.up_since), (true, Some(at)));
        let at = Uptime::from_secs(9);
        let up = TunnelCameUp { at, slot, peer };
        assert_eq!(rows.on_tunnel_up(&up), Some(CameUp::Again { times: 1 }));
    }

    #[test]
    fn a_recreated_link_counts_from_zero_and_loses_nothing() {
        let mut rows = Rows::default();
        rows.on_links_sampled(sample(1, &[(SLOT, 7, 100)]));
        rows.on_links_sampled(sample(2, &[(SLOT, 7, 30)]));
        check(&rows, &[(7, 130, false)]);
        assert_eq!(rows.total(Role::Dialled).rx_bytes, 130);
    }

    #[test]
    fn a_steady_flow_has_its_rate() {
        let mut rows = Rows::default();
        for second in 0..60 {
            rows.on_links_sampled(sample(second, &[(SLOT, 7, second * 1_000)]));
        }
        let rate = rows.live().next().unwrap().rx_rate;
        assert!((rate - 1_000.0).abs() < 1.0, "{rate}");
    }

    #[test]
    fn numbers_become_the_nearest_float() {
        for (n, expected) in [
            (0, 0.0),
            (1 << 53, 9_007_199_254_740_992.0),
            (u64::MAX, 18_446_744_073_709_551_615.0),
        ] {
            assert_eq!(float(n), expected);
        }
    }
}
