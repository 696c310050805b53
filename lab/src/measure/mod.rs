//! The measurements. Each builds a lab, disturbs it, and sums up what pings, kernels and control sockets show.
//!
//! Progress goes to the standard error. The result is a value, which the command prints as one line of JSON. A key that
//! ends in `_max` is the worst value of all runs.
//!
//! To add a measurement: write a module here with a `measure` function that returns a struct which is `Serialize`, and
//! add a variant to `Measurement` in `main.rs`.

pub mod accepting_slots;
pub mod alerts;
pub mod boards;
pub mod claim_race;
pub mod converge;
pub mod drain;
pub mod figures;
pub mod gateways;
pub mod hang;
pub mod hosts;
pub mod idle;
pub mod join;
pub mod lan;
pub mod punch;
pub mod recover;
pub mod registry_crash;
pub mod registry_load;
pub mod registry_outage;
pub mod restart;
pub mod revoke;
pub mod rotate;
pub mod rtt;
pub mod soak;
pub mod throughput;
pub mod token_guessing;
pub mod underlay;

use crate::Options;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// How long the registry keeps an announcement if certificates are short-lived.
const SHORT_ANNOUNCEMENT_TTL: Duration = Duration::from_secs(60);

/// A lab with certificates of this lifetime, whose registry drops endpoints that are not announced for a minute.
fn short_lived_certificates(nodes: usize, certificate_life: Duration) -> Options {
    Options {
        certificate_life: Some(certificate_life),
        announcement_ttl: Some(SHORT_ANNOUNCEMENT_TTL),
        ..Options::with_nodes(nodes)
    }
}

/// A number of requests that several threads share.
struct RequestBudget(AtomicU64);

impl RequestBudget {
    fn new(requests: u64) -> Self {
        Self(AtomicU64::new(requests))
    }

    /// Takes one request from the budget; `false` if none is left.
    fn take_one(&self) -> bool {
        let decrement = |left: u64| left.checked_sub(1);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, decrement)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_of_two_requests_is_used_up_after_two() {
        let budget = RequestBudget::new(2);
        assert!(budget.take_one() && budget.take_one());
        assert!(!budget.take_one());
    }
}
