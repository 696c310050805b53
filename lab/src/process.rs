//! Starts the lab's processes inside network namespaces, so that none of them outlives the lab.
//!
//! The kernel sends the parent death signal when the *thread* that spawned a child exits (prctl(2)). A single
//! thread, which lives as long as the lab's process, therefore spawns all children. setpriv(1) sets the signal
//! between fork and exec, which keeps this crate free of unsafe code.

use crate::wait::wait_until;
use anyhow::{Context, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    env,
    ffi::OsStr,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, OnceLock, PoisonError,
        mpsc::{Sender, channel},
    },
    thread,
    time::Duration,
};

/// Longest wait for the kernel to end a process after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// The arguments by which env(1) gives a program another wall clock; the monotonic clock is as before.
const FALSE_CLOCK: [&str; 2] = [
    "LD_PRELOAD=/usr/$LIB/faketime/libfaketimeMT.so.1",
    "FAKETIME_DONT_FAKE_MONOTONIC=1",
];

/// A command to spawn, and the channel that takes the result.
type SpawnRequest = (Command, Sender<io::Result<Child>>);

/// The channel to the thread that spawns all children.
fn spawner() -> &'static Sender<SpawnRequest> {
    static SPAWNER: OnceLock<Sender<SpawnRequest>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (requests, inbox) = channel::<SpawnRequest>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                // The send fails only if the requesting thread is gone.
                drop(reply.send(command.spawn()));
            }
        });
        requests
    })
}

/// A long-lived process inside a namespace. It gets SIGKILL when this value is dropped or when the lab dies.
#[derive(Debug)]
pub struct Process {
    child: Mutex<Child>,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts `program` inside the namespace, and appends what it prints to the file `log`.
    ///
    /// # Errors
    /// Fails if the program cannot be started.
    pub fn start<S: AsRef<OsStr>>(
        namespace: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
        log: &Path,
    ) -> Result<Self> {
        let context = || format!("cannot start {} in {namespace}", program.display());
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(context)?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]);
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]);
        command.arg(program).args(arguments).stdin(Stdio::null());
        command
            .stdout(output.try_clone().with_context(context)?)
            .stderr(output);
        let (reply, result) = channel();
        spawner()
            .send((command, reply))
            .map_err(|_| anyhow!("the thread that spawns processes is gone"))?;
        let child = result.recv().with_context(context)?.with_context(context)?;
        Ok(Self {
            pid: child.id(),
            child: Mutex::new(child),
            log: log.to_owned(),
        })
    }

    /// Its process id. `ip` and setpriv(1) replace themselves, so the id is the program's own.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The last lines that it printed.
    pub fn log_tail(&self, lines: usize) -> String {
        last_lines(&self.log, lines)
    }

    /// Its exit status; `None` while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .try_wait()
            .ok()
            .flatten()
    }

    /// Sends it a signal, unless it has exited.
    pub fn send_signal(&self, signal: Signal) {
        if let (None, Ok(pid)) = (self.exit_status(), i32::try_from(self.pid)) {
            kill(Pid::from_raw(pid), signal).ok();
        }
    }

    /// Waits until it exits; `None` if it still runs after `timeout`.
    pub fn wait_for_exit(&self, timeout: Duration) -> Option<ExitStatus> {
        wait_until(timeout, || self.exit_status())
    }

    /// Sends SIGTERM, and SIGKILL after `timeout`. Returns `None` if SIGKILL was needed.
    pub fn stop(&self, timeout: Duration) -> Option<ExitStatus> {
        self.send_signal(Signal::SIGTERM);
        let status = self.wait_for_exit(timeout);
        if status.is_none() {
            self.kill();
        }
        status
    }

    /// Sends SIGKILL, and waits until the process is reaped.
    pub fn kill(&self) {
        self.send_signal(Signal::SIGKILL);
        self.wait_for_exit(KILL_TIMEOUT);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a short command inside the namespace, and returns what it printed to its standard output.
///
/// # Errors
/// Fails if the command cannot be started, fails, or runs longer than `timeout`. The error quotes its exit
/// status and its standard error.
pub fn run<S: AsRef<OsStr>>(
    namespace: &str,
    program: &Path,
    arguments: impl IntoIterator<Item = S>,
    timeout: Duration,
) -> Result<String> {
    let seconds = timeout.as_secs().max(1).to_string();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "timeout", "-k", "1", &seconds]);
    let output = command
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {} in {namespace}", program.display()))?;
    if !output.status.success() {
        bail!(
            "{} in {namespace} failed with {}: {}",
            program.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command that reads `input` from its standard input; what it prints to its standard output is discarded.
///
/// # Errors
/// Fails if the command cannot be started or fails. The error quotes its standard error.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the command")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(input.as_bytes())
            .context("cannot write to its standard input")?;
    }
    let output = child.wait_with_output().context("cannot wait for it")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The last `count` lines of a file; empty if the file cannot be read.
pub(crate) fn last_lines(file: &Path, count: usize) -> String {
    let bytes = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(count)..)
        .unwrap_or_default()
        .join("\n")
}

/// The arguments by which env(1) gives a program a clock that is wrong by this offset, such as `+45s`
/// (Debian package `libfaketime`); none if it is empty. The monotonic clock is as before.
pub(crate) fn false_clock(offset: &str) -> Vec<String> {
    if offset.is_empty() {
        return Vec::new();
    }
    let mut words = FALSE_CLOCK.map(str::to_owned).to_vec();
    words.push(format!("FAKETIME={offset}"));
    words
}

/// The arguments by which env(1) gives a program a wall clock that stands at the time in a file, in seconds since 1970 (Debian
/// package `libfaketime`). Whoever replaces the file moves the clock.
pub(crate) fn settable_clock(file: &Path) -> Vec<String> {
    let mut words = FALSE_CLOCK.map(str::to_owned).to_vec();
    words.extend([
        format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        "FAKETIME_FMT=%s".to_owned(),
    ]);
    words
}

/// The `warren` that the lab runs: what `WARREN_PROGRAM` names, else the one beside our own program, else the one
/// in `PATH`.
pub fn warren_program() -> PathBuf {
    if let Some(path) = env::var_os("WARREN_PROGRAM") {
        return PathBuf::from(path);
    }
    let own_program = env::current_exe().unwrap_or_default();
    // Cargo puts the programs of tests one folder deeper.
    let folders = own_program.ancestors().skip(1).take(2);
    let found = folders
        .map(|folder| folder.join("warren"))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| PathBuf::from("warren"))
}
