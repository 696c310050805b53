//! babeld's dumps: no panic, and the same replies however the stream is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::{babel::Decoder, overlay::{Network, Network4}};

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, stream) = input;
    let network = Network::new("fd00:1:2::/48".parse().unwrap()).unwrap();
    let ipv4 = Network4::new("10.0.0.0/8".parse().unwrap());
    let whole = Decoder::new(network, ipv4).feed(stream);
    let mut decoder = Decoder::new(network, ipv4);
    let pieces: Vec<_> = stream
        .chunks(usize::from(cut).max(1))
        .flat_map(|piece| decoder.feed(piece))
        .collect();
    assert_eq!(pieces, whole);
});
