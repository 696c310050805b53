//! A node's generator of random numbers, which is seeded once; tests choose the seed.
//!
//! It must not be used for secrets; those come from the system's generator.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A generator of random numbers. Clones share its state.
#[derive(Clone)]
pub struct Randomness(Arc<Mutex<fastrand::Rng>>);

impl Randomness {
    /// Builds a generator with a seed from the system.
    pub fn from_system() -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::new())))
    }

    /// Builds a generator that yields the same numbers for the same seed.
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// Returns 64 random bits.
    pub fn bits(&self) -> u64 {
        self.generator().u64(..)
    }

    /// Returns a random number from 0 up to, but not including, 1.
    pub fn fraction(&self) -> f64 {
        self.generator().f64()
    }

    /// Returns a random port of this range.
    pub fn port(&self, range: std::ops::RangeInclusive<u16>) -> u16 {
        self.generator().u16(range)
    }

    /// Returns a random index below `length`, or 0 if that is 0.
    pub fn index(&self, length: usize) -> usize {
        self.generator().usize(..length.max(1))
    }

    /// Returns a random duration from 0.5 to 1.5 times `span`.
    pub fn around(&self, span: Duration) -> Duration {
        span.mul_f64(0.5 + self.fraction())
    }

    /// Returns a random item; `None` if there are none.
    pub fn choose<'a, T>(&self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.index(items.len()))
    }

    /// Puts items into a random order.
    pub fn shuffle<T>(&self, items: &mut [T]) {
        self.generator().shuffle(items);
    }

    fn generator(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Randomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Randomness")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_clones_share_them() {
        let (one, other) = (Randomness::from_seed(7), Randomness::from_seed(7));
        let clone = one.clone();
        assert_eq!([one.bits(), clone.bits()], [other.bits(), other.bits()]);
        assert_eq!(one.choose::<u8>(&[]), None);
        let span = one.around(Duration::from_secs(2));
        assert!(span >= Duration::from_secs(1) && span <= Duration::from_secs(3));
    }
}
