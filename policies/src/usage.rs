//! Computes the payload that a tunnel carried from its counters.
//!
//! It takes the readings of one link, in order. Frames that are no payload are computed, not guessed: Babel's own
//! packets from its intervals ([`Floor`]), probes from the prober's count. The rest counts as payload if it is more
//! than [`SLACK_PACKETS_PER_SECOND`].

use crate::{
    observation::{LinkCounters, ProbeReading},
    parameters::Parameters,
    units::{BytesPerSec, Uptime},
};
use std::time::Duration;

/// Packets above the floor that do not count as payload yet: the peer's probes (4 per second while its end is busy),
/// neighbour discovery, Babel's requests and triggered updates.
pub const SLACK_PACKETS_PER_SECOND: u64 = 5;

/// Packets that may fall on either side of a window's edges.
const EDGE_PACKETS: u64 = 2;

/// Counters are compared over at least this span; in a shorter one a single hello would look like a rate.
const MIN_WINDOW: Duration = Duration::from_millis(900);

/// Frame bytes of one probe, request or reply: Ethernet 14, IPv6 40, ICMPv6 8, data 8.
pub const PROBE_FRAME_BYTES: u64 = 70;

/// Babel's own traffic in one direction of a link, computed from its intervals.
///
/// A packet costs 66 bytes (Ethernet 14, IPv6 40, UDP 8, Babel 4). Inside it a hello with its time stamp takes 14
/// (RFC 8966, 4.6.5; RFC 9616), an IHU 26, a route with router id and next hop at most 44. A hello is sent every
/// interval, an IHU every third, and 30 routes fill a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// Packets in 1000 s.
    packets: u64,
    /// Frame bytes in 1000 s.
    bytes: u64,
}

impl Floor {
    /// The floor of a link over which routes to `routes` nodes are announced.
    pub fn new(parameters: &Parameters, routes: usize) -> Self {
        let per_1000_s = |interval: Duration| {
            let millis = u64::try_from(interval.as_millis())
                .unwrap_or(u64::MAX)
                .max(1);
            1_000_000 / millis
        };
        let families = if parameters.ipv4 { 2 } else { 1 };
        let routes = u64::try_from(routes)
            .unwrap_or(u64::MAX)
            .saturating_mul(families);
        let hellos = per_1000_s(parameters.hello_interval);
        let ihus = hellos.div_ceil(3);
        let updates = per_1000_s(parameters.update_interval);
        let update_packets = updates.saturating_mul(routes.div_ceil(30));
        let packets = hellos.saturating_add(ihus).saturating_add(update_packets);
        let contents = [
            hellos.saturating_mul(14),
            ihus * 26,
            updates.saturating_mul(routes.saturating_mul(44)),
        ];
        let bytes = contents
            .iter()
            .fold(packets.saturating_mul(66), |sum, part| {
                sum.saturating_add(*part)
            });
        Self { packets, bytes }
    }

    /// Most packets in `span` that are no payload, slack and edges included.
    pub fn packets(self, span: Duration) -> u64 {
        let slack = SLACK_PACKETS_PER_SECOND * 1000;
        scaled(self.packets.saturating_add(slack), span).saturating_add(EDGE_PACKETS)
    }

    /// Babel's bytes in `span`.
    pub fn bytes(self, span: Duration) -> u64 {
        scaled(self.bytes, span)
    }

    /// The payload among the frames of one direction in `span`, of which `probes` are probes; in frame bytes.
    fn payload(self, packets: u64, bytes: u64, probes: u64, span: Duration) -> u64 {
        if packets <= self.packets(span).saturating_add(probes) {
            return 0;
        }
        let probe_bytes = probes.saturating_mul(PROBE_FRAME_BYTES);
        bytes.saturating_sub(self.bytes(span).saturating_add(probe_bytes))
    }
}

/// The count in `span` of something that occurs `in_1000_s` times in 1000 s, rounded down.
fn scaled(in_1000_s: u64, span: Duration) -> u64 {
    u64::try_from(u128::from(in_1000_s) * span.as_millis() / 1_000_000).unwrap_or(u64::MAX)
}

/// Payload per direction, as seen from this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Payload received, in frame bytes.
    pub rx_bytes: u64,
    /// Payload sent, in frame bytes.
    pub tx_bytes: u64,
}

impl Traffic {
    /// The payload of both directions, in frame bytes.
    pub fn total(self) -> u64 {
        self.rx_bytes.saturating_add(self.tx_bytes)
    }
}

/// Frames that the prober counted on a link since the tunnel came up; they are not payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeFrames {
    /// Frames received: replies to our probes, and the peer's requests.
    pub rx: u64,
    /// Frames sent: our requests, and the kernel's replies.
    pub tx: u64,
}

impl From<&ProbeReading> for ProbeFrames {
    fn from(reading: &ProbeReading) -> Self {
        Self {
            rx: reading.rx_frames,
            tx: reading.tx_frames,
        }
    }
}

/// The payload that one tunnel carries.
#[derive(Clone, Debug)]
pub struct Usage {
    counters: LinkCounters,
    probes: ProbeFrames,
    read_at: Uptime,
    /// Payload since the last [`Usage::start_count`].
    carried: Traffic,
    count_started_at: Uptime,
    quiet_since: Option<Uptime>,
    rate: Option<BytesPerSec>,
}

impl Usage {
    /// Starts with the first reading; nothing before it counts.
    pub fn new(counters: LinkCounters, probes: ProbeFrames, now: Uptime) -> Self {
        Self {
            counters,
            probes,
            read_at: now,
            carried: Traffic::default(),
            count_started_at: now,
            quiet_since: None,
            rate: None,
        }
    }

    /// Takes the next reading; readings closer than 0.9 s are taken together.
    ///
    /// A counter that went down, since the link was recreated, gives no rate, and counting starts again.
    pub fn read(&mut self, counters: LinkCounters, probes: ProbeFrames, floor: Floor, now: Uptime) {
        let span = now.since(self.read_at);
        let grown = counters.since(self.counters);
        if span < MIN_WINDOW && grown.is_some() {
            return;
        }
        let last_read_at = std::mem::replace(&mut self.read_at, now);
        self.counters = counters;
        let last_probes = std::mem::replace(&mut self.probes, probes);
        let Some(grown) = grown else {
            self.rate = None;
            self.quiet_since = None;
            return;
        };
        let rx_probes = probes.rx.saturating_sub(last_probes.rx);
        let tx_probes = probes.tx.saturating_sub(last_probes.tx);
        let traffic = Traffic {
            rx_bytes: floor.payload(grown.rx_packets, grown.rx_bytes, rx_probes, span),
            tx_bytes: floor.payload(grown.tx_packets, grown.tx_bytes, tx_probes, span),
        };
        self.count(traffic, last_read_at, span);
    }

    fn count(&mut self, traffic: Traffic, since: Uptime, span: Duration) {
        self.carried.rx_bytes = self.carried.rx_bytes.saturating_add(traffic.rx_bytes);
        self.carried.tx_bytes = self.carried.tx_bytes.saturating_add(traffic.tx_bytes);
        self.quiet_since = (traffic.total() == 0).then(|| self.quiet_since.unwrap_or(since));
        let millis = span.as_millis().max(1);
        let rate = u64::try_from(u128::from(traffic.total()) * 1000 / millis).unwrap_or(u64::MAX);
        self.rate = Some(BytesPerSec(rate));
    }

    /// Payload of both directions over the last window; `None` before the first window is complete.
    pub fn rate(&self) -> Option<BytesPerSec> {
        self.rate
    }

    /// The time for which neither direction has carried payload.
    pub fn quiet_for(&self) -> Duration {
        self.quiet_since
            .map_or(Duration::ZERO, |since| self.read_at.since(since))
    }

    /// The payload since the last [`Usage::start_count`], and the span it was carried in.
    pub fn carried(&self, now: Uptime) -> (Traffic, Duration) {
        (self.carried, now.since(self.count_started_at))
    }

    /// Starts a new count of the payload.
    pub fn start_count(&mut self, now: Uptime) {
        self.carried = Traffic::default();
        self.count_started_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(packets: u64, bytes: u64) -> LinkCounters {
        LinkCounters {
            rx_packets: packets,
            tx_packets: packets,
            rx_bytes: bytes,
            tx_bytes: bytes,
            ..LinkCounters::default()
        }
    }

    fn floor() -> Floor {
        Floor::new(&Parameters::default(), 8)
    }

    /// Checks the payload in one direction after readings of (milliseconds, packets, bytes, probe frames).
    #[track_caller]
    fn check(readings: &[(u64, u64, u64, u64)], carried: u64) {
        let mut usage = Usage::new(
            LinkCounters::default(),
            ProbeFrames::default(),
            Uptime::default(),
        );
        for (millis, packets, bytes, probes) in readings {
            let frames = ProbeFrames {
                rx: *probes,
                tx: *probes,
            };
            usage.read(
                link(*packets, *bytes),
                frames,
                floor(),
                Uptime::from_millis(*millis),
            );
        }
        let (traffic, _) = usage.carried(Uptime::from_secs(100));
        assert_eq!(
            traffic,
            Traffic {
                rx_bytes: carried,
                tx_bytes: carried
            },
            "{readings:?}"
        );
    }

    #[test]
    fn babels_own_packets_are_no_payload() {
        check(
            &[(1_000, 2, 200, 0), (2_000, 4, 500, 0), (3_000, 5, 600, 0)],
            0,
        );
    }

    #[test]
    fn probes_of_both_ends_are_no_payload() {
        // Our own probes are counted by the prober; the peer's 5 are within the slack.
        check(&[(1_000, 5 + 5 + 2, 900, 5)], 0);
    }

    #[test]
    fn payload_is_the_bytes_above_the_floor() {
        let babel = floor().bytes(Duration::from_secs(1));
        check(&[(1_000, 102, 10_000 + babel, 0)], 10_000);
        check(
            &[(1_000, 102, 10_000 + babel + 4 * PROBE_FRAME_BYTES, 4)],
            10_000,
        );
    }

    #[test]
    fn a_counter_that_went_down_has_no_rate() {
        check(
            &[(1_000, 5, 100, 0), (2_000, 2, 50, 0), (3_000, 3, 60, 0)],
            0,
        );
        let mut usage = Usage::new(link(100, 10_000), ProbeFrames::default(), Uptime::default());
        usage.read(
            link(1, 70),
            ProbeFrames::default(),
            floor(),
            Uptime::from_secs(1),
        );
        assert_eq!(usage.rate(), None);
        usage.read(
            link(1, 70),
            ProbeFrames::default(),
            floor(),
            Uptime::from_secs(2),
        );
        assert_eq!(usage.rate(), Some(BytesPerSec(0)));
    }

    #[test]
    fn readings_half_a_second_apart_are_taken_together() {
        check(
            &[
                (500, 4, 400, 0),
                (1_000, 7, 600, 0),
                (1_500, 11, 1_000, 0),
                (2_000, 14, 1_300, 0),
            ],
            0,
        );
    }

    #[test]
    fn quiet_begins_with_the_first_window_without_payload_and_ends_with_payload() {
        let mut usage = Usage::new(
            LinkCounters::default(),
            ProbeFrames::default(),
            Uptime::default(),
        );
        let mut quiet = Vec::new();
        for (second, packets) in [(1, 100), (2, 101), (3, 103), (4, 300)] {
            usage.read(
                link(packets, packets * 100),
                ProbeFrames::default(),
                floor(),
                Uptime::from_secs(second),
            );
            quiet.push(usage.quiet_for().as_secs());
        }
        assert_eq!(quiet, [0, 1, 2, 0]);
    }

    #[test]
    fn the_floor_at_the_defaults_is_below_fifty_bytes_a_second() {
        let bytes = floor().bytes(Duration::from_secs(1));
        assert!((20..50).contains(&bytes), "{bytes}");
    }
}
