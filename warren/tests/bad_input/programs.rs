//! Runs programs, with a limit on how long they may take.

use super::network::warren;
use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// No command of this test needs longer; one that does is killed.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// The exit code and the output of a command.
#[derive(Debug)]
pub(super) struct Outcome {
    /// `None` if it was killed.
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test has no daemon that must spawn in one place"
)]
pub(super) fn program(name: &str) -> Command {
    Command::new(name)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the limit of a test is real time"
)]
fn now() -> Instant {
    Instant::now()
}

fn pid(child: &Child) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Runs a command to its end.
pub(super) fn run(mut command: Command) -> Outcome {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait(child)
}

/// Runs a command that must succeed, and returns its standard output.
#[track_caller]
pub(super) fn run_successfully(command: Command) -> String {
    let outcome = run(command);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome.stdout
}

/// Waits for the end of a child; kills it after [`TIME_LIMIT`].
fn wait(mut child: Child) -> Outcome {
    let mut stdout = child.stdout.take().unwrap();
    // `None` where another thread reads it.
    let stderr = child.stderr.take();
    let pid = pid(&child);
    let (done, limit) = mpsc::channel::<()>();
    let killer = std::thread::spawn(move || {
        if limit.recv_timeout(TIME_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    });
    let stderr_reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        stderr.map(|mut stderr| stderr.read_to_end(&mut text).unwrap());
        String::from_utf8_lossy(&text).into_owned()
    });
    let mut text = Vec::new();
    stdout.read_to_end(&mut text).unwrap();
    let status = child.wait().unwrap();
    drop(done);
    killer.join().unwrap();
    Outcome {
        code: status.code(),
        stdout: String::from_utf8_lossy(&text).into_owned(),
        stderr: stderr_reader.join().unwrap(),
    }
}

/// Runs the daemon until it has printed `message` or [`TIME_LIMIT`] has passed, then sends SIGTERM.
pub(super) fn run_until_printed(root: &Path, message: &str) -> Outcome {
    let mut child = warren(&["run"], root)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = pid(&child);
    let (sender, lines) = mpsc::channel();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let reader = std::thread::spawn(move || {
        stderr
            .lines()
            .map_while(Result::ok)
            .for_each(|line| drop(sender.send(line)));
    });
    let (start, mut printed) = (now(), String::new());
    while !printed.contains(message) {
        let left = TIME_LIMIT.saturating_sub(now().duration_since(start));
        let Ok(line) = lines.recv_timeout(left) else {
            break;
        };
        printed.push_str(&line);
        printed.push('\n');
    }
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let outcome = wait(child);
    reader.join().unwrap();
    printed.extend(lines.iter().map(|line| line + "\n"));
    Outcome {
        stderr: printed,
        ..outcome
    }
}
