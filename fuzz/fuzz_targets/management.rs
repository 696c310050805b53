//! OpenVPN's management lines: no panic, and the same events however the stream is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::management::Decoder;

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, stream) = input;
    let whole = Decoder::default().feed(stream);
    let mut decoder = Decoder::default();
    let pieces: Vec<_> = stream
        .chunks(usize::from(cut).max(1))
        .flat_map(|piece| decoder.feed(piece))
        .collect();
    assert_eq!(pieces, whole);
});
