//! The datagrams by which nodes of one network find each other on a link.
//!
//! ```text
//! 0..32    random; with it and the network's key, the key of this datagram is derived (HKDF-SHA256, RFC 5869)
//! 32..140  the message, encrypted (AES-256-GCM)
//! 140..156 tag
//! ```
//!
//! A datagram has a fixed size, and looks random to anybody without the network's key. The message:
//!
//! ```text
//! 0       version, 1
//! 1       flags: 1: it answers another message; 2: it asks for an answer
//! 2       L, 1..=32
//! 3       number of addresses, 0..=4
//! 4..8    P, big-endian, below 2^L
//! 8..24   nonce of the sender
//! 24..40  nonce of the message that it answers; zero if it answers none
//! 40..42  UDP port, 0 if the sender accepts no tunnels by UDP
//! 42..44  TCP port, likewise
//! 44..108 addresses of the sender on the link, IPv4 ones as IPv4-mapped IPv6 addresses; zero after the last
//! ```
//!
//! Every member has the network's key, so a message proves that its sender is a member, not which one.

use policies::{
    lan_discovery::{LanMessage, MAX_ADDRESSES},
    names::Prefix,
};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
    rand::{SecureRandom, SystemRandom},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// UDP port on which nodes send and receive these datagrams.
pub const PORT: u16 = 328;
/// The IPv6 group: transient, of link-local scope (RFC 4291, section 2.7); its last bytes spell "warren".
pub const GROUP: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0x7761, 0x7272, 0x656e);
/// The IPv4 group, in the scope that never leaves a site (RFC 2365, section 6.1); datagrams to it have a TTL of 1.
pub const GROUP4: Ipv4Addr = Ipv4Addr::new(239, 255, 119, 97);
/// Bytes of the datagram; every other size is rejected.
pub const SIZE: usize = SALT + MESSAGE + TAG;

const SALT: usize = 32;
/// Bytes of a message before it is encrypted.
pub const MESSAGE: usize = 44 + 16 * MAX_ADDRESSES;
const TAG: usize = 16;
const VERSION: u8 = 1;
const IS_ANSWER: u8 = 1;
const WANTS_ANSWER: u8 = 2;
/// Separates these keys from all others that could be derived from the same key.
const PURPOSE: &[u8] = b"warren LAN discovery, version 1";

/// Encrypts a message with the network's key; `None` if the system has no random bytes.
pub fn seal(message: &LanMessage, key: &[u8]) -> Option<Vec<u8>> {
    let mut salt = [0; SALT];
    SystemRandom::new().fill(&mut salt).ok()?;
    let mut sealed = encode(message).to_vec();
    cipher(&salt, key)?
        .seal_in_place_append_tag(zero_nonce(), Aad::empty(), &mut sealed)
        .ok()?;
    Some([salt.to_vec(), sealed].concat())
}

/// Decrypts a datagram with one of the network's keys; `None` unless a member sealed it.
pub fn open(datagram: &[u8], keys: &[Vec<u8>]) -> Option<LanMessage> {
    if datagram.len() != SIZE {
        return None;
    }
    let (salt, sealed) = datagram.split_at_checked(SALT)?;
    keys.iter().find_map(|key| {
        let mut sealed = sealed.to_vec();
        let cipher = cipher(salt, key)?;
        let opened = cipher.open_in_place(zero_nonce(), Aad::empty(), &mut sealed);
        decode(opened.ok()?)
    })
}

/// Returns the cipher of one datagram. Its key encrypts this datagram alone, so that one nonce suffices.
fn cipher(salt: &[u8], key: &[u8]) -> Option<LessSafeKey> {
    let derived = Salt::new(HKDF_SHA256, salt).extract(key);
    let derived = derived.expand(&[PURPOSE], &AES_256_GCM).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(derived)))
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// Encodes a message before it is encrypted; addresses beyond [`MAX_ADDRESSES`] are left out.
pub fn encode(message: &LanMessage) -> [u8; MESSAGE] {
    let addresses = message.addresses.iter().take(MAX_ADDRESSES);
    let is_answer = message.answers.map_or(0, |_| IS_ANSWER);
    let wants_answer = if message.wants_answer {
        WANTS_ANSWER
    } else {
        0
    };
    let mut bytes = vec![
        VERSION,
        is_answer | wants_answer,
        message.sender.length(),
        u8::try_from(addresses.len()).unwrap_or(0),
    ];
    bytes.extend(message.sender.number().to_be_bytes());
    bytes.extend(message.nonce.to_be_bytes());
    bytes.extend(message.answers.unwrap_or(0).to_be_bytes());
    bytes.extend(message.udp_port.to_be_bytes());
    bytes.extend(message.tcp_port.to_be_bytes());
    for address in addresses {
        bytes.extend(to_v6(*address).octets());
    }
    bytes.resize(MESSAGE, 0);
    let mut message = [0; MESSAGE];
    message.copy_from_slice(&bytes);
    message
}

/// Decodes a message that was decrypted; `None` unless it is, byte for byte, what [`encode`] makes.
pub fn decode(bytes: &[u8]) -> Option<LanMessage> {
    let mut reader = Reader(bytes);
    let [version, flags, length, count] = reader.take()?;
    let number = u32::from_be_bytes(reader.take()?);
    let nonce = u128::from_be_bytes(reader.take()?);
    let answers = u128::from_be_bytes(reader.take()?);
    let (udp_port, tcp_port) = (
        u16::from_be_bytes(reader.take()?),
        u16::from_be_bytes(reader.take()?),
    );
    let mut addresses = Vec::new();
    for _ in 0..usize::from(count).min(MAX_ADDRESSES) {
        addresses.push(Ipv6Addr::from(reader.take::<16>()?).to_canonical());
    }
    let message = LanMessage {
        sender: Prefix::new(number, length)?,
        nonce,
        answers: (flags & IS_ANSWER != 0).then_some(answers),
        wants_answer: flags & WANTS_ANSWER != 0,
        udp_port,
        tcp_port,
        addresses,
    };
    (version == VERSION && encode(&message) == bytes).then_some(message)
}

/// The bytes that are not read yet.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
}

fn to_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &[u8] = &[7; 256];

    fn message() -> LanMessage {
        LanMessage {
            sender: Prefix::new(7, 16).unwrap(),
            nonce: 0x0102,
            answers: Some(0x0304),
            wants_answer: true,
            udp_port: 1194,
            tcp_port: 0,
            addresses: vec!["192.168.1.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        }
    }

    /// Changes one byte of a good message.
    #[track_caller]
    fn check(at: usize, value: u8, is_good: bool) {
        let mut bytes = encode(&message());
        bytes[at] = value;
        assert_eq!(decode(&bytes).is_some(), is_good, "byte {at} = {value}");
    }

    #[test]
    fn a_message_has_one_spelling() {
        assert_eq!(decode(&encode(&message())), Some(message()));
        for (at, value, is_good) in [
            (0, 0, false),
            (0, 2, false),
            (1, 1, true),
            (1, 0, false),
            (1, 7, false),
            (2, 0, false),
            (2, 33, false),
            (3, 5, false),
            (3, 1, false),
            (107, 1, false),
        ] {
            check(at, value, is_good);
        }
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&encode(&message())[..MESSAGE - 1]), None);
    }

    #[test]
    fn only_a_member_can_open_a_datagram_and_no_byte_of_it_can_be_changed() {
        let datagram = seal(&message(), KEY).unwrap();
        let (other, keys) = (vec![8; 256], vec![vec![8; 256], KEY.to_vec()]);
        assert_eq!(datagram.len(), SIZE);
        assert_eq!(open(&datagram, &keys), Some(message()));
        assert_eq!(open(&datagram, &[other]), None);
        assert_eq!(open(&datagram[1..], &keys), None);
        for at in 0..SIZE {
            let mut changed = datagram.clone();
            changed[at] ^= 1;
            assert_eq!(open(&changed, &keys), None, "byte {at}");
        }
    }

    #[test]
    fn two_datagrams_with_the_same_message_have_no_byte_run_in_common() {
        let [one, other] = [(); 2].map(|()| seal(&message(), KEY).unwrap());
        let is_shared = |run: &[u8]| other.windows(4).any(|window| window == run);
        assert!(!one.windows(4).any(is_shared));
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same_bytes(bytes in proptest::collection::vec(0..40u8, MESSAGE)) {
            if let Some(message) = decode(&bytes) {
                prop_assert_eq!(encode(&message).to_vec(), bytes);
            }
        }

        #[test]
        fn no_datagram_breaks_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..SIZE + 2)) {
            prop_assert_eq!(open(&bytes, &[KEY.to_vec()]), None);
        }
    }
}
