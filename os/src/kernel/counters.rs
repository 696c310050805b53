//! Reads the counters of all links by one `RTM_GETSTATS` dump on a socket of its own.
//!
//! The messages are encoded and decoded here, without a library, since this runs twice a second: one request of
//! 28 bytes, one buffer, and the first 32 bytes of each entry. linux/netlink.h and linux/if_link.h define the
//! formats.

use super::{AcceptingKind, Kernel, KernelError};
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
        sockopt::ReceiveTimeout,
    },
    time::TimeVal,
};
use policies::{
    names::{Role, Slot},
    observation::LinkCounters,
};
use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

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
/// Size of the Ethernet header. VLAN links do not count it in received bytes, but TAPs and macvlans do.
const ETHERNET_HEADER: u64 = 14;
/// Size of the receive buffer; the kernel sends at most this much of a dump at once.
const BUFFER_BYTES: usize = 32 * 1024;

/// A socket for dumps of counters, with its buffer.
pub(super) struct Counters {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Kernel {
    /// Returns the counters of each slot of this handle since the slot was created. A slot that somebody deleted
    /// is missing.
    ///
    /// It takes one system call to send the request, and two or three to receive the answer, which the kernel has
    /// ready at once.
    ///
    /// # Errors
    ///
    /// The kernel rejects the request, or its answer is malformed.
    pub fn counters(&self) -> Result<BTreeMap<Slot, LinkCounters>, KernelError> {
        let doing = || KernelError::refused("read the links' counters");
        let mut state = self.state();
        let has_vlan_links = state.accepting == Some(Some(AcceptingKind::Vlan));
        let slots: BTreeMap<u32, Slot> = state
            .slots
            .iter()
            .map(|(slot, index)| (*index, *slot))
            .collect();
        let counters = match &mut state.counters {
            Some(counters) => counters,
            empty => empty.insert(Counters::open().map_err(doing())?),
        };
        let mut all = BTreeMap::new();
        let read = counters.read(|index, mut link| {
            if let Some(slot) = slots.get(&index) {
                if has_vlan_links && slot.role() == Role::Accepted {
                    let headers = link.rx_packets.saturating_mul(ETHERNET_HEADER);
                    link.rx_bytes = link.rx_bytes.saturating_add(headers);
                }
                all.insert(*slot, link);
            }
        });
        read.map_err(doing())?;
        Ok(all)
    }
}

impl Counters {
    fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        // The answer is ready when the request returns. If it ever is not, the daemon does not hang.
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(1, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    fn read(&mut self, mut each: impl FnMut(u32, LinkCounters)) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let fd = self.socket.as_raw_fd();
        send(fd, &request(self.sequence), MsgFlags::empty())?;
        loop {
            let length = recv(fd, &mut self.buffer, MsgFlags::empty())?;
            let received = self.buffer.get(..length).unwrap_or_default();
            if scan(received, self.sequence, &mut each)? {
                return Ok(());
            }
        }
    }
}

fn request(sequence: u32) -> Vec<u8> {
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

/// Calls `each` with every entry of this dump; returns whether the dump is complete.
fn scan(
    mut messages: &[u8],
    sequence: u32,
    each: &mut impl FnMut(u32, LinkCounters),
) -> io::Result<bool> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    while !messages.is_empty() {
        let length = usize::try_from(u32_at(messages, 0).ok_or_else(malformed)?).unwrap_or(0);
        let message = messages.get(..length).filter(|_| length >= MESSAGE_HEADER);
        let message = message.ok_or_else(malformed)?;
        messages = messages
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        // Messages that an earlier dump left unread when it failed are skipped.
        if u32_at(message, 8) != Some(sequence) {
            continue;
        }
        match u16_at(message, 4).ok_or_else(malformed)? {
            RTM_NEWSTATS => {
                let (index, link) = decode_entry(message).ok_or_else(malformed)?;
                each(index, link);
            }
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = u32_at(message, MESSAGE_HEADER).ok_or_else(malformed)?;
                let code = i32::from_ne_bytes(code.to_ne_bytes());
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
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
