//! Reads link counters from /proc/net/dev, for tests that do without netlink.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper of tests"
)]

use super::*;

/// The links in the network namespace of this thread.
#[derive(Clone)]
pub(crate) struct ProcLinks;

impl LinkCounterReader for ProcLinks {
    type Error = Infallible;

    async fn counters(&self) -> Result<BTreeMap<Slot, LinkCounters>, Infallible> {
        let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let link = |line: &str| {
            let (name, numbers) = line.split_once(':')?;
            let numbers: Vec<u64> = numbers
                .split_whitespace()
                .map(|n| n.parse().unwrap())
                .collect();
            let [
                rx_bytes,
                rx_packets,
                _,
                _,
                _,
                _,
                _,
                _,
                tx_bytes,
                tx_packets,
                ..,
            ] = *numbers
            else {
                return None;
            };
            Some((
                name.trim().parse().ok()?,
                LinkCounters {
                    rx_bytes,
                    tx_bytes,
                    rx_packets,
                    tx_packets,
                    ..LinkCounters::default()
                },
            ))
        };
        Ok(text.lines().filter_map(link).collect())
    }
}
