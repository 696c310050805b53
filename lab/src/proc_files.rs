//! Reads facts about processes from `/proc`: state, start time, processor time, memory (proc(5)).

use anyhow::{Context, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Clock ticks per second in `/proc`: USER_HZ, 100 on every architecture that Linux runs on today except alpha.
const TICKS_PER_SECOND: f64 = 100.0;
/// Number of the field that holds the state, such as `S` or `Z` for a zombie.
const STATE: usize = 3;
/// Number of the field that holds the parent's process id.
const PARENT_PID: usize = 4;
/// Numbers of the fields that hold the processor time in user and in system mode, in clock ticks.
const CPU_TICKS: [usize; 2] = [14, 15];
/// Number of the field that holds the start time, in clock ticks since boot.
const START_TIME: usize = 22;

/// Position of the count of sent packets in a line of `/proc/PID/net/dev`, after the link's name.
const SENT_PACKETS: usize = 9;

/// One `stat` file, split after the command's name.
struct Stat {
    command: String,
    /// Field 3 and all that follow.
    fields: Vec<String>,
}

impl Stat {
    fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        // The command's name, field 2, is in parentheses and may contain any character.
        let (head, tail) = text.rsplit_once(')')?;
        let (_, command) = head.split_once('(')?;
        Some(Self {
            command: command.to_owned(),
            fields: tail.split_whitespace().map(ToOwned::to_owned).collect(),
        })
    }

    fn of_process(pid: u32) -> Option<Self> {
        Self::read(&Path::new("/proc").join(pid.to_string()).join("stat"))
    }

    /// The field with this number, counted from 1 as in proc(5); only 3 and above are kept.
    fn field(&self, number: usize) -> Option<&str> {
        self.fields
            .get(number.checked_sub(STATE)?)
            .map(String::as_str)
    }

    fn cpu_seconds(&self) -> f64 {
        let ticks = CPU_TICKS
            .iter()
            .filter_map(|number| self.field(*number)?.parse::<f64>().ok());
        ticks.sum::<f64>() / TICKS_PER_SECOND
    }
}

/// Whether the process exists and is not a zombie.
pub fn is_running(pid: u32) -> bool {
    Stat::of_process(pid).is_some_and(|stat| stat.field(STATE).is_some_and(|state| state != "Z"))
}

/// The id of the process's parent; `None` if there is no such process.
pub fn parent_pid(pid: u32) -> Option<u32> {
    Stat::of_process(pid)?.field(PARENT_PID)?.parse().ok()
}

/// When the process was started, in clock ticks since boot; `None` if there is no such process.
pub fn start_time(pid: u32) -> Option<u64> {
    Stat::of_process(pid)?.field(START_TIME)?.parse().ok()
}

/// The process's command line, its words separated by spaces; `None` if there is no such process.
pub fn command_line(pid: u32) -> Option<String> {
    let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&words).replace('\0', " ");
    Some(line.trim().to_owned())
}

/// Processor time that the process has used so far, user and system mode together, in seconds.
pub fn cpu_seconds(pid: u32) -> f64 {
    Stat::of_process(pid).map_or(0.0, |stat| stat.cpu_seconds())
}

/// Processor time that the process's threads have used so far, in seconds, by the threads' names.
///
/// # Errors
/// Fails if there is no such process.
pub fn cpu_seconds_by_thread(pid: u32) -> Result<BTreeMap<String, f64>> {
    let folder = format!("/proc/{pid}/task");
    let mut seconds = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
        let Some(stat) = Stat::read(&entry?.path().join("stat")) else {
            continue;
        };
        *seconds.entry(stat.command.clone()).or_default() += stat.cpu_seconds();
    }
    Ok(seconds)
}

/// Resident memory of the process, in KiB.
///
/// # Errors
/// Fails if there is no such process.
pub fn resident_kib(pid: u32) -> Result<u64> {
    sum_of_lines(pid, "status", &["VmRSS:"])
}

/// The most resident memory that the process has had so far, in KiB.
///
/// # Errors
/// Fails if there is no such process.
pub fn peak_kib(pid: u32) -> Result<u64> {
    sum_of_lines(pid, "status", &["VmHWM:"])
}

/// Memory of the process that it shares with no other process, in KiB.
///
/// # Errors
/// Fails if there is no such process.
pub fn private_kib(pid: u32) -> Result<u64> {
    sum_of_lines(pid, "smaps_rollup", &["Private_Clean:", "Private_Dirty:"])
}

/// Packets that this link of the process's namespace has sent so far.
///
/// # Errors
/// Fails if there is no such process or link.
pub fn sent_packets(pid: u32, link: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/net/dev");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(link)?.strip_prefix(':'));
    let count = line.and_then(|line| line.split_whitespace().nth(SENT_PACKETS)?.parse().ok());
    count.with_context(|| format!("{path} has no counters of {link}"))
}

/// Open file descriptors of the process.
///
/// # Errors
/// Fails if there is no such process.
pub fn descriptors(pid: u32) -> Result<usize> {
    count_entries(&format!("/proc/{pid}/fd"))
}

/// The inodes of the process's sockets, by which the kernel's tables name them.
///
/// # Errors
/// Fails if there is no such process.
pub fn socket_inodes(pid: u32) -> Result<BTreeSet<u64>> {
    let folder = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?;
    let inode = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        let name = target.to_str()?.strip_prefix("socket:[")?;
        name.strip_suffix(']')?.parse().ok()
    };
    Ok(entries.flatten().filter_map(inode).collect())
}

/// Threads of the process.
///
/// # Errors
/// Fails if there is no such process.
pub fn threads(pid: u32) -> Result<usize> {
    count_entries(&format!("/proc/{pid}/task"))
}

fn count_entries(folder: &str) -> Result<usize> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {folder}"))?;
    Ok(entries.count())
}

/// The sum of the lines of `/proc/PID/FILE` that start with one of these names; each line is in KiB.
fn sum_of_lines(pid: u32, file: &str, names: &[&str]) -> Result<u64> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let lines = text
        .lines()
        .filter(|line| names.iter().any(|name| line.starts_with(name)));
    Ok(lines
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_runs_and_has_memory_and_a_parent() {
        let pid = std::process::id();
        assert!(is_running(pid));
        assert_eq!(parent_pid(pid), Some(std::os::unix::process::parent_id()));
        assert!(start_time(pid).unwrap() > 0);
        assert!(resident_kib(pid).unwrap() >= private_kib(pid).unwrap());
        assert!(descriptors(pid).unwrap() >= 3 && threads(pid).unwrap() >= 1);
        assert!(!cpu_seconds_by_thread(pid).unwrap().is_empty());
        assert!(sent_packets(pid, "lo").is_ok() && sent_packets(pid, "none").is_err());
    }

    #[test]
    fn a_process_that_does_not_exist_is_not_running() {
        // The kernel's limit of process ids is 2^22 (proc(5), pid_max).
        let pid = 1 << 23;
        assert!(!is_running(pid));
        assert_eq!(start_time(pid), None);
        assert_eq!(command_line(pid), None);
        assert!(resident_kib(pid).is_err());
    }
}
