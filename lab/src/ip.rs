//! Makes and enters network namespaces, and speaks to them through iproute2 in batches.
//!
//! A batch is one process for many changes: twenty namespaces are made in about two seconds.

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

/// Where `ip netns` keeps the namespace of that name.
pub fn path(namespace: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(namespace)
}

/// Moves the calling thread, and no other, into the namespace.
///
/// # Errors
/// Where there is no such namespace, or the caller is not root.
pub fn enter(namespace: &str) -> Result<()> {
    let file = File::open(path(namespace))
        .with_context(|| format!("cannot open namespace {namespace}"))?;
    setns(file, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("cannot enter namespace {namespace}"))
}

/// Does `work` in a thread of its own inside the namespace. Sockets made there stay there for good.
///
/// # Errors
/// Where the namespace cannot be entered, and whatever `work` says.
pub fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            enter(namespace)?;
            work()
        });
        worker
            .join()
            .map_err(|_| anyhow!("a thread inside namespace {namespace} panicked"))?
    })
}

/// Hands `lines` to one `ip -batch`, in `namespace` or, with `None`, where we are.
///
/// # Errors
/// At the first line that `ip` refuses, with what it said.
pub fn batch(namespace: Option<&str>, lines: &str) -> Result<()> {
    run_batch(namespace, lines, false)
}

/// As [`batch`], but goes on after a refused line and tells nobody: for taking down.
pub fn batch_anyhow(namespace: Option<&str>, lines: &str) {
    // What was refused does not exist any more.
    drop(run_batch(namespace, lines, true));
}

fn run_batch(namespace: Option<&str>, lines: &str, force: bool) -> Result<()> {
    let mut command = Command::new("ip");
    if force {
        command.arg("-force");
    }
    if let Some(name) = namespace {
        command.args(["-n", name]);
    }
    command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .context("cannot start ip (package iproute2)")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(lines.as_bytes())
            .context("cannot write to ip")?;
    }
    let output = child.wait_with_output().context("cannot wait for ip")?;
    if !output.status.success() {
        let place = namespace.unwrap_or("this namespace");
        bail!(
            "ip refused in {place}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// What `ip ARGUMENTS` prints inside the namespace.
///
/// # Errors
/// Where `ip` cannot be started or fails.
pub fn read(namespace: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new("ip")
        .args(["-n", namespace])
        .args(arguments)
        .output()
        .context("cannot start ip (package iproute2)")?;
    if !output.status.success() {
        bail!(
            "ip {} failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Names of all namespaces that `ip netns` knows.
pub fn namespaces() -> Vec<String> {
    let entries = std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Processes that live in the namespace.
pub fn pids(namespace: &str) -> Vec<i32> {
    let output = Command::new("ip")
        .args(["netns", "pids", namespace])
        .output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}
