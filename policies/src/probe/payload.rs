//! Counts payload apart from what the daemon and babeld send themselves.

use super::{Probing, Sample};

/// Up to this size a frame counts as small, in bytes. Small probes and hellos are smaller.
const SMALL_FRAME: u64 = 150;

impl Probing {
    /// Returns how many bytes large frames have had since the tunnel came up, in both directions, in excess of `SMALL_FRAME` for
    /// each frame. One of full size counts about 1,260.
    pub fn large_bytes(&self) -> u64 {
        self.large_bytes
    }

    /// Counts the bytes of large frames between two samples.
    pub(super) fn count_large(&mut self, from: &Sample, to: &Sample) {
        let grown = to.counters.since(from.counters);
        let excess = grown.map_or(0, |grown| {
            let large = |bytes: u64, packets: u64| {
                bytes.saturating_sub(packets.saturating_mul(SMALL_FRAME))
            };
            let sent = large(grown.tx_bytes, grown.tx_packets);
            sent.saturating_add(large(grown.rx_bytes, grown.rx_packets))
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
