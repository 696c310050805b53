//! Reads from /proc what processes use: CPU time, memory, file descriptors.

use procfs::{
    ProcError,
    process::{LimitValue, Process, Stat},
};
use std::time::Duration;

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// CPU time since the start of the process, of user and system, without its children; the kernel counts it in ticks,
    /// usually of 10 ms.
    pub cpu: Duration,
    /// Memory that is in RAM, in bytes: a multiple of the page size.
    pub resident_bytes: u64,
}

impl ProcessUsage {
    /// Reads what a process uses from its file `stat` below `/proc` (proc_pid_stat(5)).
    ///
    /// # Errors
    /// The process has exited.
    pub fn of(pid: u32) -> Result<Self, ProcError> {
        let pid = i32::try_from(pid).map_err(|_| ProcError::NotFound(None))?;
        Ok(Self::from_stat(&Process::new(pid)?.stat()?))
    }

    fn from_stat(stat: &Stat) -> Self {
        Self {
            cpu: span(stat.utime.saturating_add(stat.stime)),
            resident_bytes: stat.rss.saturating_mul(procfs::page_size()),
        }
    }
}

/// Converts clock ticks to a duration.
fn span(ticks: u64) -> Duration {
    let millis = ticks.saturating_mul(1_000);
    Duration::from_millis(millis.checked_div(procfs::ticks_per_second()).unwrap_or(0))
}

/// What the process itself uses: the figures that Prometheus' client libraries export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnUsage {
    /// CPU time and resident memory.
    pub usage: ProcessUsage,
    /// Size of the address space, in bytes.
    pub virtual_bytes: u64,
    /// Number of threads.
    pub threads: u64,
    /// Number of open file descriptors.
    pub open_fds: Option<u64>,
    /// Most file descriptors that may be open; `None` if there is no limit.
    pub max_fds: Option<u64>,
    /// Time from the boot of the machine to the start of the process.
    pub started: Duration,
}

impl OwnUsage {
    /// Reads the figures from /proc/self.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub fn read() -> Result<Self, ProcError> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let limits = process.limits().ok();
        let max_fds = limits.and_then(|limits| match limits.max_open_files.soft_limit {
            LimitValue::Value(value) => Some(value),
            LimitValue::Unlimited => None,
        });
        let open_fds = process.fd_count().ok();
        Ok(Self {
            usage: ProcessUsage::from_stat(&stat),
            virtual_bytes: stat.vsize,
            threads: u64::try_from(stat.num_threads).unwrap_or(0),
            open_fds: open_fds.and_then(|count| u64::try_from(count).ok()),
            max_fds,
            started: span(stat.starttime),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_uses_cpu_time_and_memory() {
        let cpu_of_this = || ProcessUsage::of(std::process::id()).unwrap();
        let before = cpu_of_this();
        assert!(before.resident_bytes > 100_000);
        // One tick is 10 ms.
        let mut sum = 0_u64;
        while cpu_of_this().cpu < before.cpu + Duration::from_millis(10) {
            sum = (0..1_000_000).fold(sum, |sum: u64, n| std::hint::black_box(sum ^ n));
        }
        assert!(OwnUsage::read().unwrap().usage.cpu > before.cpu);
    }

    #[test]
    fn a_process_that_does_not_exist_uses_nothing() {
        assert!(ProcessUsage::of(u32::MAX).is_err());
        // No process of Linux has a number this large.
        assert!(ProcessUsage::of(1 << 30).is_err());
    }
}
