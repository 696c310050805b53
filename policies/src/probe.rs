//! Decides when a tunnel is probed and when the peer behind it is dead.
//!
//! One [`Probing`] a tunnel. Fast where payload flows, seldom where none does. Knows nothing of
//! sockets: it is told what the link counted and which probes were answered.

use crate::{
    names::{Prefix, Slot},
    observation::{LinkCounters, ProbeCounts, ProbeReading},
    parameters::Parameters,
    recent::Counted,
    units::Uptime,
    usage::Floor,
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// A tunnel is busy so long after payload last went out.
pub const BUSY_FOR: Duration = Duration::from_secs(10);
/// A new tunnel is probed as a busy one for so long, so that its round trip is known.
const GREET_FOR: Duration = Duration::from_secs(2);
/// Misses in a row that make a peer suspect.
const SUSPECT_MISSES: usize = 2;
/// Misses in a row that make a peer dead.
const DEAD_MISSES: usize = 4;
/// Misses must span at least this, and [`RTTS`] round trips.
const DEAD_SPAN: Duration = Duration::from_secs(1);
/// See [`DEAD_SPAN`].
const RTTS: u32 = 4;
/// Probes sent when somebody else suspects the peer, and their distance.
const BURST: u32 = 3;
/// See [`BURST`].
const BURST_PERIOD: Duration = Duration::from_millis(200);
/// The verdict on a suspicion falls after this, or [`RTTS`] round trips.
const BURST_SPAN: Duration = Duration::from_millis(600);
/// No earlier than this is a probe missed, however short the round trip.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(250);
/// Counters must have shown an unchanged rx for so long: one period of the sampler, less its jitter.
const SILENCE: Duration = Duration::from_millis(400);
/// Counters older than this prove no silence.
const STALE: Duration = Duration::from_millis(1_200);
/// A probe sent so much after it was due shows that we slept: replies may wait unread.
const SLEPT: Duration = Duration::from_millis(400);
/// Payload is looked for over so long a window.
const WINDOW: Duration = Duration::from_millis(900);
/// Unanswered probes are remembered for so long, so that a slow answer still tells the round trip.
const REMEMBER: Duration = Duration::from_secs(20);
/// At most so many of them.
const REMEMBERED: usize = 128;

/// A probe's sequence number: ICMPv6 echo, 16 bits, per tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seq(pub u16);

/// What probing says of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    /// Nothing speaks against it; also said of a peer that never answered a probe, since echo may be
    /// filtered on its side.
    Alive,
    /// The second probe in a row is missed: others should look, too.
    Suspect,
    /// It is gone. Final.
    Dead,
}

/// Probes sent because somebody else suspects the peer.
#[derive(Clone, Copy, Debug)]
struct Burst {
    began: Uptime,
    sent: u32,
}

/// The link's counters at one moment, and our probe frames in them.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Uptime,
    counters: LinkCounters,
    tx_frames: u64,
}

/// How often tunnels are probed.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// What Babel alone sends over a link; above it is payload.
    floor: Floor,
    /// Between two probes of a busy or suspected tunnel.
    busy: Duration,
    /// Between two probes of an idle tunnel.
    idle: Duration,
}

impl Pace {
    /// That of the network, over whose links ways to `routes` nodes are announced.
    pub fn new(parameters: &Parameters, routes: usize) -> Self {
        Self {
            floor: Floor::new(parameters, routes),
            busy: parameters.probe,
            idle: parameters.idle_probe,
        }
    }
}

/// Probing of one tunnel, from the moment it came up.
#[derive(Clone, Debug)]
pub struct Probing {
    pace: Pace,
    next: u16,
    last_sent: Option<Uptime>,
    /// No later than this, whatever the pace.
    hurry: Option<Uptime>,
    /// Not yet answered, in the order sent.
    outstanding: VecDeque<(Seq, Uptime)>,
    /// Probes sent no later than this do not count as missed.
    heard: Uptime,
    rtt: Option<Duration>,
    jitter: Duration,
    began: Uptime,
    busy_until: Uptime,
    burst: Option<Burst>,
    last: Option<Sample>,
    window: Option<Sample>,
    /// The last sample before which nothing has been received since.
    silent_since: Option<Uptime>,
    counted: Counted,
    rx_frames: u64,
    tx_frames: u64,
}

impl Probing {
    /// Begins to probe a tunnel that just came up.
    pub fn new(pace: Pace, now: Uptime) -> Self {
        Self {
            pace,
            next: 0,
            last_sent: None,
            hurry: Some(now),
            outstanding: VecDeque::new(),
            heard: now,
            rtt: None,
            jitter: Duration::ZERO,
            began: now,
            busy_until: now + GREET_FOR,
            burst: None,
            last: None,
            window: None,
            silent_since: None,
            counted: Counted::default(),
            rx_frames: 0,
            tx_frames: 0,
        }
    }

    /// Probes at another pace from now on.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// Takes the link's counters; to be called twice a second, and may be called more often.
    pub fn on_counters(&mut self, counters: LinkCounters, now: Uptime) {
        let sample = Sample {
            at: now,
            counters,
            tx_frames: self.tx_frames,
        };
        let Some(last) = self.last.replace(sample) else {
            self.window = Some(sample);
            return;
        };
        if counters.rx_packets == last.counters.rx_packets {
            self.silent_since = self.silent_since.or(Some(last.at));
        } else {
            self.silent_since = None;
            // The frame may have come right after the sample before.
            self.heard = self.heard.max(last.at);
        }
        let silent = self
            .silent_since
            .is_some_and(|since| now.since(since) >= SILENCE);
        if silent && self.payload_sent(&last, &sample) && !self.busy(now) {
            self.busy_until = now + BUSY_FOR;
            self.hurry = Some(now);
        }
        let window = self.window.unwrap_or(last);
        if now.since(window.at) >= WINDOW {
            if self.payload_sent(&window, &sample) {
                self.busy_until = now + BUSY_FOR;
            }
            self.window = Some(sample);
        }
    }

    /// Somebody suspects the peer: three probes at once, unless such a round is under way.
    pub fn on_suspicion(&mut self, now: Uptime) {
        if self.burst.is_none() {
            self.burst = Some(Burst {
                began: now,
                sent: 0,
            });
            self.hurry = Some(now);
        }
    }

    /// The probe to send now, if one is due; the caller sends it.
    pub fn due(&mut self, now: Uptime) -> Option<Seq> {
        self.forget(now);
        let due = self.next_due(now);
        if now < due {
            return None;
        }
        if now.since(due) > SLEPT {
            self.heard = now;
            self.burst = self.burst.map(|_| Burst {
                began: now,
                sent: 0,
            });
        }
        let seq = Seq(self.next);
        self.next = self.next.wrapping_add(1);
        self.outstanding.push_back((seq, now));
        self.last_sent = Some(now);
        self.hurry = None;
        self.tx_frames = self.tx_frames.saturating_add(1);
        self.counted.count(now, 1, 0);
        if let Some(burst) = &mut self.burst {
            burst.sent = burst.sent.saturating_add(1);
            self.hurry = (burst.sent < BURST).then(|| now + BURST_PERIOD);
        }
        Some(seq)
    }

    /// When [`Probing::due`] will have a probe to send; what is told in between may hasten it.
    pub fn next_due(&self, now: Uptime) -> Uptime {
        let unanswered =
            self.rtt.is_some() && self.outstanding.iter().any(|(_, sent)| *sent > self.heard);
        let period = if self.busy(now) {
            self.pace.busy
        } else if unanswered {
            self.timeout()
        } else {
            self.pace.idle
        };
        let paced = self.last_sent.map_or(now, |sent| sent + period);
        self.hurry.map_or(paced, |hurry| hurry.min(paced))
    }

    /// A probe was answered.
    pub fn on_reply(&mut self, seq: Seq, now: Uptime) {
        self.rx_frames = self.rx_frames.saturating_add(1);
        let Some(position) = self.outstanding.iter().position(|(other, _)| *other == seq) else {
            return;
        };
        for (other, sent) in self.outstanding.drain(..=position) {
            if other != seq {
                self.counted.count(now, 0, 1);
                continue;
            }
            self.heard = self.heard.max(sent);
            let rtt = now.since(sent);
            // RFC 6298, 2.2 and 2.3.
            (self.rtt, self.jitter) = match self.rtt {
                None => (Some(rtt), rtt / 2),
                // The first probes waited for the neighbour's MAC, up to a second or more.
                Some(mean) if rtt < mean / 2 && now.since(self.began) < GREET_FOR * 2 => {
                    (Some(rtt), rtt / 2)
                }
                Some(mean) => (
                    Some(mean * 7 / 8 + rtt / 8),
                    self.jitter * 3 / 4 + mean.abs_diff(rtt) / 4,
                ),
            };
        }
        self.burst = self.burst.filter(|burst| self.heard < burst.began);
    }

    /// What can be said of the peer now; pending replies should be handed over first.
    pub fn liveness(&mut self, now: Uptime) -> Liveness {
        let Some(rtt) = self.rtt else {
            self.burst = None;
            return Liveness::Alive;
        };
        let (misses, first) = self.missed(now);
        let span = first.map(|first| now.since(first)).unwrap_or_default();
        let rtts = rtt.saturating_mul(RTTS);
        let silent = self.silent(now);
        if misses >= DEAD_MISSES && span >= DEAD_SPAN.max(rtts) && silent {
            return Liveness::Dead;
        }
        if let Some(burst) = self.burst {
            let over = now.since(burst.began) >= BURST_SPAN.max(rtts) && burst.sent >= BURST;
            if over && silent && self.heard <= burst.began {
                return Liveness::Dead;
            }
            // Frames came meanwhile, though no answer: let the ordinary count decide.
            if over && now.since(burst.began) >= BURST_SPAN.max(rtts) + STALE {
                self.burst = None;
            }
        }
        if misses >= SUSPECT_MISSES {
            Liveness::Suspect
        } else {
            Liveness::Alive
        }
    }

    /// Whether payload went out within the last ten seconds.
    pub fn busy(&self, now: Uptime) -> bool {
        self.busy_until > now
    }

    /// The picture for the planner and the operator.
    pub fn reading(&self, slot: Slot, now: Uptime) -> ProbeReading {
        let ProbeCounts { sent, lost } = self.counted.minute(now);
        ProbeReading {
            slot,
            rtt: self.rtt,
            jitter: self.jitter,
            sent,
            lost,
            lately: self.counted.lately(now),
            rx_frames: self.rx_frames,
            tx_frames: self.tx_frames,
        }
    }

    /// An answer that takes longer is a miss.
    fn timeout(&self) -> Duration {
        SHORTEST_TIMEOUT.max(self.rtt.unwrap_or_default() + self.jitter * 4)
    }

    /// How many probes in a row are missed, and when the first of them was sent.
    fn missed(&self, now: Uptime) -> (usize, Option<Uptime>) {
        let timeout = self.timeout();
        let missed = |sent: &Uptime| *sent > self.heard && now.since(*sent) >= timeout;
        let mut moments = self
            .outstanding
            .iter()
            .map(|(_, sent)| *sent)
            .filter(missed);
        let first = moments.next();
        (usize::from(first.is_some()) + moments.count(), first)
    }

    /// Whether recent counters show that nothing at all was received.
    fn silent(&self, now: Uptime) -> bool {
        let sampled = self.last.map(|sample| sample.at).unwrap_or_default();
        let since = self.silent_since;
        now.since(sampled) <= STALE && since.is_some_and(|since| sampled.since(since) >= SILENCE)
    }

    fn payload_sent(&self, from: &Sample, to: &Sample) -> bool {
        let grown = to.counters.since(from.counters);
        let packets = grown.map_or(0, |grown| grown.tx_packets);
        let own = to.tx_frames.saturating_sub(from.tx_frames);
        packets
            > self
                .pace
                .floor
                .packets(to.at.since(from.at))
                .saturating_add(own)
    }

    /// Gives up waiting for old answers.
    fn forget(&mut self, now: Uptime) {
        let old =
            |entry: Option<&(Seq, Uptime)>| entry.is_some_and(|(_, at)| now.since(*at) >= REMEMBER);
        while old(self.outstanding.front()) || self.outstanding.len() > REMEMBERED {
            self.outstanding.pop_front();
            self.counted.count(now, 0, 1);
        }
    }
}

/// Says of each peer at most once in five seconds that it is suspect.
#[derive(Clone, Debug, Default)]
pub struct SuspicionLimit(BTreeMap<Prefix, Uptime>);

/// See [`SuspicionLimit`].
pub const SUSPICION_PACE: Duration = Duration::from_secs(5);

/// Peers that a node remembers to have spoken of; more at once means that the fault is our own.
const SUSPECTS: usize = 256;

impl SuspicionLimit {
    /// Whether suspicion of this peer may be said, or acted on, now; counts it if so.
    pub fn allow(&mut self, peer: Prefix, now: Uptime) -> bool {
        self.0.retain(|_, said| now.since(*said) < SUSPICION_PACE);
        let free = !self.0.contains_key(&peer) && self.0.len() < SUSPECTS;
        if free {
            self.0.insert(peer, now);
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Parameters;

    /// A simulated link: steps of 10 ms, counters each 500 ms at an offset.
    struct Link {
        probing: Probing,
        counters: LinkCounters,
        millis: u64,
        rtt_millis: u64,
        /// Frames of payload a second in each direction.
        payload: (u64, u64),
        /// Until when the peer lives, in milliseconds.
        dies: u64,
        replies: VecDeque<(u64, Seq)>,
        sent: Vec<u64>,
        sample_offset: u64,
    }

    impl Link {
        fn new(payload: (u64, u64)) -> Self {
            let pace = Pace::new(&Parameters::default(), 8);
            Self {
                probing: Probing::new(pace, Uptime::default()),
                counters: LinkCounters::default(),
                millis: 0,
                rtt_millis: 2,
                payload,
                dies: u64::MAX,
                replies: VecDeque::new(),
                sent: Vec::new(),
                sample_offset: 0,
            }
        }

        fn now(&self) -> Uptime {
            Uptime::from_millis(self.millis)
        }

        fn alive(&self) -> bool {
            self.millis < self.dies
        }

        fn step(&mut self) -> Liveness {
            self.millis += 10;
            let every = |rate: u64| rate > 0 && self.millis.is_multiple_of((1_000 / rate).max(10));
            let hello = u64::from(self.millis.is_multiple_of(1_000));
            self.counters.tx_packets += u64::from(every(self.payload.0)) + hello;
            if self.alive() {
                self.counters.rx_packets += u64::from(every(self.payload.1)) + hello;
            }
            while self
                .replies
                .front()
                .is_some_and(|(at, _)| *at <= self.millis)
            {
                let (_, seq) = self.replies.pop_front().unwrap();
                if self.alive() {
                    self.counters.rx_packets += 1;
                    self.probing.on_reply(seq, self.now());
                }
            }
            if self.millis % 500 == self.sample_offset {
                self.probing.on_counters(self.counters, self.now());
            }
            if let Some(seq) = self.probing.due(self.now()) {
                self.counters.tx_packets += 1;
                self.sent.push(self.millis);
                self.replies.push_back((self.millis + self.rtt_millis, seq));
            }
            self.probing.liveness(self.now())
        }

        fn run(&mut self, millis: u64) -> Liveness {
            (0..millis / 10).map(|_| self.step()).last().unwrap()
        }

        /// Milliseconds from the death until the verdict; `None` if none falls within `millis`.
        fn until(&mut self, verdict: Liveness, millis: u64) -> Option<u64> {
            let from = self.millis;
            (0..millis / 10).find_map(|_| (self.step() >= verdict).then(|| self.millis - from))
        }
    }

    #[track_caller]
    fn check(link: &mut Link, verdict: Liveness, within: std::ops::RangeInclusive<u64>) {
        link.dies = link.millis;
        let took = link.until(verdict, 60_000);
        assert!(
            took.is_some_and(|took| within.contains(&took)),
            "{took:?} not in {within:?}"
        );
    }

    #[test]
    fn a_dead_peer_with_traffic_is_recognised_within_a_second_and_a_quarter() {
        for sample_offset in (0..500).step_by(50) {
            for extra in (0..500).step_by(30) {
                let mut link = Link {
                    sample_offset,
                    ..Link::new((100, 100))
                };
                assert_eq!(link.run(20_000 + extra), Liveness::Alive);
                check(&mut link, Liveness::Dead, 1_000..=1_280);
            }
        }
    }

    #[test]
    fn a_dead_peer_with_traffic_is_suspect_after_three_quarters_of_a_second() {
        let mut link = Link::new((100, 100));
        link.run(20_000);
        check(&mut link, Liveness::Suspect, 490..=760);
    }

    #[test]
    fn a_dead_idle_peer_is_recognised_at_the_next_idle_probe() {
        let mut link = Link::new((0, 0));
        link.run(40_000);
        check(&mut link, Liveness::Dead, 1_000..=16_500);
    }

    #[test]
    fn a_new_pace_holds_from_the_next_probe_on() {
        let idle_probe = Duration::from_secs(3);
        let mut link = Link::new((0, 0));
        link.run(31_000);
        link.probing.set_pace(Pace::new(
            &Parameters {
                idle_probe,
                ..Parameters::default()
            },
            8,
        ));
        let sent = link.sent.len();
        assert_eq!(link.run(30_000), Liveness::Alive);
        assert!(
            (9..=11).contains(&(link.sent.len() - sent)),
            "{:?}",
            link.sent
        );
        check(&mut link, Liveness::Dead, 1_000..=4_500);
    }

    #[test]
    fn an_idle_dead_tunnel_that_gets_payload_is_recognised_at_once() {
        let mut link = Link::new((0, 0));
        link.run(31_000);
        link.dies = link.millis;
        link.run(3_000);
        link.payload = (100, 0);
        let took = link.until(Liveness::Dead, 10_000);
        assert!(took.is_some_and(|took| took <= 1_800), "{took:?}");
    }

    #[test]
    fn a_suspicion_heard_of_a_dead_idle_peer_is_confirmed_within_a_second() {
        for extra in (0..1_000).step_by(90) {
            let mut link = Link::new((0, 0));
            link.run(33_000 + extra);
            link.dies = link.millis;
            link.run(100);
            let sent = link.sent.len();
            link.probing.on_suspicion(link.now());
            let took = link.until(Liveness::Dead, 5_000);
            assert!(
                took.is_some_and(|took| (590..=1_100).contains(&took)),
                "{extra}: {took:?}"
            );
            assert!(link.sent.len() - sent <= 5, "{:?}", link.sent);
        }
    }

    #[test]
    fn a_suspicion_heard_of_a_living_peer_costs_three_probes_and_nothing_else() {
        let mut link = Link::new((0, 0));
        link.run(33_000);
        let sent = link.sent.len();
        link.probing.on_suspicion(link.now());
        assert_eq!(link.until(Liveness::Suspect, 5_000), None);
        assert!(
            (1..=3).contains(&(link.sent.len() - sent)),
            "{:?}",
            link.sent
        );
    }

    #[test]
    fn a_peer_that_never_answered_is_never_judged() {
        let mut link = Link {
            dies: 0,
            ..Link::new((100, 0))
        };
        assert_eq!(link.until(Liveness::Suspect, 60_000), None);
        link.probing.on_suspicion(link.now());
        assert_eq!(link.until(Liveness::Suspect, 5_000), None);
    }

    #[test]
    fn a_peer_whose_echo_fails_but_whose_frames_come_is_not_dead() {
        let mut link = Link::new((100, 100));
        link.run(20_000);
        link.rtt_millis = 1_000_000;
        assert_eq!(link.until(Liveness::Dead, 30_000), None);
    }

    #[test]
    fn a_long_round_trip_is_no_death() {
        let mut link = Link {
            rtt_millis: 900,
            ..Link::new((100, 100))
        };
        assert_eq!(link.until(Liveness::Suspect, 60_000), None);
        check(&mut link, Liveness::Dead, 2_700..=4_500);
    }

    #[test]
    fn the_pace_is_four_a_second_when_busy_and_four_a_minute_when_idle() {
        let mut link = Link::new((100, 100));
        link.run(20_000);
        let sent = link.sent.len();
        link.run(10_000);
        assert_eq!(link.sent.len() - sent, 40);
        link.payload = (0, 0);
        link.run(30_000);
        let sent = link.sent.len();
        link.run(60_000);
        assert_eq!(link.sent.len() - sent, 4);
        let reading = link.probing.reading(Slot::Dialling(0), link.now());
        assert_eq!((reading.sent, reading.lost), (4, 0));
        link.run(700_000);
        let lately = link.probing.reading(Slot::Dialling(0), link.now()).lately;
        assert!(
            (33..=41).contains(&lately.sent) && lately.lost == 0,
            "{lately:?}"
        );
        assert!(
            reading
                .rtt
                .is_some_and(|rtt| rtt <= Duration::from_millis(20)),
            "{reading:?}"
        );
    }

    #[test]
    fn a_first_probe_that_waited_for_the_neighbours_mac_does_not_spoil_the_round_trip() {
        let mut link = Link {
            rtt_millis: 1_000,
            ..Link::new((100, 100))
        };
        link.run(900);
        link.rtt_millis = 2;
        link.run(3_000);
        let reading = link.probing.reading(Slot::Dialling(0), link.now());
        assert!(
            reading
                .rtt
                .is_some_and(|rtt| rtt <= Duration::from_millis(20)),
            "{reading:?}"
        );
        check(&mut link, Liveness::Dead, 1_000..=1_280);
    }

    #[test]
    fn who_slept_does_not_take_the_peer_for_dead() {
        let mut link = Link::new((100, 100));
        link.run(20_000);
        // Two seconds without a step; the replies wait unread.
        link.millis += 2_000;
        link.replies.clear();
        assert_eq!(link.until(Liveness::Dead, 10_000), None);
    }

    #[test]
    fn suspicion_is_said_once_per_peer_and_five_seconds() {
        let mut limit = SuspicionLimit::default();
        let peers = [Prefix::new(1, 16).unwrap(), Prefix::new(2, 16).unwrap()];
        let said = [(0, 0), (1, 0), (1, 1), (4, 0), (5, 0), (6, 1), (6, 0)]
            .map(|(second, peer)| limit.allow(peers[peer], Uptime::from_secs(second)));
        assert_eq!(said, [true, false, true, false, true, true, false]);
    }
}
