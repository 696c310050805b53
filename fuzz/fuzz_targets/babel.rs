//! babeld's dumps: no panic, and the same replies however the stream is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::{babel::Decoder, overlay::Network};

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, stream) = input;
    let network = Network::new("fd00:1:2::/48".parse().unwrap()).unwrap();
    let whole = Decoder::new(network).feed(stream);
    let mut decoder = Decoder::new(network);
    let pieces: Vec<_> = stream
        .chunks(usize::from(cut).max(1))
        .flat_map(|piece| decoder.feed(piece))
        .collect();
    assert_eq!(pieces, whole);
});
