//! Reads the figures of the daemon's own process from /proc.

use crate::sinks::telemetry::float;
use procfs::{ProcError, process::LimitValue};

/// The figures that Prometheus' client libraries export for a process.
pub(super) struct Process {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: f64,
    pub(super) virtual_bytes: f64,
    pub(super) threads: f64,
    pub(super) open_fds: Option<f64>,
    pub(super) max_fds: Option<f64>,
    /// When the process started, in seconds after the machine booted.
    pub(super) started_seconds: f64,
}

impl Process {
    /// Reads the figures from /proc/self.
    pub(super) fn read() -> Result<Self, ProcError> {
        let process = procfs::process::Process::myself()?;
        let stat = process.stat()?;
        let seconds = |ticks: u64| float(ticks) / float(procfs::ticks_per_second().max(1));
        let max_fds =
            process
                .limits()
                .ok()
                .and_then(|limits| match limits.max_open_files.soft_limit {
                    LimitValue::Value(value) => Some(float(value)),
                    LimitValue::Unlimited => None,
                });
        Ok(Self {
            cpu_seconds: seconds(stat.utime.saturating_add(stat.stime)),
            resident_bytes: float(stat.rss.saturating_mul(procfs::page_size())),
            virtual_bytes: float(stat.vsize),
            threads: float(u64::try_from(stat.num_threads).unwrap_or(0)),
            open_fds: process
                .fd_count()
                .ok()
                .and_then(|count| u64::try_from(count).ok())
                .map(float),
            max_fds,
            started_seconds: seconds(stat.starttime),
        })
    }
}
