//! Messages of nodes on a LAN: what decodes encodes to the same bytes, and nothing opens without the network's key.

use wire::lan;

/// The input is a datagram, or a message after it was decrypted.
pub fn check(input: &[u8]) {
    assert_eq!(lan::open(input, &[vec![0x5a; 256]]), None);
    if let Some(message) = lan::decode(input) {
        assert_eq!(lan::encode(&message), input);
    }
}
