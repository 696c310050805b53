//! Conversions between number types, each defined once.

/// A node's or tunnel's number as an index.
pub fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// An index as a number; there are never more than 2^32 of anything here.
pub fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// A count as a real number; exact below 2^52.
pub fn real(count: u64) -> f64 {
    let (high, low) = (
        u32::try_from(count >> 32).unwrap_or(u32::MAX),
        count & 0xffff_ffff,
    );
    f64::from(high) * 4_294_967_296.0 + f64::from(u32::try_from(low).unwrap_or(u32::MAX))
}

/// A number of things as a real number.
pub fn many(count: usize) -> f64 {
    real(u64::try_from(count).unwrap_or(u64::MAX))
}

/// The nearest whole number, 0 to 2^32 - 1.
#[expect(
    clippy::as_conversions,
    reason = "std offers no other conversion from a float to an integer"
)]
pub fn round_to_u32(real: f64) -> u32 {
    real.round().clamp(0.0, f64::from(u32::MAX)) as u32
}

/// `part` / `all`; zero where there is nothing.
pub fn share(part: u64, all: u64) -> f64 {
    if all == 0 {
        0.0
    } else {
        real(part) / real(all)
    }
}
