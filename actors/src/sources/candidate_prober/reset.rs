//! Encodes the first packet of an OpenVPN client, which serves as an RTT probe.
//!
//! A server with the same `tls-crypt` key answers at once and keeps no state: 54 bytes to the server, 66 bytes back, no line in
//! its log (measured with OpenVPN 2.6.14).
//!
//! The format is described in OpenVPN's `doc/tls-crypt-v2.txt` and `tls_crypt.c`: opcode and session id, packet id and time, an
//! HMAC-SHA256 tag over these and the plaintext, and the plaintext encrypted with AES-256-CTR.

use ring::{
    aead::quic::{AES_256, HeaderProtectionKey},
    hmac,
};

/// The opcode `P_CONTROL_HARD_RESET_CLIENT_V2`, with key id 0.
const CLIENT_RESET: u8 = 7 << 3;
/// The opcode `P_CONTROL_HARD_RESET_SERVER_V2`, with key id 0.
const SERVER_RESET: u8 = 8 << 3;
/// Minimum length of an answer in bytes: opcode, session id, packet id and time, tag, and the encrypted acknowledgements.
const MIN_ANSWER_LENGTH: usize = 1 + 8 + 8 + 32 + 1;

/// The network's `tls-crypt` key, as a client uses it. The debug output omits the key.
pub struct ResetKey {
    cipher: HeaderProtectionKey,
    hmac: hmac::Key,
}

impl std::fmt::Debug for ResetKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResetKey { .. }")
    }
}

impl ResetKey {
    /// Reads the 256 bytes of a static key; `None` for another length. Clients encrypt and sign with the second half.
    pub fn new(key: &[u8]) -> Option<Self> {
        let (cipher, hmac) = (key.get(128..160)?, key.get(192..224)?);
        // ring has no AES-CTR. QUIC's header protection encrypts one block with AES and returns its first five bytes (RFC 9001,
        // 5.4.3). They equal the first five bytes of the keystream of AES-CTR, and the plaintext has no more than five.
        let cipher = HeaderProtectionKey::new(&AES_256, cipher).ok()?;
        (key.len() == 256).then(|| Self {
            cipher,
            hmac: hmac::Key::new(hmac::HMAC_SHA256, hmac),
        })
    }

    /// Encodes the first packet of a new session. `time_s` is in seconds, of any clock.
    pub fn packet(&self, session: [u8; 8], time_s: u32) -> Option<Vec<u8>> {
        let mut packet = vec![CLIENT_RESET];
        packet.extend_from_slice(&session);
        packet.extend_from_slice(&1u32.to_be_bytes());
        packet.extend_from_slice(&time_s.to_be_bytes());
        // The plaintext acknowledges no packet, and has message id 0.
        let plaintext = [0u8; 5];
        let mut authenticated = hmac::Context::with_key(&self.hmac);
        authenticated.update(&packet);
        authenticated.update(&plaintext);
        let tag = authenticated.sign();
        let keystream = self.cipher.new_mask(tag.as_ref().get(..16)?).ok()?;
        packet.extend_from_slice(tag.as_ref());
        packet.extend(
            plaintext
                .iter()
                .zip(keystream)
                .map(|(plaintext, mask)| plaintext ^ mask),
        );
        Some(packet)
    }
}

/// Returns whether a datagram looks like a server's answer. The tag is not verified: the sender of a forged answer only gains
/// that we may dial it.
pub fn is_answer(datagram: &[u8]) -> bool {
    datagram.first() == Some(&SERVER_RESET) && datagram.len() >= MIN_ANSWER_LENGTH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(datagram: &[u8], expected: bool) {
        assert_eq!(is_answer(datagram), expected);
    }

    #[test]
    fn the_packet_equals_that_of_an_independent_implementation() {
        let key: Vec<u8> = (0..=255).collect();
        let packet = ResetKey::new(&key)
            .unwrap()
            .packet([1, 2, 3, 4, 5, 6, 7, 8], 1000)
            .unwrap();
        let hex: String = packet.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "38010203040506070800000001000003e8830fd2185471fbab2026860d2b72b42f4096c55bb4968b6e6ff778a4dbb17f815aa23db5a2"
        );
    }

    #[test]
    fn a_key_of_another_length_is_rejected() {
        assert!(ResetKey::new(&[0; 255]).is_none() && ResetKey::new(&[0; 257]).is_none());
    }

    #[test]
    fn only_a_servers_reset_is_an_answer() {
        check(&[0x40; 66], true);
        check(&[0x40; 49], false);
        check(&[0x38; 66], false);
        check(&[], false);
    }
}
