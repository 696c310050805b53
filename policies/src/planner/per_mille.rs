//! A share in thousandths.

use std::fmt;

/// Thousandths of a whole, such as the mean of the other tunnels, or all probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PerMille(pub(super) u64);

impl fmt::Display for PerMille {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0 / 10)
    }
}
