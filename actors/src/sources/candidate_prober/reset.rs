//! Makes the first packet of an OpenVPN client, which a server with the same `tls-crypt` key answers at
//! once and without keeping anything: 54 bytes there, 66 back, no line in its log (measured, 2.6.14).
//!
//! Format: OpenVPN's `doc/tls-crypt-v2.txt` and `tls_crypt.c`: opcode and session, packet id and time,
//! HMAC-SHA256 over all that and the plain text, the plain text by AES-256-CTR.

use ring::{
    aead::quic::{AES_256, HeaderProtectionKey},
    hmac,
};

/// `P_CONTROL_HARD_RESET_CLIENT_V2`, key 0.
const CLIENT_RESET: u8 = 7 << 3;
/// `P_CONTROL_HARD_RESET_SERVER_V2`, key 0.
const SERVER_RESET: u8 = 8 << 3;
/// Of an answer: opcode, session, packet id and time, tag; then the ids that it confirms, encrypted.
const LEAST_ANSWER: usize = 1 + 8 + 8 + 32 + 1;

/// The network's `tls-crypt` key, as a client uses it. Prints without the key.
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
    /// From the 256 bytes of a static key: the second half is what clients send by.
    pub fn new(key: &[u8]) -> Option<Self> {
        let (cipher, hmac) = (key.get(128..160)?, key.get(192..224)?);
        // QUIC's header protection is one block of AES, of which it uses five bytes (RFC 9001, 5.4.3).
        // The first five bytes of AES in counter mode are the same, and more are not needed.
        let cipher = HeaderProtectionKey::new(&AES_256, cipher).ok()?;
        (key.len() == 256).then(|| Self {
            cipher,
            hmac: hmac::Key::new(hmac::HMAC_SHA256, hmac),
        })
    }

    /// The packet of a new session at `time_s` (any clock).
    pub fn packet(&self, session: [u8; 8], time_s: u32) -> Option<Vec<u8>> {
        let mut packet = vec![CLIENT_RESET];
        packet.extend_from_slice(&session);
        packet.extend_from_slice(&1u32.to_be_bytes());
        packet.extend_from_slice(&time_s.to_be_bytes());
        // Confirms nothing, and is message 0.
        let plain = [0u8; 5];
        let mut signed = hmac::Context::with_key(&self.hmac);
        signed.update(&packet);
        signed.update(&plain);
        let tag = signed.sign();
        let stream = self.cipher.new_mask(tag.as_ref().get(..16)?).ok()?;
        packet.extend_from_slice(tag.as_ref());
        packet.extend(plain.iter().zip(stream).map(|(plain, mask)| plain ^ mask));
        Some(packet)
    }
}

/// Returns whether a datagram looks like a server's answer. A forger only gains that it is
/// dialled.
pub fn is_answer(datagram: &[u8]) -> bool {
    datagram.first() == Some(&SERVER_RESET) && datagram.len() >= LEAST_ANSWER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(datagram: &[u8], good: bool) {
        assert_eq!(is_answer(datagram), good);
    }

    #[test]
    fn the_packet_is_the_one_that_an_independent_implementation_makes() {
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
    fn a_key_of_another_length_is_none() {
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
