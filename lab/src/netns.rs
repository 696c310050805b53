//! Enters network namespaces, lists them, and changes their sysctls.

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

/// The folder in which `ip netns` keeps one file for each named namespace (ip-netns(8)).
const NAMESPACE_FOLDER: &str = "/run/netns";

/// The folder with one folder for each namespace, whose files `ip netns exec` mounts over those of `/etc` (ip-netns(8)).
const ETC_FOLDER: &str = "/etc/netns";

/// The file by which `ip netns` refers to the namespace of that name.
pub fn path(namespace: &str) -> PathBuf {
    Path::new(NAMESPACE_FOLDER).join(namespace)
}

/// Moves the calling thread into the namespace, and no other thread.
///
/// # Errors
/// Fails if there is no such namespace, or if the caller is not root.
pub fn enter(namespace: &str) -> Result<()> {
    let file = File::open(path(namespace))
        .with_context(|| format!("cannot open network namespace {namespace}"))?;
    setns(file, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("cannot enter network namespace {namespace}"))
}

/// Runs `work` in a thread of its own inside the namespace. Sockets that `work` opens stay in that namespace.
///
/// # Errors
/// Fails if the namespace cannot be entered, and with any error of `work`.
pub fn run_inside<T: Send>(namespace: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            enter(namespace)?;
            work()
        });
        worker
            .join()
            .map_err(|_| anyhow!("a thread inside network namespace {namespace} panicked"))?
    })
}

/// Writes a value to a sysctl of the namespace; `name` is its path below `/proc/sys`.
///
/// # Errors
/// Fails if the namespace cannot be entered or the kernel rejects the value.
pub fn write_sysctl(namespace: &str, name: &str, value: &str) -> Result<()> {
    run_inside(namespace, || {
        fs::write(Path::new("/proc/sys").join(name), value)
            .with_context(|| format!("cannot set sysctl {name} to {value} in {namespace}"))
    })
}

/// Lets the processes of the namespace that start later see this text as the file of that name in `/etc`.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write_etc(namespace: &str, name: &str, text: &str) -> Result<()> {
    let folder = Path::new(ETC_FOLDER).join(namespace);
    let write = || {
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), text)
    };
    write().with_context(|| format!("cannot write {name} to {}", folder.display()))
}

/// Removes what [`write_etc`] has written for the namespace.
pub(crate) fn remove_etc(namespace: &str) {
    drop(fs::remove_dir_all(Path::new(ETC_FOLDER).join(namespace)));
    // The folder of all namespaces stays as long as others have files in it.
    drop(fs::remove_dir(ETC_FOLDER));
}

/// Names of all namespaces that `ip netns` knows.
pub fn list() -> Vec<String> {
    let entries = fs::read_dir(NAMESPACE_FOLDER)
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Ids of all processes in the namespace, zombies included; empty if there is no such namespace.
pub fn pids(namespace: &str) -> Vec<u32> {
    let output = Command::new("ip")
        .args(["netns", "pids", namespace])
        .output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}
