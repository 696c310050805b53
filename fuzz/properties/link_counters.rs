//! Netlink dumps of counters: no more entries than fit, and the same outcome each time.

use wire::link_counters::scan;

/// Bytes of the shortest entry: two headers, and an attribute with four counters.
const SHORTEST_ENTRY: usize = 16 + 12 + 4 + 4 * 8;

/// The first four bytes are the number of the dump, the rest is what the kernel sent.
pub fn check(input: &[u8]) {
    let Some((sequence, messages)) = input.split_first_chunk::<4>() else {
        return;
    };
    let sequence = u32::from_ne_bytes(*sequence);
    let read = || {
        let mut entries = Vec::new();
        let outcome = scan(messages, sequence, &mut |index, link| {
            entries.push((index, link))
        });
        (outcome.ok(), entries)
    };
    let (outcome, entries) = read();
    assert!(entries.len() * SHORTEST_ENTRY <= messages.len());
    assert_eq!(read(), (outcome, entries));
}
