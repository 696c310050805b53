//! Draws random numbers from a seed, so that a run can be repeated.
//!
//! The generator is Splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014). It is
//! good for spreading moments and choosing peers, and useless for secrets.

use std::time::Duration;

/// A stream of random numbers; the same seed gives the same stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng(u64);

impl Rng {
    /// Starts the stream of that seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Draws the next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Draws a number below `bound`; zero if `bound` is zero. The bias is below `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.bits()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// Draws a span from `from` to `to`, in whole milliseconds; `from` if `to` is not above it.
    pub fn span(&mut self, from: Duration, to: Duration) -> Duration {
        let width = u64::try_from(to.saturating_sub(from).as_millis()).unwrap_or(u64::MAX);
        from.saturating_add(Duration::from_millis(self.below(width.saturating_add(1))))
    }

    /// Puts the items in a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            let bound = u64::try_from(end).unwrap_or(0).saturating_add(1);
            let chosen = usize::try_from(self.below(bound)).unwrap_or(0);
            items.swap(end, chosen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seed: u64, expected: [u64; 2]) {
        let mut rng = Rng::new(seed);
        assert_eq!([rng.bits(), rng.bits()], expected);
    }

    #[test]
    fn the_stream_is_the_published_one() {
        // The reference implementation's first numbers for seed 1234567.
        check(
            1_234_567,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973],
        );
    }

    #[test]
    fn numbers_below_a_bound_reach_all_of_them_evenly() {
        let mut rng = Rng::new(1);
        let mut seen = [0u32; 5];
        for _ in 0..5_000 {
            seen[usize::try_from(rng.below(5)).unwrap()] += 1;
        }
        assert!(
            seen.iter().all(|count| (850..1_150).contains(count)),
            "{seen:?}"
        );
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn a_shuffle_keeps_the_items_and_reaches_every_order() {
        let mut rng = Rng::new(2);
        let mut orders = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let mut items = [1, 2, 3];
            rng.shuffle(&mut items);
            orders.insert(items);
        }
        assert_eq!(orders.len(), 6);
    }
}
