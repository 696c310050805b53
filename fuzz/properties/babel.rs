//! babeld's dumps: the same replies however the stream is cut.

use wire::{
    babel::Decoder,
    overlay::{Network, Network4},
};

/// The first byte is the size of the pieces into which the rest is cut.
pub fn check(input: &[u8]) {
    let Some((cut, stream)) = input.split_first() else {
        return;
    };
    let network = "fd00:1:2::/48".parse().ok().and_then(Network::new);
    let network = network.unwrap_or_else(|| unreachable!("a network that is large enough"));
    let ipv4 = "10.0.0.0/8".parse().ok().and_then(Network4::new);
    let whole = Decoder::new(network, ipv4).feed(stream);
    let mut decoder = Decoder::new(network, ipv4);
    let pieces: Vec<_> = stream
        .chunks(usize::from(*cut).max(1))
        .flat_map(|piece| decoder.feed(piece))
        .collect();
    assert_eq!(pieces, whole);
}
