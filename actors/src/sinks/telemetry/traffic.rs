//! What each tunnel carried, from complete readings of link counters.
//!
//! A slot's counters go on from tunnel to tunnel; a tunnel's own begin at 0 when it is opened. Sums by
//! role are taken over slots, not tunnels, so that a tunnel's last bytes stay in them.

use crate::messages::{LinksSampled, TunnelClosed, TunnelOpened};
use policies::{
    names::{Prefix, Role, Slot},
    observation::{LinkCounters, Phase, TunnelReading},
    units::Uptime,
};
use std::{collections::BTreeMap, time::Duration};

/// A closed tunnel is shown this long, so that two scrapes 15 s apart see its last bytes.
pub const SHOWN_AFTER_CLOSE: Duration = Duration::from_secs(30);

/// Rates are smoothed over this time.
const SMOOTHING_S: f64 = 5.0;

/// One tunnel and what it carried.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// As last read.
    pub tunnel: TunnelReading,
    /// The time at which the tunnel closed.
    pub closed: Option<Uptime>,
    /// Frames through this tunnel since it was opened.
    pub carried: LinkCounters,
    /// Bytes per second received, smoothed.
    pub rx_rate: f64,
    /// Bytes per second sent, smoothed.
    pub tx_rate: f64,
    read: Option<Uptime>,
}

impl Row {
    fn new(tunnel: TunnelReading) -> Self {
        let carried = LinkCounters::default();
        Self {
            tunnel,
            closed: None,
            carried,
            rx_rate: 0.0,
            tx_rate: 0.0,
            read: None,
        }
    }

    /// Returns whether frames pass.
    pub fn carries(&self) -> bool {
        self.closed.is_none() && matches!(self.tunnel.phase, Phase::Up | Phase::Draining { .. })
    }

    fn grow(&mut self, by: LinkCounters, at: Uptime) {
        self.carried = sum(self.carried, by);
        if let Some(read) = self.read.replace(at) {
            let span = at.since(read).as_secs_f64();
            if span > 0.0 {
                let weight = 1.0 - (-span / SMOOTHING_S).exp();
                self.rx_rate += (float(by.rx_bytes) / span - self.rx_rate) * weight;
                self.tx_rate += (float(by.tx_bytes) / span - self.tx_rate) * weight;
            }
        }
    }
}

/// The traffic of a slot in all its tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    last: LinkCounters,
    all: LinkCounters,
}

impl Total {
    /// Takes a reading, and returns the growth since the last one. A recreated link counts from 0.
    fn read(&mut self, now: LinkCounters) -> LinkCounters {
        let grown = now.since(self.last).unwrap_or(now);
        self.last = now;
        self.all = sum(self.all, grown);
        grown
    }
}

/// The rows of all tunnels.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    live: BTreeMap<Slot, Row>,
    closed: Vec<Row>,
    totals: BTreeMap<Slot, Total>,
}

impl Rows {
    /// Tunnels that exist, by slot.
    pub fn live(&self) -> impl Iterator<Item = &Row> {
        self.live.values()
    }

    /// Tunnels that exist, then those closed less than [`SHOWN_AFTER_CLOSE`] ago.
    pub fn all(&self) -> impl Iterator<Item = &Row> {
        self.live.values().chain(&self.closed)
    }

    /// Who is at the other end of a slot.
    pub fn peer(&self, slot: Slot) -> Option<Prefix> {
        self.live.get(&slot).map(|row| row.tunnel.peer)
    }

    /// All that slots of a role carried since they were made.
    pub fn total(&self, role: Role) -> LinkCounters {
        let of_role = self.totals.iter().filter(|(slot, _)| slot.role() == role);
        of_role.fold(LinkCounters::default(), |all, (_, total)| {
            sum(all, total.all)
        })
    }

    /// Takes a complete reading: tunnels that are not in it are closed.
    pub fn sampled(&mut self, reading: LinksSampled) {
        let at = reading.at;
        let mut before = std::mem::take(&mut self.live);
        for link in reading.links {
            let slot = link.tunnel.slot;
            if self.closed_after(slot, link.tunnel.peer, at) {
                continue;
            }
            let same = |row: &Row| row.tunnel.peer == link.tunnel.peer;
            let row = match before.remove(&slot) {
                Some(row) if same(&row) => row,
                other => {
                    self.retire(other, at);
                    Row::new(link.tunnel.clone())
                }
            };
            let grown = self.totals.entry(slot).or_default().read(link.counters);
            self.begin(Row {
                tunnel: link.tunnel,
                ..row
            })
            .grow(grown, at);
        }
        before
            .into_values()
            .for_each(|row| self.retire(Some(row), at));
        self.closed.retain(|row| {
            row.closed
                .is_some_and(|closed| at.since(closed) < SHOWN_AFTER_CLOSE)
        });
    }

    /// Takes note of an opened tunnel: its counters start at 0, even if the same peer was there
    /// before.
    pub fn opened(&mut self, fact: &TunnelOpened) {
        let (slot, peer, since) = (fact.slot, fact.peer, fact.at);
        let closed = self.live.remove(&slot);
        self.retire(closed, since);
        let phase = Phase::Connecting;
        let tunnel = TunnelReading {
            slot,
            peer,
            phase,
            since,
            up_since: None,
            endpoint: None,
        };
        self.begin(Row::new(tunnel));
    }

    /// Takes note of a closed tunnel, and returns its traffic. A reading taken before the close
    /// comes too late.
    pub fn closed(&mut self, fact: &TunnelClosed) -> Option<LinkCounters> {
        let row = self
            .live
            .remove(&fact.slot)
            .filter(|row| row.tunnel.peer == fact.peer)?;
        let carried = row.carried;
        self.retire(Some(row), fact.at);
        Some(carried)
    }

    /// Whether this tunnel's end is already known to lie after `at`.
    fn closed_after(&self, slot: Slot, peer: Prefix, at: Uptime) -> bool {
        let same = |row: &&Row| row.tunnel.slot == slot && row.tunnel.peer == peer;
        self.closed
            .iter()
            .filter(same)
            .any(|row| row.closed.is_some_and(|closed| at <= closed))
    }

    /// Enters a row; a closed tunnel with the same peer on the same slot would be the same series.
    fn begin(&mut self, row: Row) -> &mut Row {
        let slot = row.tunnel.slot;
        self.closed
            .retain(|old| old.tunnel.slot != slot || old.tunnel.peer != row.tunnel.peer);
        self.live.entry(slot).insert_entry(row).into_mut()
    }

    fn retire(&mut self, row: Option<Row>, at: Uptime) {
        let Some(row) = row else { return };
        self.closed
            .retain(|old| old.tunnel.slot != row.tunnel.slot || old.tunnel.peer != row.tunnel.peer);
        self.closed.push(Row {
            closed: Some(at),
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
    }
}

/// The nearest floating-point number.
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
                    row.closed.is_some(),
                )
            })
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_tunnel_counts_from_its_own_begin_and_the_sum_keeps_all() {
        let mut rows = Rows::default();
        rows.sampled(sample(1, &[(SLOT, 7, 100)]));
        rows.sampled(sample(2, &[(SLOT, 7, 300)]));
        rows.sampled(sample(3, &[(SLOT, 8, 350)]));
        check(&rows, &[(8, 50, false), (7, 300, true)]);
        assert_eq!(rows.total(Role::Dialled).rx_bytes, 350);
        assert_eq!(rows.total(Role::Accepted).rx_bytes, 0);
    }

    #[test]
    fn a_closed_tunnel_is_shown_for_half_a_minute() {
        let mut rows = Rows::default();
        rows.sampled(sample(1, &[(SLOT, 7, 100)]));
        assert_eq!(rows.closed(&closed(2, 7)).unwrap().rx_bytes, 100);
        rows.sampled(sample(31, &[]));
        check(&rows, &[(7, 100, true)]);
        rows.sampled(sample(32, &[]));
        check(&rows, &[]);
        assert_eq!(rows.total(Role::Dialled).rx_bytes, 100);
    }

    #[test]
    fn a_reading_taken_before_the_end_does_not_bring_the_tunnel_back() {
        let mut rows = Rows::default();
        rows.sampled(sample(1, &[(SLOT, 7, 100)]));
        rows.closed(&closed(3, 7));
        rows.sampled(sample(2, &[(SLOT, 7, 120)]));
        check(&rows, &[(7, 100, true)]);
    }

    #[test]
    fn the_same_peer_on_the_same_slot_is_one_series_that_starts_again() {
        let mut rows = Rows::default();
        rows.sampled(sample(1, &[(SLOT, 7, 100)]));
        rows.closed(&closed(2, 7));
        rows.opened(&TunnelOpened {
            at: Uptime::from_secs(3),
            slot: SLOT,
            peer: peer(7),
        });
        check(&rows, &[(7, 0, false)]);
        rows.sampled(sample(4, &[(SLOT, 7, 130)]));
        check(&rows, &[(7, 30, false)]);
    }

    #[test]
    fn a_recreated_link_counts_from_zero_and_loses_nothing() {
        let mut rows = Rows::default();
        rows.sampled(sample(1, &[(SLOT, 7, 100)]));
        rows.sampled(sample(2, &[(SLOT, 7, 30)]));
        check(&rows, &[(7, 130, false)]);
        assert_eq!(rows.total(Role::Dialled).rx_bytes, 130);
    }

    #[test]
    fn a_steady_flow_has_its_rate() {
        let mut rows = Rows::default();
        for second in 0..60 {
            rows.sampled(sample(second, &[(SLOT, 7, second * 1_000)]));
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
