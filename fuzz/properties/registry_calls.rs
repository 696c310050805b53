//! What strangers send to the registry, and invitations: only a proven key is accepted, and an invitation has one spelling.

use registry::{
    http::proxy_header::{self, MAX_HEADER_BYTES, ProxyHeader},
    pki::request,
};
use wire::{
    invitation::{Invitation, RegistryAddress},
    registry::{Announcement, Claim, Departure, Renewal},
    text::FEW,
};

/// The input is a certificate request, an invitation, the body of a call, or the start of a connection.
pub fn check(input: &[u8]) {
    if let ProxyHeader::Complete { length, .. } = proxy_header::read(input) {
        assert!(length <= input.len().min(MAX_HEADER_BYTES));
        let header = input.get(..length).unwrap_or_default();
        assert_eq!(proxy_header::read(header), proxy_header::read(input));
    }
    if let Ok(text) = std::str::from_utf8(input) {
        check_request(text);
        if let Ok(invitation) = text.parse::<Invitation>() {
            let again = invitation.to_string().parse::<Invitation>();
            assert!(again.is_ok_and(|again| again == invitation));
        }
        if let Ok(address) = RegistryAddress::parse(text, 9443) {
            let again = RegistryAddress::parse(&address.to_string(), 1);
            assert_eq!(again.ok(), Some(address));
        }
    }
    if let Ok(claim) = serde_json::from_slice::<Claim>(input) {
        check_request(&claim.csr);
    }
    if let Ok(renewal) = serde_json::from_slice::<Renewal>(input) {
        check_request(&renewal.csr);
    }
    if let Ok(announcement) = serde_json::from_slice::<Announcement>(input) {
        assert!(announcement.endpoints.len() <= FEW && announcement.unreachable.len() <= FEW);
    }
    drop(serde_json::from_slice::<Departure>(input));
}

/// Requires that an accepted key is bounded and read in the same way again.
fn check_request(pem: &str) {
    if let Ok(key) = request::read(pem) {
        assert!((1..=4096).contains(&key.spki.len()));
        assert_eq!(request::read(pem), Ok(key));
    }
}
