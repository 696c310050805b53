//! Starts the lab's processes, so that none outlives it.
//!
//! The parent death signal follows the thread that spawned, not the process: so all are spawned by one thread
//! that lives as long as the lab's process. It is set by setpriv(1) between fork and exec, which keeps this
//! crate free of unsafe code.

use anyhow::{Context, Result, anyhow};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    env,
    ffi::OsStr,
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, OnceLock, PoisonError,
        mpsc::{Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

/// A command, and where to answer.
type Request = (Command, Sender<io::Result<Child>>);

fn spawner() -> &'static Sender<Request> {
    static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (requests, inbox) = channel::<Request>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                // Nobody waits for an answer that nobody takes.
                drop(answer.send(command.spawn()));
            }
        });
        requests
    })
}

/// A long-lived process inside a namespace. It gets SIGKILL when it is dropped or when the lab dies.
#[derive(Debug)]
pub struct Process {
    child: Mutex<Child>,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts `program` inside the namespace; what it prints is appended to `log`.
    ///
    /// # Errors
    /// Where it cannot be started.
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
        let mut command = inside(namespace, program);
        command.args(arguments).stdin(Stdio::null());
        command
            .stdout(output.try_clone().with_context(context)?)
            .stderr(output);
        let (answer, result) = channel();
        spawner()
            .send((command, answer))
            .map_err(|_| anyhow!("the spawning thread is gone"))?;
        let child = result.recv().with_context(context)?.with_context(context)?;
        Ok(Self {
            pid: child.id(),
            child: Mutex::new(child),
            log: log.to_owned(),
        })
    }

    /// Its process id, the same from the start to the end.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where it prints to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .try_wait()
            .ok()
            .flatten()
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        if let (None, Ok(pid)) = (self.ended(), i32::try_from(self.pid)) {
            kill(Pid::from_raw(pid), signal).ok();
        }
    }

    /// Waits for its end for at most `patience`.
    pub fn wait(&self, patience: Duration) -> Option<ExitStatus> {
        wait_until(patience, || self.ended())
    }

    /// SIGTERM, and SIGKILL after `patience`. `None` where SIGKILL was needed.
    pub fn stop(&self, patience: Duration) -> Option<ExitStatus> {
        self.signal(Signal::SIGTERM);
        let status = self.wait(patience);
        if status.is_none() {
            self.kill();
        }
        status
    }

    /// SIGKILL, and waits until it is reaped.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
        self.wait(Duration::from_secs(5));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn inside(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command
        .args([
            "netns",
            "exec",
            namespace,
            "setpriv",
            "--pdeathsig",
            "KILL",
            "--",
        ])
        .arg(program);
    command
}

/// Runs a short command to its end inside the namespace, for at most `patience`, and returns what it printed to
/// its standard output.
///
/// # Errors
/// Where it cannot be started, fails, or takes too long: with its exit status and what it said.
pub fn run<S: AsRef<OsStr>>(
    namespace: &str,
    program: &Path,
    arguments: impl IntoIterator<Item = S>,
    patience: Duration,
) -> Result<String> {
    let mut command = Command::new("ip");
    command.args([
        "netns",
        "exec",
        namespace,
        "timeout",
        "-k",
        "1",
        &patience.as_secs().max(1).to_string(),
    ]);
    let output = command
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output =
        output.with_context(|| format!("cannot run {} in {namespace}", program.display()))?;
    if !output.status.success() {
        return Err(anyhow!(
            "{} in {namespace} ended with {}: {}",
            program.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Asks every 10 ms until there is an answer, for at most `patience`.
pub fn wait_until<T>(patience: Duration, mut answer: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        let found = answer();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The `warren` beside our own program, or what `WARREN_PROGRAM` names, or whatever stands in `PATH`.
pub(crate) fn program() -> PathBuf {
    if let Some(path) = env::var_os("WARREN_PROGRAM") {
        return PathBuf::from(path);
    }
    let own = env::current_exe().unwrap_or_default();
    // A test's program lies one folder deeper.
    let folders = own.ancestors().skip(1).take(2);
    let found = folders
        .map(|folder| folder.join("warren"))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| PathBuf::from("warren"))
}
