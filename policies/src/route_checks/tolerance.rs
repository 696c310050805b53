//! How long a lie is tolerated that a neighbour may have forwarded, and what counts as one announcement of it.

use super::SuspicionKind;
use crate::units::Uptime;
use std::time::Duration;

/// Time after a packet in which a reading of the tables may not contain its routes yet.
const PACKET_TIME: Duration = Duration::from_secs(1);
/// Longest time between two packets with a false router id for which both belong to one announcement, if babeld does not use the route.
const PACKET_GAP: Duration = Duration::from_secs(3);
/// Time for which a forwarded lie is tolerated.
struct Tolerance {
    /// The time if the announced metric is below [`HOP_METRIC`].
    base: Duration,
    /// Additional time for each [`HOP_METRIC`] of the announced metric: in it the node before reads its table, closes the tunnel, and
    /// its babeld retracts the route.
    per_hop: Duration,
}

/// The tolerance for a false router id. The tables are read four times a second meanwhile, and a retraction takes up to
/// half a second from one babeld to the next.
const ROUTER_ID_TOLERANCE: Tolerance = Tolerance {
    base: Duration::from_millis(500),
    per_hop: Duration::from_millis(1_750),
};
/// The tolerance for too many nodes, whose routes are many packets.
const CROWD_TOLERANCE: Tolerance = Tolerance {
    base: Duration::from_secs(4),
    per_hop: Duration::from_secs(6),
};
/// The least metric that a hop through a tunnel adds (babeld's cost of a tunnel).
const HOP_METRIC: u16 = 96;
/// The highest number of hops for which time is added.
const MAX_HOPS: u32 = 20;
/// Something that a neighbour announces and may have forwarded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched {
    pub(super) since: Uptime,
    /// When a packet last said it; `None` if only readings did.
    pub(super) packet_at: Option<Uptime>,
}

impl Watched {
    /// Whether an entry that is in no reading is kept: packets say the same again and again, or no reading contains
    /// the routes of a packet yet.
    pub(super) fn is_recent(&self, kind: SuspicionKind, now: Uptime) -> bool {
        match self.packet_at {
            Some(at) if kind == SuspicionKind::RouterId => now.since(at) < PACKET_GAP,
            Some(_) | None => now.since(self.since) < PACKET_TIME,
        }
    }
}

/// The time for which a lie is tolerated that may be another node's.
pub(super) fn tolerated_time(kind: SuspicionKind, refmetric: u16) -> Duration {
    let hops = u32::from(refmetric / HOP_METRIC).min(MAX_HOPS);
    let tolerance = match kind {
        SuspicionKind::Origin | SuspicionKind::Address | SuspicionKind::Range => {
            return Duration::ZERO;
        }
        SuspicionKind::RouterId if refmetric == 0 => return Duration::ZERO,
        SuspicionKind::RouterId => ROUTER_ID_TOLERANCE,
        SuspicionKind::TooManyNodes => CROWD_TOLERANCE,
    };
    tolerance.base + tolerance.per_hop * hops
}
