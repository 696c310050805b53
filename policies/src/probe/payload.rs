//! Counts payload apart from what the daemon and babeld send themselves.

use super::{Probing, Sample};

/// Up to this size a frame counts as small, in bytes.
const SMALL_FRAME: u64 = 300;

impl Probing {
    /// Returns how many bytes large frames have sent since the tunnel came up, in excess of `SMALL_FRAME` for each frame. One
    /// of full size counts about 1,100.
    pub fn large_bytes(&self) -> u64 {
        self.large_bytes
    }

    /// Counts the bytes that were sent between two samples.
    pub(super) fn count_large(&mut self, from: &Sample, to: &Sample) {
        let grown = to.counters.since(from.counters);
        let excess = grown.map_or(0, |grown| {
            let small = grown.tx_packets.saturating_mul(SMALL_FRAME);
            grown.tx_bytes.saturating_sub(small)
        });
        self.large_bytes = self.large_bytes.saturating_add(excess);
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
