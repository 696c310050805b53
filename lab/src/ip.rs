//! Runs `ip` of iproute2: many changes in one batch, or one listing.
//!
//! A batch is a single process for many changes: it creates twenty namespaces in about two seconds.

use crate::process::run_with_input;
use anyhow::{Context, Result, bail};
use std::process::Command;

/// Passes `lines` to one `ip -batch`, in `namespace` or, with `None`, in the namespace of the caller.
///
/// # Errors
/// Fails at the first line that `ip` rejects, with the message of `ip`.
pub fn batch(namespace: Option<&str>, lines: &str) -> Result<()> {
    run_batch(namespace, lines, &[])
}

/// Does the same as [`batch`], but continues after a rejected line and reports no error.
///
/// This is for removing things: a rejected line means that the thing no longer exists.
pub fn batch_ignoring_errors(namespace: Option<&str>, lines: &str) {
    drop(run_batch(namespace, lines, &["-force"]));
}

fn run_batch(namespace: Option<&str>, lines: &str, options: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(options);
    if let Some(name) = namespace {
        command.args(["-n", name]);
    }
    command.args(["-batch", "-"]);
    run_with_input(&mut command, lines).with_context(|| {
        let place = namespace.unwrap_or("the lab's own namespace");
        format!("ip -batch failed in {place} (package iproute2)")
    })
}

/// Returns what `ip ARGUMENTS` prints inside the namespace.
///
/// # Errors
/// Fails if `ip` cannot be started or fails.
pub fn output(namespace: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new("ip")
        .args(["-n", namespace])
        .args(arguments)
        .output()
        .context("cannot start ip (package iproute2)")?;
    if !output.status.success() {
        bail!(
            "ip {} failed in {namespace}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
