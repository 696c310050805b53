//! Datagrams of neighbours' daemons: what decodes as a suspicion encodes to the same bytes.

use wire::suspicion::Suspicion;

/// The input is the datagram.
pub fn check(input: &[u8]) {
    if let Some(suspicion) = Suspicion::decode(input) {
        assert_eq!(suspicion.encode(), input);
    }
}
