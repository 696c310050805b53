//! Decides when a tunnel is probed, and when the peer behind it is dead.
//!
//! Each tunnel has one [`Probing`]. It probes fast while payload flows, once the neighbour's hellos stay away, and seldom
//! otherwise. It knows nothing of sockets: its caller hands over the link's counters and the answers to probes.

mod misses;
mod pace;
mod payload;
mod suspicion_limit;

pub use pace::{ProbePace, max_silence};
pub use suspicion_limit::{SUSPICION_PACE, SuspicionLimit};

use crate::{
    names::Slot,
    observation::{LinkCounters, ProbeCounts, ProbeReading},
    path_mtu::FullSize,
    probe_history::{ProbeHistory, ProbeTotals},
    units::Uptime,
};
use std::{collections::VecDeque, time::Duration};

/// A tunnel counts as busy for this long after payload was last sent.
pub const BUSY_TIME: Duration = Duration::from_secs(10);
/// A new tunnel is probed as a busy one for this long, so that its round trip is known.
const GREETING_TIME: Duration = Duration::from_secs(2);
/// Number of misses in a row that make a peer suspect.
const SUSPECT_MISSES: usize = 2;
/// Number of misses in a row that make a peer dead.
const DEAD_MISSES: usize = 4;
/// The misses of a dead peer span at least this time, and [`MIN_RTTS`] round trips.
const DEAD_SPAN: Duration = Duration::from_secs(1);
/// Round trips that a judgement waits for at least.
const MIN_RTTS: u32 = 4;
/// Number of probes sent when somebody else suspects the peer.
const BURST_PROBES: u32 = 3;
/// Interval between the probes of a burst.
const BURST_PERIOD: Duration = Duration::from_millis(200);
/// A suspicion is judged after this time, or after [`MIN_RTTS`] round trips if these take longer.
const BURST_SPAN: Duration = Duration::from_millis(600);
/// A probe is missed no earlier than after this time, however short the round trip.
const MIN_TIMEOUT: Duration = Duration::from_millis(250);
/// The count of received frames must have been unchanged for this long: one period of the sampler, less its jitter.
const SILENCE_TIME: Duration = Duration::from_millis(400);
/// Counters older than this prove no silence.
const MAX_SAMPLE_AGE: Duration = Duration::from_millis(1_200);
/// A probe sent this long after it was due shows that the process slept, so that replies may wait unread.
const MAX_DELAY: Duration = Duration::from_millis(400);
/// Span over which frames are compared to recognise payload. A tunnel is busy if payload was sent in two such spans in
/// a row.
const PAYLOAD_WINDOW: Duration = Duration::from_millis(900);
/// Unanswered probes are kept for this long, so that a slow answer still gives the round trip.
const ANSWER_LIFETIME: Duration = Duration::from_secs(20);
/// Most unanswered probes that are kept.
const MAX_OUTSTANDING: usize = 128;

/// A probe's sequence number: ICMPv6 echo, 16 bits, one sequence per tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seq(pub u16);

/// The state of a peer, as its probes show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    /// Nothing speaks against the peer. This includes a peer that never answered a probe, since its side may
    /// filter echo.
    Alive,
    /// Two probes in a row are missed, so its other neighbours should probe it, too.
    Suspect,
    /// The peer is gone; this is final.
    Dead,
}

/// Probes that are sent because somebody else suspects the peer.
#[derive(Clone, Copy, Debug)]
struct Burst {
    started_at: Uptime,
    sent: u32,
}

/// The link's counters at one moment, and this node's probe frames among them.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Uptime,
    counters: LinkCounters,
    tx_frames: u64,
}

/// The probing of one tunnel, from the moment it came up.
#[derive(Clone, Debug)]
pub struct Probing {
    pace: ProbePace,
    next_seq: u16,
    last_sent: Option<Uptime>,
    /// The next probe is due at this moment at the latest, whatever the pace.
    expedited_at: Option<Uptime>,
    /// Probes that are not answered yet, in the order they were sent.
    outstanding: VecDeque<(Seq, Uptime)>,
    /// Probes sent up to this moment do not count as missed.
    answered_until: Uptime,
    rtt: Option<Duration>,
    jitter: Duration,
    started_at: Uptime,
    busy_until: Uptime,
    burst: Option<Burst>,
    last_sample: Option<Sample>,
    /// The sample that the present payload window starts with.
    window_start: Option<Sample>,
    /// Whether payload was sent in the last complete payload window.
    had_payload: bool,
    /// The bytes of large frames, see [`Self::large_bytes`].
    large_bytes: u64,
    /// The moment of the last sample since which nothing has been received.
    silent_since: Option<Uptime>,
    history: ProbeHistory,
    rx_frames: u64,
    tx_frames: u64,
}

impl Probing {
    /// Starts to probe a tunnel that just came up.
    pub fn new(pace: ProbePace, now: Uptime) -> Self {
        Self {
            pace,
            next_seq: 0,
            last_sent: None,
            expedited_at: Some(now),
            outstanding: VecDeque::new(),
            answered_until: now,
            rtt: None,
            jitter: Duration::ZERO,
            started_at: now,
            busy_until: now + GREETING_TIME,
            burst: None,
            last_sample: None,
            window_start: None,
            had_payload: false,
            large_bytes: 0,
            silent_since: None,
            history: ProbeHistory::default(),
            rx_frames: 0,
            tx_frames: 0,
        }
    }

    /// Probes at another pace from now on.
    pub fn set_pace(&mut self, pace: ProbePace) {
        self.pace = pace;
    }

    /// Takes the link's counters; to be called twice a second, and may be called more often.
    pub fn on_counters(&mut self, counters: LinkCounters, now: Uptime) {
        let sample = Sample {
            at: now,
            counters,
            tx_frames: self.tx_frames,
        };
        let Some(last) = self.last_sample.replace(sample) else {
            self.window_start = Some(sample);
            return;
        };
        self.count_large(&last, &sample);
        if counters.rx_packets == last.counters.rx_packets {
            self.silent_since = self.silent_since.or(Some(last.at));
        } else {
            self.silent_since = None;
            // The frame may have arrived right after the previous sample.
            self.answered_until = self.answered_until.max(last.at);
        }
        let is_silent = self
            .silent_since
            .is_some_and(|since| now.since(since) >= SILENCE_TIME);
        if is_silent && self.has_sent_payload(&last, &sample) && !self.is_busy(now) {
            self.busy_until = now + BUSY_TIME;
            self.expedited_at = Some(now);
        }
        let has_missed_hellos = self
            .silent_since
            .is_some_and(|since| now.since(since) >= self.pace.max_silence);
        if has_missed_hellos && self.outstanding.is_empty() {
            self.on_suspicion(now);
        }
        let window_start = self.window_start.unwrap_or(last);
        if now.since(window_start.at) >= PAYLOAD_WINDOW {
            // A call of the daemon to another node fills one window, or one and the edge of the next.
            let has_payload = self.has_sent_payload(&window_start, &sample);
            if has_payload && self.had_payload {
                self.busy_until = now + BUSY_TIME;
            }
            self.had_payload = has_payload;
            self.window_start = Some(sample);
        }
    }

    /// Reacts to somebody else's suspicion: three probes at once, unless such a burst is not over yet.
    pub fn on_suspicion(&mut self, now: Uptime) {
        if self.burst.is_none() {
            self.burst = Some(Burst {
                started_at: now,
                sent: 0,
            });
            self.expedited_at = Some(now);
        }
    }

    /// Counts a frame of the caller's own that was sent beside the probes, so that it does not count as payload.
    pub fn count_sent_frame(&mut self) {
        self.tx_frames = self.tx_frames.saturating_add(1);
    }

    /// The smoothed round trip; `None` until a probe was answered.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// The probe that the caller has to send now, if one is due.
    pub fn next_probe(&mut self, now: Uptime) -> Option<Seq> {
        self.drop_old_probes(now);
        let due = self.next_due(now);
        if now < due {
            return None;
        }
        if now.since(due) > MAX_DELAY {
            self.answered_until = now;
            self.burst = self.burst.map(|_| Burst {
                started_at: now,
                sent: 0,
            });
        }
        let seq = Seq(self.next_seq);
        self.next_seq = self.next_seq.wrapping_add(1);
        self.outstanding.push_back((seq, now));
        self.last_sent = Some(now);
        self.expedited_at = None;
        self.tx_frames = self.tx_frames.saturating_add(1);
        self.history.count(now, 1, 0);
        if let Some(burst) = &mut self.burst {
            burst.sent = burst.sent.saturating_add(1);
            self.expedited_at = (burst.sent < BURST_PROBES).then(|| now + BURST_PERIOD);
        }
        Some(seq)
    }

    /// The moment at which [`Probing::next_probe`] will have a probe to send; counters and suspicions that arrive
    /// earlier may hasten it.
    pub fn next_due(&self, now: Uptime) -> Uptime {
        let is_unanswered = |(_, sent): &(Seq, Uptime)| *sent > self.answered_until;
        let period = if self.is_busy(now) {
            self.pace.busy
        } else if self.rtt.is_some() && self.outstanding.iter().any(is_unanswered) {
            self.timeout()
        } else {
            self.pace.idle
        };
        let paced = self.last_sent.map_or(now, |sent| sent + period);
        self.expedited_at
            .map_or(paced, |expedited| expedited.min(paced))
    }

    /// Takes the answer to a probe.
    pub fn on_reply(&mut self, seq: Seq, now: Uptime) {
        self.rx_frames = self.rx_frames.saturating_add(1);
        let mut probes = self.outstanding.iter();
        let Some(position) = probes.position(|(sent_seq, _)| *sent_seq == seq) else {
            return;
        };
        for (sent_seq, sent) in self.outstanding.drain(..=position) {
            if sent_seq != seq {
                self.history.count(now, 0, 1);
                continue;
            }
            self.answered_until = self.answered_until.max(sent);
            let rtt = now.since(sent);
            self.history.count_rtt(rtt);
            // RFC 6298, 2.2 and 2.3.
            (self.rtt, self.jitter) = match self.rtt {
                None => (Some(rtt), rtt / 2),
                // The first probes waited for the neighbour's MAC, up to a second or more.
                Some(mean) if rtt < mean / 2 && now.since(self.started_at) < GREETING_TIME * 2 => {
                    (Some(rtt), rtt / 2)
                }
                Some(mean) => (
                    Some(mean * 7 / 8 + rtt / 8),
                    self.jitter * 3 / 4 + mean.abs_diff(rtt) / 4,
                ),
            };
        }
        self.burst = self
            .burst
            .filter(|burst| self.answered_until < burst.started_at);
    }

    /// Judges the peer; pending replies should be handed over first.
    pub fn liveness(&mut self, now: Uptime) -> Liveness {
        let (misses, first) = self.missed(now);
        let span = first.map(|first| now.since(first)).unwrap_or_default();
        let Some(rtt) = self.rtt else {
            self.burst = None;
            // A host may answer no echo requests at all, so only one that sends no hellos either is dead.
            let is_lost = span >= DEAD_SPAN && self.is_silent_for(self.pace.max_silence, now);
            return if is_lost {
                Liveness::Dead
            } else {
                Liveness::Alive
            };
        };
        let rtts = rtt.saturating_mul(MIN_RTTS);
        let is_silent = self.is_silent(now);
        if misses >= DEAD_MISSES && span >= DEAD_SPAN.max(rtts) && is_silent {
            return Liveness::Dead;
        }
        if let Some(burst) = self.burst {
            let elapsed = now.since(burst.started_at);
            let is_over = elapsed >= BURST_SPAN.max(rtts) && burst.sent >= BURST_PROBES;
            if is_over && is_silent && self.answered_until <= burst.started_at {
                return Liveness::Dead;
            }
            // Frames arrived meanwhile, though no answer: the ordinary count decides.
            if is_over && elapsed >= BURST_SPAN.max(rtts) + MAX_SAMPLE_AGE {
                self.burst = None;
            }
        }
        if misses >= SUSPECT_MISSES {
            Liveness::Suspect
        } else {
            Liveness::Alive
        }
    }

    /// Returns whether the peer has answered neither of the last two probes in time. In contrast to [`Self::liveness`], frames of
    /// the peer's own prove nothing: they also arrive while everything that this node sends is stalled.
    pub fn lacks_answers(&self, now: Uptime) -> bool {
        // An answer ends the wait for all earlier probes.
        let is_missed = |(_, sent): &&(Seq, Uptime)| now.since(*sent) >= self.timeout();
        self.outstanding.iter().filter(is_missed).count() >= SUSPECT_MISSES
    }

    /// Returns whether payload was sent within the last [`BUSY_TIME`].
    pub fn is_busy(&self, now: Uptime) -> bool {
        self.busy_until > now
    }

    /// The reading for the planner and for telemetry; it knows nothing of full-size packets.
    pub fn reading(&self, slot: Slot, now: Uptime) -> ProbeReading {
        let ProbeCounts { sent, lost } = self.history.minute(now);
        ProbeReading {
            slot,
            rtt: self.rtt,
            jitter: self.jitter,
            sent,
            lost,
            recent: self.history.ten_minutes(now),
            rx_frames: self.rx_frames,
            tx_frames: self.tx_frames,
            full_size: FullSize::Unknown,
        }
    }

    /// All probes since the tunnel came up.
    pub fn totals(&self) -> &ProbeTotals {
        self.history.totals()
    }

    /// All probes of a tunnel that has closed: those whose answer is overdue count as lost.
    pub fn into_totals(mut self, now: Uptime) -> ProbeTotals {
        let timeout = self.timeout();
        let is_overdue = |(_, sent): &&(Seq, Uptime)| now.since(*sent) >= timeout;
        let overdue = self.outstanding.iter().filter(is_overdue).count();
        self.history
            .count(now, 0, u32::try_from(overdue).unwrap_or(u32::MAX));
        self.history.totals().clone()
    }

    /// The time after which an answer counts as missed.
    fn timeout(&self) -> Duration {
        MIN_TIMEOUT.max(self.rtt.unwrap_or_default() + self.jitter * 4)
    }

    /// Gives up waiting for old answers.
    fn drop_old_probes(&mut self, now: Uptime) {
        let is_old = |probe: Option<&(Seq, Uptime)>| {
            probe.is_some_and(|(_, sent)| now.since(*sent) >= ANSWER_LIFETIME)
        };
        while is_old(self.outstanding.front()) || self.outstanding.len() > MAX_OUTSTANDING {
            self.outstanding.pop_front();
            self.history.count(now, 0, 1);
        }
    }
}

#[cfg(test)]
mod tests;
