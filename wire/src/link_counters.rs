//! Encodes the request for the counters of all links, and decodes the kernel's answer (`RTM_GETSTATS`).
//!
//! This is done without a library, since it runs twice a second: one request of 28 bytes, and the first 64 bytes of each
//! entry. linux/netlink.h and linux/if_link.h define the formats.

use policies::observation::LinkCounters;

const RTM_NEWSTATS: u16 = 92;
const RTM_GETSTATS: u16 = 94;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const REQUEST_DUMP: u16 = 0x301;
const IFLA_STATS_LINK_64: u16 = 1;
/// The filter `IFLA_STATS_FILTER_BIT(IFLA_STATS_LINK_64)`.
const FILTER_LINK_64: u32 = 1;
const MESSAGE_HEADER: usize = 16;
/// The size of `struct if_stats_msg`.
const STATS_HEADER: usize = 12;

/// The reason why an answer cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanError {
    /// A message is truncated, or has a wrong length.
    Malformed,
    /// The kernel rejected the request with this error number.
    Rejected(i32),
}

/// Encodes the request; the answer carries the same number.
pub fn request(sequence: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MESSAGE_HEADER + STATS_HEADER);
    bytes.extend(28_u32.to_ne_bytes());
    bytes.extend(RTM_GETSTATS.to_ne_bytes());
    bytes.extend(REQUEST_DUMP.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    // Port id of the sender; family and padding; interface index.
    bytes.extend([0; 12]);
    bytes.extend(FILTER_LINK_64.to_ne_bytes());
    bytes
}

/// Calls `each` with the interface index and the counters of every entry of this dump; returns whether the dump is complete.
///
/// # Errors
/// The bytes are malformed, or contain an error of the kernel.
pub fn scan(
    mut messages: &[u8],
    sequence: u32,
    each: &mut impl FnMut(u32, LinkCounters),
) -> Result<bool, ScanError> {
    while !messages.is_empty() {
        let length = usize::try_from(u32_at(messages, 0).ok_or(ScanError::Malformed)?).unwrap_or(0);
        let message = messages.get(..length).filter(|_| length >= MESSAGE_HEADER);
        let message = message.ok_or(ScanError::Malformed)?;
        messages = messages
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        // Messages that an earlier dump left unread when it failed are skipped.
        if u32_at(message, 8) != Some(sequence) {
            continue;
        }
        match u16_at(message, 4).ok_or(ScanError::Malformed)? {
            RTM_NEWSTATS => {
                let (index, link) = decode_entry(message).ok_or(ScanError::Malformed)?;
                each(index, link);
            }
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = u32_at(message, MESSAGE_HEADER).ok_or(ScanError::Malformed)?;
                let code = i32::from_ne_bytes(code.to_ne_bytes());
                return Err(ScanError::Rejected(code.saturating_neg()));
            }
            _ => {}
        }
    }
    Ok(false)
}

/// Returns the interface index and the counters of one entry.
fn decode_entry(message: &[u8]) -> Option<(u32, LinkCounters)> {
    let index = u32_at(message, MESSAGE_HEADER + 4)?;
    let mut attributes = message.get(MESSAGE_HEADER + STATS_HEADER..)?;
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let kind = u16_at(attributes, 2)?;
        let value = attributes.get(4..length)?;
        if kind == IFLA_STATS_LINK_64 {
            // These are the first fields of struct rtnl_link_stats64.
            let link = LinkCounters {
                rx_packets: u64_at(value, 0)?,
                tx_packets: u64_at(value, 8)?,
                rx_bytes: u64_at(value, 16)?,
                tx_bytes: u64_at(value, 24)?,
                // Between them are the numbers of errors.
                rx_dropped: u64_at(value, 48)?,
                tx_dropped: u64_at(value, 56)?,
            };
            return Some((index, link));
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|chunk| u16::from_ne_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|chunk| u32::from_ne_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|chunk| u64::from_ne_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One entry as Linux sends it.
    fn message(kind: u16, sequence: u32, index: u32, counters: [u64; 25]) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend([0; 4]);
        body.extend(index.to_ne_bytes());
        body.extend(FILTER_LINK_64.to_ne_bytes());
        body.extend(204_u16.to_ne_bytes());
        body.extend(IFLA_STATS_LINK_64.to_ne_bytes());
        counters
            .iter()
            .for_each(|counter| body.extend(counter.to_ne_bytes()));
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(body.len() + 16).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: Option<(Vec<(u32, u64)>, bool)>) {
        let mut seen = Vec::new();
        let is_complete = scan(bytes, 7, &mut |index, link| {
            seen.push((index, link.rx_bytes))
        });
        assert_eq!(
            is_complete.ok().map(|is_complete| (seen, is_complete)),
            expected
        );
    }

    #[test]
    fn each_counter_is_read_from_its_place() {
        let counters = std::array::from_fn(|place| u64::try_from(place).unwrap());
        let entry = message(RTM_NEWSTATS, 7, 3, counters);
        let expected = LinkCounters {
            rx_packets: 0,
            tx_packets: 1,
            rx_bytes: 2,
            tx_bytes: 3,
            rx_dropped: 6,
            tx_dropped: 7,
        };
        assert_eq!(decode_entry(&entry), Some((3, expected)));
    }

    fn counters(rx_bytes: u64) -> [u64; 25] {
        let mut all = [1; 25];
        all[2] = rx_bytes;
        all
    }

    #[test]
    fn entries_of_this_dump_are_read_until_it_is_complete() {
        let mut bytes = message(RTM_NEWSTATS, 7, 3, counters(100));
        bytes.extend(message(RTM_NEWSTATS, 6, 4, counters(200)));
        bytes.extend(message(RTM_NEWSTATS, 7, 5, counters(300)));
        check(&bytes, Some((vec![(3, 100), (5, 300)], false)));
        bytes.extend(message(NLMSG_DONE, 7, 0, [0; 25]));
        check(&bytes, Some((vec![(3, 100), (5, 300)], true)));
    }

    #[test]
    fn a_truncated_message_is_an_error_and_causes_no_panic() {
        let complete = message(RTM_NEWSTATS, 7, 3, counters(100));
        for length in 1..complete.len() {
            check(&complete[..length], None);
        }
    }

    #[test]
    fn a_message_with_a_wrong_length_field_is_an_error() {
        for length in [0_u32, 15, 16, 27, 35, 1 << 20, u32::MAX] {
            let mut bytes = message(RTM_NEWSTATS, 7, 3, counters(100));
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            check(&bytes, None);
        }
    }
}
