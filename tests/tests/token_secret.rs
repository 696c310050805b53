//! The token of an invitation that `warren join` reads from its standard input is in the arguments and in the environment of
//! no process.

use anyhow::{Context, Result, ensure};
use lab::{
    is_skipped_without_root,
    process::warren_program,
    standalone_registry::StandaloneRegistry,
    wait::{pause, wait_until},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    io::Write,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Longest wait for a join to connect to the registry, or to end.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Starts `warren join` on a machine of its own, with this argument, environment and standard input.
fn start_join(
    registry: &StandaloneRegistry,
    machine: &str,
    argument: Option<&str>,
    variable: Option<&str>,
    input: &str,
) -> Result<Child> {
    let root = registry.folder().join(machine);
    registry.run_inside(|| {
        let mut command = Command::new(warren_program());
        command.arg("join").args(argument).arg("--root").arg(&root);
        command.args(["--child-uids", "60197,60198"]);
        if let Some(value) = variable {
            command.env("WARREN_INVITATION", value);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("the child has no input")?;
        stdin.write_all(input.as_bytes())?;
        Ok(child)
    })
}

/// Lists the files `cmdline` and `environ` in `/proc` that contain the token.
fn files_with_token(token: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")?.filter_map(Result::ok) {
        for name in ["cmdline", "environ"] {
            let path = process.path().join(name);
            // A process may have exited, and entries that are no processes have no such file.
            let content = fs::read(&path).unwrap_or_default();
            if String::from_utf8_lossy(&content).contains(token) {
                found.push(name.to_owned());
            }
        }
    }
    Ok(found)
}

/// Joins while the registry stands still, so that the join waits, and compares where the token is seen meanwhile.
fn check(
    registry: &StandaloneRegistry,
    machine: &str,
    source: impl FnOnce(&str) -> (Option<String>, Option<String>, String),
    expected: &[&str],
) -> Result<()> {
    let invitation = registry.create_invitation(1)?;
    let (_, token) = invitation
        .split_once("token=")
        .context("the invitation has no token")?;
    let pid = Pid::from_raw(i32::try_from(registry.pid()?)?);
    let (argument, variable, input) = source(&invitation);
    kill(pid, Signal::SIGSTOP)?;
    let mut join = start_join(
        registry,
        machine,
        argument.as_deref(),
        variable.as_deref(),
        &input,
    )?;
    // The key is on disk after the invitation was read.
    let key = registry
        .folder()
        .join(machine)
        .join("var/lib/warren/node.key.join");
    let has_key = wait_until(JOIN_TIMEOUT, || key.exists().then_some(()));
    pause(Duration::from_millis(100));
    let found = files_with_token(token)?;
    kill(pid, Signal::SIGCONT)?;
    let ended = wait_until(JOIN_TIMEOUT, || join.try_wait().ok().flatten());
    join.kill().ok();
    ensure!(has_key.is_some(), "{machine} did not begin to join");
    ensure!(
        ended.context("the join did not end")?.success(),
        "{machine} did not join"
    );
    ensure!(found == expected, "{machine}: {found:?}");
    Ok(())
}

#[test]
fn a_token_from_the_standard_input_is_seen_in_no_process() -> Result<()> {
    if is_skipped_without_root("token_secret") {
        return Ok(());
    }
    let registry = StandaloneRegistry::start(&[], &[])?;
    let by_input = |line: &str| (Some("-".to_owned()), None, format!("{line}\n"));
    check(&registry, "input", by_input, &[])?;
    // The same search finds a token that comes from another source.
    let by_argument = |line: &str| (Some(line.to_owned()), None, String::new());
    check(&registry, "argument", by_argument, &["cmdline"])?;
    let by_variable = |line: &str| (None, Some(line.to_owned()), String::new());
    check(&registry, "variable", by_variable, &["environ"])
}
