//! Sends and receives Ethernet frames on a TAP's descriptor, in netns of OpenVPN.
#![expect(unsafe_code, reason = "ioctl(2) of /dev/net/tun has no safe wrapper")]

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    net::Ipv6Addr,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::OpenOptionsExt,
    },
};

nix::ioctl_write_ptr_bad!(
    set_interface,
    nix::request_code_write!(b'T', 202, 4),
    [u8; 40]
);

/// The MAC of the peer.
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// The MAC of the multicast address ff02::1.
pub(crate) const ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

/// An open TAP, which therefore has a carrier.
pub(crate) struct Tap(File);

impl Tap {
    #[track_caller]
    pub(crate) fn open(name: &str) -> Self {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .unwrap();
        let mut request = [0; 40];
        request[..name.len()].copy_from_slice(name.as_bytes());
        // IFF_TAP | IFF_NO_PI
        request[16..18].copy_from_slice(&0x1002_u16.to_ne_bytes());
        // SAFETY: the descriptor is open, and `request` is as long as struct ifreq.
        unsafe { set_interface(file.as_raw_fd(), &raw const request) }.unwrap();
        Self(file)
    }

    #[track_caller]
    pub(crate) fn send(&self, frame: &[u8]) {
        assert_eq!((&self.0).write(frame).unwrap(), frame.len());
    }

    /// Returns VLAN, source MAC and sequence number of each echo reply that arrives until no frame arrives for
    /// 0.1 s. Every frame must have a tag and the MAC of a slot.
    #[track_caller]
    pub(crate) fn answers(&self) -> Vec<(u16, [u8; 6], u16)> {
        let mut found = Vec::new();
        let mut frame = [0; 2048];
        loop {
            let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::from(100_u8)).unwrap() == 0 {
                return found;
            }
            let length = (&self.0).read(&mut frame).unwrap();
            let frame = &frame[..length];
            assert_eq!(
                frame[12..14],
                [0x81, 0],
                "a frame without a tag: {frame:x?}"
            );
            let vlan = u16::from_be_bytes([frame[14], frame[15]]);
            let source: [u8; 6] = frame[6..12].try_into().unwrap();
            assert_eq!(source, mac(vlan));
            let packet = &frame[18..];
            if packet[6] == 58 && packet[40] == ECHO_REPLY {
                found.push((vlan, source, u16::from_be_bytes([packet[46], packet[47]])));
            }
        }
    }
}

/// Returns the MAC of the accepting slot with that VLAN.
pub(crate) fn mac(vlan: u16) -> [u8; 6] {
    wire::overlay::accepting_mac(vlan)
}

/// Builds an 802.1Q tag.
pub(crate) fn tag(vlan: u16) -> Vec<u8> {
    [[0x81, 0], vlan.to_be_bytes()].concat()
}

/// Builds a frame with an ICMPv6 echo request from fe80::9 to node 7/16, or to all nodes if `to` is
/// multicast.
pub(crate) fn echo(to: [u8; 6], tags: &[u8], sequence: u16, payload: usize) -> Vec<u8> {
    let source: Ipv6Addr = "fe80::9".parse().unwrap();
    let target: Ipv6Addr = if to == ALL_NODES {
        "ff02::1"
    } else {
        "fe80::10:0:7"
    }
    .parse()
    .unwrap();
    let mut message = vec![ECHO_REQUEST, 0, 0, 0, 0, 77];
    message.extend(sequence.to_be_bytes());
    message.resize(8 + payload, b'x');
    let length = u16::try_from(message.len()).unwrap();
    // RFC 8200, section 8.1.
    let mut summed = [source.octets(), target.octets()].concat();
    summed.extend(u32::from(length).to_be_bytes());
    summed.extend([0, 0, 0, 58]);
    summed.extend(&message);
    message[2..4].copy_from_slice(&checksum(&summed).to_be_bytes());
    let mut frame = [to, PEER].concat();
    frame.extend(tags);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([58, 64]);
    frame.extend(source.octets());
    frame.extend(target.octets());
    frame.extend(message);
    frame
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap()
}
