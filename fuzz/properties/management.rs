//! OpenVPN's management lines: the same events however the stream is cut; and its log lines.

use wire::{dial_failure, management};

/// The first byte is the size of the pieces into which the rest is cut.
pub fn check(input: &[u8]) {
    let Some((cut, stream)) = input.split_first() else {
        return;
    };
    let whole = management::Decoder::default().feed(stream);
    let mut decoder = management::Decoder::default();
    let pieces: Vec<_> = stream
        .chunks(usize::from(*cut).max(1))
        .flat_map(|piece| decoder.feed(piece))
        .collect();
    assert_eq!(pieces, whole);
    for line in String::from_utf8_lossy(stream).lines() {
        dial_failure::reason_of_log(line);
        dial_failure::revoked_of_log(line);
        management::leave_of_log(line);
        management::is_exit_notice(line);
    }
}
