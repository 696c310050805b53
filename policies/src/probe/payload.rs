//! Tells payload from what the daemon and babeld send themselves.

use super::{Probing, Sample};
use crate::units::Uptime;

impl Probing {
    /// Returns whether payload was sent in the last span over which frames were compared, or keeps the tunnel busy.
    pub fn has_payload(&self, now: Uptime) -> bool {
        self.had_payload || self.is_busy(now)
    }

    /// Returns whether more was sent between two samples than Babel and the probes send.
    pub(super) fn has_sent_payload(&self, from: &Sample, to: &Sample) -> bool {
        let grown = to.counters.since(from.counters);
        let packets = grown.map_or(0, |grown| grown.tx_packets);
        let probes = to.tx_frames.saturating_sub(from.tx_frames);
        let babel = self.pace.floor.packets(to.at.since(from.at));
        packets > babel.saturating_add(probes)
    }
}
