//! The pid file of each child, and the children that an earlier daemon left running.

use files::Access;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid},
};
use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

/// Maximum size of a pid file that is read, in bytes; one has at most 32.
const MAX_PID_FILE_BYTES: u64 = 64;
/// Time within which a process must exit after SIGKILL.
const KILL_TIMEOUT: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};

/// Returns the start time of a process, in clock ticks after boot (proc_pid_stat(5), field 22).
pub(super) fn start_time(pid: u32) -> Option<u64> {
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    process.stat().ok().map(|stat| stat.starttime)
}

pub(super) fn write_pid_file(path: &Path, pid: u32) {
    let Some(start_time) = start_time(pid) else {
        return;
    };
    let text = format!("{pid} {start_time}\n");
    if let Err(error) = files::replace_volatile(path, text.as_bytes(), Access::ours(0o644)) {
        tracing::warn!(path = %path.display(), %error, "cannot write a pid file");
    }
}

pub(super) fn remove(path: &Path) {
    if let Err(error) = files::remove(path) {
        tracing::warn!(path = %path.display(), %error, "cannot remove a file");
    }
}

/// Kills the child that an earlier daemon left running, if a process with the pid and the start time of the pid
/// file still exists, and waits until it has exited. Returns whether there was one.
pub fn kill_leftover(pid_file: &Path) -> bool {
    let Ok(text) = files::read_text(pid_file, MAX_PID_FILE_BYTES) else {
        return false;
    };
    remove(pid_file);
    let Some((pid, recorded_start)) = text.trim().split_once(' ') else {
        return false;
    };
    let (Ok(pid), Ok(recorded_start)) = (pid.parse::<u32>(), recorded_start.parse::<u64>()) else {
        return false;
    };
    let Some(raw) = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    else {
        return false;
    };
    let Ok(pidfd) = pidfd_open(raw, PidfdFlags::empty()) else {
        return false;
    };
    // The start time is read after the pidfd was opened, so it belongs to the process that would be killed.
    if start_time(pid) != Some(recorded_start) {
        return false;
    }
    kill_and_reap(pid, &pidfd)
}

/// Kills a process, and waits until it has exited; reaps it if it is a child. Returns false if it has exited already.
pub(super) fn kill_and_reap(pid: u32, pidfd: &OwnedFd) -> bool {
    if pidfd_send_signal(pidfd, Signal::KILL).is_err() {
        return false;
    }
    // A pidfd becomes readable when its process exits (pidfd_open(2)).
    let mut exit = [PollFd::new(pidfd, PollFlags::IN)];
    if !matches!(poll(&mut exit, Some(&KILL_TIMEOUT)), Ok(1)) {
        tracing::warn!(pid, "killed a process, which has not exited yet");
    }
    // This fails for a process that another program has started, such as an earlier daemon.
    let _ = waitid(
        WaitId::PidFd(pidfd.as_fd()),
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
    );
    true
}
