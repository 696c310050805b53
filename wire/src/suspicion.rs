//! The datagram that announces "I suspect that node P/L is dead". It proves nothing and only makes
//! others probe.
//!
//! ```text
//! 0..4   "wrnS"
//! 4      version, 1
//! 5      L, 1..=32
//! 6..8   zero
//! 8..12  P, big-endian, below 2^L
//! 12..20 nonce, the same in all copies of one suspicion
//! ```

use policies::names::Prefix;

/// UDP port, on slots and on the node's own address.
pub const PORT: u16 = 327;
/// Bytes of the datagram; every other size is refused.
pub const SIZE: usize = 20;

const MAGIC: [u8; 4] = *b"wrnS";
const VERSION: u8 = 1;

/// A suspicion about one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// The prefix of the node that may be dead.
    pub peer: Prefix,
    /// A number that identifies the copies of one suspicion.
    pub nonce: u64,
}

impl Suspicion {
    /// Encodes the datagram.
    pub fn encode(self) -> [u8; SIZE] {
        let [m0, m1, m2, m3] = MAGIC;
        let [p0, p1, p2, p3] = self.peer.number().to_be_bytes();
        let [n0, n1, n2, n3, n4, n5, n6, n7] = self.nonce.to_be_bytes();
        let length = self.peer.length();
        [
            m0, m1, m2, m3, VERSION, length, 0, 0, p0, p1, p2, p3, n0, n1, n2, n3, n4, n5, n6, n7,
        ]
    }

    /// `None` unless it is, byte for byte, what [`Suspicion::encode`] makes.
    pub fn decode(datagram: &[u8]) -> Option<Self> {
        let bytes: [u8; SIZE] = datagram.try_into().ok()?;
        let [
            _,
            _,
            _,
            _,
            _,
            length,
            _,
            _,
            p0,
            p1,
            p2,
            p3,
            n0,
            n1,
            n2,
            n3,
            n4,
            n5,
            n6,
            n7,
        ] = bytes;
        let peer = Prefix::new(u32::from_be_bytes([p0, p1, p2, p3]), length)?;
        let nonce = u64::from_be_bytes([n0, n1, n2, n3, n4, n5, n6, n7]);
        let suspicion = Self { peer, nonce };
        (suspicion.encode() == bytes).then_some(suspicion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn suspicion() -> Suspicion {
        Suspicion {
            peer: Prefix::new(7, 16).unwrap(),
            nonce: 0x0102_0304_0506_0708,
        }
    }

    /// Changes one byte of a good datagram.
    #[track_caller]
    fn check(at: usize, value: u8, good: bool) {
        let mut bytes = suspicion().encode();
        bytes[at] = value;
        assert_eq!(
            Suspicion::decode(&bytes).is_some(),
            good,
            "byte {at} = {value}"
        );
    }

    #[test]
    fn the_bytes_are_those_of_the_documented_layout() {
        let expected = b"wrnS\x01\x10\0\0\0\0\0\x07\x01\x02\x03\x04\x05\x06\x07\x08";
        assert_eq!(&suspicion().encode(), expected);
    }

    #[test]
    fn another_magic_version_or_reserved_byte_is_refused() {
        for (at, value) in [(0, b'x'), (4, 0), (4, 2), (6, 1), (7, 1)] {
            check(at, value, false);
        }
        check(12, 0xff, true);
    }

    #[test]
    fn a_number_beyond_its_length_is_refused() {
        check(5, 2, false);
        check(5, 3, true);
        check(5, 0, false);
        check(5, 33, false);
    }

    #[test]
    fn any_other_size_is_refused() {
        let bytes = suspicion().encode();
        assert_eq!(Suspicion::decode(&bytes[..SIZE - 1]), None);
        assert_eq!(Suspicion::decode(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(Suspicion::decode(&[]), None);
    }

    proptest! {
        #[test]
        fn every_suspicion_round_trips(length in 1..=32u8, number: u32, nonce: u64) {
            let number = if length == 32 { number } else { number % (1 << length) };
            let suspicion = Suspicion { peer: Prefix::new(number, length).unwrap(), nonce };
            prop_assert_eq!(Suspicion::decode(&suspicion.encode()), Some(suspicion));
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            if let Some(suspicion) = Suspicion::decode(&bytes) {
                prop_assert_eq!(suspicion.encode().to_vec(), bytes);
            }
        }
    }
}
