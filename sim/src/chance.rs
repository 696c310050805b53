//! Draws indices and real numbers from the policies' generator.

use policies::rng::Rng;

use crate::num::{many, real};

/// An index below `bound`; zero where `bound` is zero.
pub fn below(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.below(u64::try_from(bound).unwrap_or(u64::MAX))).unwrap_or(0)
}

/// A real number in 0..1, in steps of 2^-52.
pub fn unit(rng: &mut Rng) -> f64 {
    real(rng.bits() >> 12) / 4_503_599_627_370_496.0
}

/// Normally distributed, mean 0, deviation 1 (Box and Muller).
pub fn normal(rng: &mut Rng) -> f64 {
    let (radius, angle) = (1.0 - unit(rng), unit(rng));
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

/// Up to `count` different numbers below `bound`, in random order.
pub fn sample(rng: &mut Rng, bound: usize, count: usize) -> Vec<usize> {
    if count >= bound {
        let mut all: Vec<_> = (0..bound).collect();
        rng.shuffle(&mut all);
        return all;
    }
    if count.saturating_mul(4) > bound {
        let mut all: Vec<_> = (0..bound).collect();
        rng.shuffle(&mut all);
        all.truncate(count);
        return all;
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut drawn = Vec::with_capacity(count);
    while drawn.len() < count {
        let one = below(rng, bound);
        if seen.insert(one) {
            drawn.push(one);
        }
    }
    drawn
}

/// The mean, and half the width of its confidence interval of 95 % (normal approximation).
pub fn interval(values: &[f64]) -> (f64, f64) {
    let count = many(values.len()).max(1.0);
    let mean = values.iter().sum::<f64>() / count;
    let spread = values
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f64>()
        / (count - 1.0).max(1.0);
    (mean, 1.96 * (spread / count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bound: usize, count: usize) {
        let mut drawn = sample(&mut Rng::new(1), bound, count);
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), count.min(bound));
        assert!(drawn.iter().all(|one| *one < bound));
    }

    #[test]
    fn a_sample_has_each_number_once_at_most() {
        for (bound, count) in [(0, 3), (5, 5), (5, 9), (10, 4), (1_000, 7)] {
            check(bound, count);
        }
    }

    #[test]
    fn the_normal_distribution_has_mean_zero_and_deviation_one() {
        let mut rng = Rng::new(3);
        let values: Vec<_> = (0..20_000).map(|_| normal(&mut rng)).collect();
        let mean = values.iter().sum::<f64>() / 20_000.0;
        let deviation = (values.iter().map(|v| v * v).sum::<f64>() / 20_000.0).sqrt();
        assert!(
            mean.abs() < 0.03 && (deviation - 1.0).abs() < 0.03,
            "{mean} {deviation}"
        );
    }
}
