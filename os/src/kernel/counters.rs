//! Reads the counters of all links by one `RTM_GETSTATS` dump on a socket of its own.
//!
//! `wire::link_counters` encodes and decodes the messages.

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
use wire::link_counters::{ScanError, request, scan};

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
            if scan(received, self.sequence, &mut each).map_err(read_error)? {
                return Ok(());
            }
        }
    }
}

fn read_error(error: ScanError) -> io::Error {
    match error {
        ScanError::Malformed => io::ErrorKind::InvalidData.into(),
        ScanError::Rejected(code) => io::Error::from_raw_os_error(code),
    }
}
