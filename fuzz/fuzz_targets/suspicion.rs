//! Suspicions: what decodes encodes to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::suspicion::Suspicion;

fuzz_target!(|datagram: &[u8]| {
    if let Some(suspicion) = Suspicion::decode(datagram) {
        assert_eq!(suspicion.encode(), datagram);
    }
});
