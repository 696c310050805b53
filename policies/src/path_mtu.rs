//! Decides when a tunnel is probed with packets of full size, and what a missing answer to them means.
//!
//! A path below a tunnel may drop large packets and not report it, so that small packets pass the tunnel and large ones
//! never do. Each tunnel has one [`PathMtu`]. With each full-size probe goes a small one: if only the small one is
//! answered, the path is too narrow for one of the two directions. This node then reduces the MTU that its kernel
//! assumes for the path; the peer, which probes too, does so for the other direction. Packets between 1280
//! and 1500 bytes need two fragments whatever the MTU, so it is not measured more exactly.

use crate::{names::Transport, units::Uptime};
use std::time::Duration;

/// Shortest time after which a probe counts as missed.
const MIN_TIMEOUT: Duration = Duration::from_millis(300);
/// Shortest time after which a probe through a TCP tunnel counts as missed: TCP may have repeated it once.
const MIN_TCP_TIMEOUT: Duration = Duration::from_millis(500);
/// Round trips that a judgement waits for at least.
const MIN_RTTS: u32 = 4;
/// Number of misses in a row through a new UDP tunnel that show a narrow path.
const UDP_MISSES: u32 = 3;
/// Number of misses in a row that show that a path became narrow which carried full-size packets before. It is larger, since a
/// path that is full of payload loses packets too, and a reduced MTU costs throughput until the tunnel is dialled again.
const UDP_MISSES_LATER: u32 = 6;
/// Number of misses in a row, with a reduced MTU, that show that the path carries no full-size packets at all.
const LOST_MISSES: u32 = 10;
/// Time after which a small probe that is not answered either is given up, so that nothing is concluded.
const GIVE_UP_TIME: Duration = Duration::from_secs(2);
/// A TCP tunnel whose full-size probe is not answered is not judged dead for this long: TCP delivers nothing that it sent later before that.
const TCP_STALL_TIME: Duration = Duration::from_secs(4);
/// The same if the probe was sent because the peer did not answer, so that a dead peer of a tunnel with large packets is not kept for
/// longer. TCP notices a reduced MTU when it next repeats a segment: 0.2, 0.6, 1.4 and 3 s after the first loss (RFC 6298, with
/// Linux' shortest timeout), so that the MTU has to be reduced well before 1.4 s.
const TCP_RECOVERY_TIME: Duration = Duration::from_millis(1_500);
/// Interval between two probes while full-size packets pass, and there are hardly any.
const CHECK_INTERVAL: Duration = Duration::from_secs(300);
/// The same while there are large packets in either direction: the path may have become narrow for the other one.
const LARGE_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// From this many bytes of large packets after a probe on, the next one is due sooner. A probe of each of two nodes and the answers
/// are less, so that they do not make each other probe.
const MIN_LARGE_BYTES: u64 = 6000;
/// Interval between two probes while full-size packets are lost even with a reduced MTU.
const LOST_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Interval at which the MTU is reduced again. The kernel forgets it after ten minutes (`mtu_expires`), and IPv6 does not
/// extend that time.
const REDUCE_INTERVAL: Duration = Duration::from_secs(1);

/// The full-size packets of one tunnel, as probes show them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FullSize {
    /// No probe was answered or judged yet.
    #[default]
    Unknown,
    /// They pass unfragmented.
    Carried,
    /// They pass since the MTU of the path was reduced.
    Fragmented,
    /// They are lost, while small packets pass.
    Lost,
}

impl FullSize {
    /// The names of all values, so that they can be listed before the program runs.
    pub const LABELS: [&'static str; 4] = ["unknown", "carried", "fragmented", "lost"];

    /// The name in documents.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Carried => "carried",
            Self::Fragmented => "fragmented",
            Self::Lost => "lost",
        }
    }
}

/// An action that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathAction {
    /// Send a full-size and a small probe with this sequence number.
    Probe(u16),
    /// Reduce the MTU that the kernel assumes for the path to the peer.
    ReduceMtu,
}

/// A probe that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    sequence: u16,
    sent_at: Uptime,
    is_small_answered: bool,
    /// The tunnel is not judged dead for this long.
    stall_time: Duration,
}

/// The full-size probing of one tunnel, from the moment it came up.
#[derive(Clone, Debug)]
pub struct PathMtu {
    transport: Transport,
    next_sequence: u16,
    outstanding: Option<Outstanding>,
    next_probe_at: Uptime,
    /// When a full-size probe was last answered; `None` before the first answer.
    answered_at: Option<Uptime>,
    /// The bytes of large packets when the last full-size probe was sent.
    large_bytes: u64,
    misses: u32,
    /// When the MTU was last reduced; `None` while it never was.
    reduced_at: Option<Uptime>,
    full_size: FullSize,
}

impl PathMtu {
    /// Starts to probe a tunnel of this transport that just came up, or whose peer has another endpoint now.
    pub fn new(transport: Transport, now: Uptime) -> Self {
        Self {
            transport,
            next_sequence: 0,
            outstanding: None,
            next_probe_at: now,
            answered_at: None,
            large_bytes: 0,
            misses: 0,
            reduced_at: None,
            full_size: FullSize::Unknown,
        }
    }

    /// Returns the next action that is due; to be called until it returns `None`. `rtt` is the round trip of the tunnel's
    /// small probes. While it is unknown, a UDP tunnel is not probed; a TCP tunnel is, since payload may have stalled it
    /// before the first small probe was answered. A tunnel that carries large packets is probed more often; `large_bytes` is what
    /// they have had since it came up, in both directions. `lacks_answers` says that the peer answers no small probes.
    pub fn next_action(
        &mut self,
        rtt: Option<Duration>,
        large_bytes: u64,
        lacks_answers: bool,
        now: Uptime,
    ) -> Option<PathAction> {
        let rtt = match self.transport {
            Transport::Udp => rtt?,
            Transport::Tcp => rtt.unwrap_or_default(),
        };
        if let Some(probe) = self.outstanding {
            self.judge(probe, rtt, now);
        }
        let is_reduction_due = match self.reduced_at {
            Some(reduced_at) => now.since(reduced_at) >= REDUCE_INTERVAL,
            None => self.misses >= self.misses_of_a_narrow_path(),
        };
        if is_reduction_due {
            if self.reduced_at.is_none() {
                self.misses = 0;
            }
            self.reduced_at = Some(now);
            return Some(PathAction::ReduceMtu);
        }
        let has_stalled = lacks_answers && self.can_stall(large_bytes);
        let is_due = has_stalled || self.is_probe_due(large_bytes, now);
        if self.outstanding.is_some() || !is_due {
            return None;
        }
        self.large_bytes = large_bytes;
        if has_stalled {
            // The small probes that the peer did not answer stand for the first miss.
            self.misses = self.misses_of_a_narrow_path();
        }
        let sequence = self.next_sequence;
        self.next_sequence = sequence.wrapping_add(1);
        self.outstanding = Some(Outstanding {
            sequence,
            sent_at: now,
            is_small_answered: false,
            stall_time: match has_stalled {
                true => TCP_RECOVERY_TIME,
                false => TCP_STALL_TIME,
            },
        });
        Some(PathAction::Probe(sequence))
    }

    /// Returns whether large packets may have filled a TCP segment. OpenVPN writes each packet by itself, so probes of full size leave
    /// in segments of their own; only packets that wait for others share segments, which are larger and pass fewer paths.
    fn can_stall(&self, large_bytes: u64) -> bool {
        self.transport == Transport::Tcp
            && self.reduced_at.is_none()
            && self.has_large_packets(large_bytes)
    }

    fn has_large_packets(&self, large_bytes: u64) -> bool {
        large_bytes.saturating_sub(self.large_bytes) >= MIN_LARGE_BYTES
    }

    fn is_probe_due(&self, large_bytes: u64, now: Uptime) -> bool {
        let is_old = |at| now.since(at) >= LARGE_CHECK_INTERVAL;
        let may_be_narrow =
            self.has_large_packets(large_bytes) && self.full_size == FullSize::Carried;
        now >= self.next_probe_at || (may_be_narrow && self.answered_at.is_some_and(is_old))
    }

    /// Takes the answer to a small probe that was sent with a full-size one.
    pub fn on_small_reply(&mut self, sequence: u16) {
        if let Some(probe) = &mut self.outstanding {
            probe.is_small_answered |= probe.sequence == sequence;
        }
    }

    /// Takes the answer to a full-size probe.
    pub fn on_full_size_reply(&mut self, sequence: u16, now: Uptime) {
        if self
            .outstanding
            .is_none_or(|probe| probe.sequence != sequence)
        {
            return;
        }
        self.outstanding = None;
        self.misses = 0;
        self.answered_at = Some(now);
        self.next_probe_at = now + CHECK_INTERVAL;
        self.full_size = match self.reduced_at {
            Some(_) => FullSize::Fragmented,
            None => FullSize::Carried,
        };
    }

    /// What the probes show so far.
    pub fn full_size(&self) -> FullSize {
        self.full_size
    }

    /// Returns whether the tunnel may be silent only because TCP repeats a full-size packet that the path drops.
    pub fn may_stall(&self, now: Uptime) -> bool {
        let is_recent = |probe: Outstanding| now.since(probe.sent_at) < probe.stall_time;
        self.transport == Transport::Tcp && self.outstanding.is_some_and(is_recent)
    }

    /// Through a TCP tunnel, the repetitions by TCP stand for further probes.
    fn misses_of_a_narrow_path(&self) -> u32 {
        match (self.transport, self.full_size) {
            (Transport::Udp, FullSize::Carried) => UDP_MISSES_LATER,
            (Transport::Udp, FullSize::Unknown | FullSize::Fragmented | FullSize::Lost) => {
                UDP_MISSES
            }
            (Transport::Tcp, _) => 1,
        }
    }

    /// Counts an unanswered probe as missed if it is time.
    fn judge(&mut self, probe: Outstanding, rtt: Duration, now: Uptime) {
        let elapsed = now.since(probe.sent_at);
        let rtts = rtt.saturating_mul(MIN_RTTS);
        let (is_missed, is_over) = match self.transport {
            Transport::Udp => {
                let is_missed = probe.is_small_answered && elapsed >= MIN_TIMEOUT.max(rtts);
                (is_missed, is_missed || elapsed >= GIVE_UP_TIME.max(rtts))
            }
            // The probe itself will still arrive, after what TCP repeats.
            Transport::Tcp => {
                let is_first = self.reduced_at.is_none() && self.misses == 0;
                let is_missed = is_first && elapsed >= MIN_TCP_TIMEOUT.max(rtts);
                (is_missed, elapsed >= TCP_STALL_TIME.max(rtts))
            }
        };
        if is_missed {
            self.misses = self.misses.saturating_add(1);
        }
        if !is_over {
            return;
        }
        self.outstanding = None;
        // An unanswered probe is followed by the next one, however long ago large packets were seen.
        self.next_probe_at = now;
        if self.transport == Transport::Tcp {
            self.misses = LOST_MISSES;
        }
        if self.reduced_at.is_some() && self.misses >= LOST_MISSES {
            self.full_size = FullSize::Lost;
            self.next_probe_at = now + LOST_CHECK_INTERVAL;
        }
    }
}

#[cfg(test)]
mod tests;
