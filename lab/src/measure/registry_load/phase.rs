//! Measures one kind of valid requests: rate, response times, and the registry's processor time.

use crate::{
    proc_files::cpu_seconds_by_thread, progress::round, standalone_registry::StandaloneRegistry,
};
use anyhow::Result;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// Clients with valid requests at the same time.
const CLIENTS: usize = 32;

/// The figures of one kind of valid requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Phase {
    /// Requests that succeeded.
    pub succeeded: usize,
    /// Requests that were rejected or got no response.
    pub failed: usize,
    /// Successful requests per second.
    pub per_second: f64,
    /// 50 of 100 responses came within this time.
    pub p50_ms: f64,
    /// 99 of 100 responses came within this time.
    pub p99_ms: f64,
    /// Processor time of each thread of the registry per successful request, in microseconds, by the thread's name.
    pub cpu_us: BTreeMap<String, f64>,
}

/// Sends one request for each item, on 32 threads, until `span` has passed or no item is left.
///
/// Each thread has a state of its own, made by `new_state`. `send` returns whether the request succeeded.
pub(super) fn measure_phase<T: Sync, S>(
    registry: &StandaloneRegistry,
    span: Duration,
    items: &[T],
    new_state: impl Fn() -> S + Sync,
    send: impl Fn(&mut S, usize, &T) -> Result<bool> + Sync,
) -> Result<Phase> {
    let next_number = AtomicUsize::new(0);
    let failed = AtomicUsize::new(0);
    let cpu_before = cpu_seconds_by_thread(registry.pid()?)?;
    let start = Instant::now();
    let times = registry.run_clients(CLIENTS, |_| {
        let mut state = new_state();
        let mut times = Vec::new();
        while start.elapsed() < span {
            let number = next_number.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else { break };
            let sent_at = Instant::now();
            match send(&mut state, number, item) {
                Ok(true) => times.push(sent_at.elapsed()),
                Ok(false) | Err(_) => {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(times)
    })?;
    let duration = start.elapsed();
    let cpu_after = cpu_seconds_by_thread(registry.pid()?)?;
    let times = times.concat();
    let count = f64::from(u32::try_from(times.len()).unwrap_or(u32::MAX)).max(1.0);
    let cpu_us = cpu_after.into_iter().map(|(thread, seconds)| {
        let seconds = seconds - cpu_before.get(&thread).copied().unwrap_or_default();
        (thread, round(seconds * 1e6 / count, 0))
    });
    Ok(Phase {
        failed: failed.into_inner(),
        per_second: round(count / duration.as_secs_f64(), 0),
        cpu_us: cpu_us.filter(|(_, spent)| *spent >= 1.0).collect(),
        ..response_times(times)
    })
}

/// A phase with the count and the percentiles of these response times only.
fn response_times(mut times: Vec<Duration>) -> Phase {
    times.sort_unstable();
    let percentile_ms = |percent: usize| {
        let position = times.len().saturating_sub(1) * percent / 100;
        let time = times.get(position).copied().unwrap_or_default();
        round(time.as_secs_f64() * 1_000.0, 2)
    };
    Phase {
        succeeded: times.len(),
        p50_ms: percentile_ms(50),
        p99_ms: percentile_ms(99),
        ..Phase::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_hundred_and_one_times_are_their_own_positions() {
        let times: Vec<Duration> = (0..=100).rev().map(Duration::from_millis).collect();
        let phase = response_times(times);
        assert_eq!(
            (phase.succeeded, phase.p50_ms, phase.p99_ms),
            (101, 50.0, 99.0)
        );
    }
}
