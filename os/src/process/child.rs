//! One child process: its start, its output (log lines and management bytes) and its exit.
//!
//! This module does not know what the child is for. For each child, one task on the main thread reads its
//! output. A daemon that hangs does not block the child, since the child's end of the log pipe is
//! non-blocking.

use super::{
    events::ChildEvents,
    leftover::{remove, write_pid_file},
    log::{CHUNK_BYTES, Log},
    rights::Rights,
    start_step::{StepWriter, step_pipe},
};
use fault_points::fault;
use files::Access;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream, unix::pipe},
    sync::mpsc,
};

/// Time within which a child must read a command from its management socket.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// A program to start, with its rights.
#[derive(Clone, Debug)]
pub struct Program {
    /// The name of the child in logs and metrics, and of its folder; it matches `[a-z0-9.-]+`.
    pub name: String,
    /// The absolute path of the executable.
    pub path: PathBuf,
    /// The arguments. No text from other nodes may be part of them unless it was parsed.
    pub args: Vec<OsString>,
    /// The rights of the process.
    pub rights: Rights,
    /// The file for the pid, which only root can write. From it, the next daemon knows which child was left running.
    pub pid_file: PathBuf,
    /// The path of the socket to which the child connects (`--management-client`); it is created at each start.
    pub management: Option<PathBuf>,
}

/// The error if a child cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The log pipe could not be created.
    #[error("cannot create a log pipe for {name}")]
    Pipe {
        /// The name of the child.
        name: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The management socket could not be created.
    #[error("cannot listen on {path}", path = path.display())]
    Listen {
        /// The path of the socket.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// fork, exec or a step between them failed.
    #[error("cannot {step}")]
    Exec {
        /// The step that failed, with its object.
        step: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// An event of a child process.
#[derive(Clone, Debug)]
pub struct ChildEvent {
    /// The name of the child.
    pub name: String,
    /// The pid, which distinguishes this process from an earlier one of the same name.
    pub pid: u32,
    /// What happened to the process.
    pub happened: Happened,
}

/// The kinds of a [`ChildEvent`].
#[derive(Clone, Debug)]
pub enum Happened {
    /// The child connected to its management socket.
    ManagementConnected,
    /// The child sent these bytes by its management socket.
    Management(Vec<u8>),
    /// The child wrote this line to its log: at most 1,024 bytes, without control characters.
    Logged(String),
    /// The process exited and was reaped.
    Exited {
        /// The exit code, or the number of the signal as a negative number.
        code: i32,
    },
}

/// A running child. If this value is dropped, the child continues to run.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    pidfd: OwnedFd,
    commands: mpsc::UnboundedSender<String>,
}

impl Child {
    /// Starts the program; `events` receives what it does.
    ///
    /// # Errors
    ///
    /// The program could not be started. Only the folder of its management socket is left behind.
    pub fn start(program: &Program, events: &ChildEvents) -> Result<Self, SpawnError> {
        let listener = program
            .management
            .as_deref()
            .map(|path| listen(path, program.rights))
            .transpose()?;
        let pipe = |source| SpawnError::Pipe {
            name: program.name.clone(),
            source,
        };
        let (read_end, write_end) = log_pipe().map_err(pipe)?;
        let (steps, step_writer) = step_pipe().map_err(pipe)?;
        let exec = |source| SpawnError::Exec {
            step: format!("watch {}", program.path.display()),
            source,
        };
        let command = prepare_command(program, write_end, step_writer).map_err(pipe)?;
        let mut command = tokio::process::Command::from(command);
        let process = command.spawn().map_err(|source| SpawnError::Exec {
            step: program
                .rights
                .describe_step(steps.failed_step(), &program.path),
            source,
        })?;
        drop(command);
        fault!("start {}", program.name);
        let pid = process
            .id()
            .ok_or_else(|| exec(io::Error::other("the process has exited already")))?;
        // The child is not reaped yet, so no other process can have this pid.
        let raw = i32::try_from(pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let raw = raw.ok_or_else(|| exec(io::Error::other("the pid is out of range")))?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|error| exec(error.into()))?;
        warn_of_other_priority(program, raw);
        write_pid_file(&program.pid_file, pid);
        let (commands, queued_commands) = mpsc::unbounded_channel();
        let log = pipe::Receiver::from_owned_fd(read_end).map_err(pipe)?;
        let watcher = Watcher {
            name: program.name.clone(),
            pid,
            events: events.clone(),
            listener,
            stream: None,
            commands: queued_commands,
            log: Log::new(log),
            pid_file: program.pid_file.clone(),
            management: program.management.clone(),
        };
        tokio::task::spawn_local(watcher.run(process));
        Ok(Self {
            pid,
            pidfd,
            commands,
        })
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends SIGTERM to the process.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGKILL to the process.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // ESRCH: the process has already exited; the event of its exit will follow.
        if let Err(error) = pidfd_send_signal(&self.pidfd, signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(pid = self.pid, %error, "cannot signal a child");
        }
    }

    /// Sends a command to the child by its management socket, as soon as the child has connected to it.
    pub fn send_command(&self, command: String) {
        // Sending fails only if the child has exited.
        let _ = self.commands.send(command);
    }
}

/// Warns if the child could not get its nice value.
fn warn_of_other_priority(program: &Program, pid: rustix::process::Pid) {
    let wanted = program.rights.nice;
    match rustix::process::getpriority_process(Some(pid)) {
        Ok(nice) if nice > wanted => tracing::warn!(
            child = program.name,
            "child has the nice value {nice} instead of {wanted}: the daemon may not lower it (LimitNICE= in systemd's unit)"
        ),
        Ok(_) | Err(_) => {}
    }
}

/// Prepares the start of a program with no environment, whose output goes to `log`, and which drops its rights before it runs.
#[expect(
    clippy::disallowed_methods,
    unsafe_code,
    reason = "this is the one place that starts processes"
)]
fn prepare_command(
    program: &Program,
    log: OwnedFd,
    steps: StepWriter,
) -> io::Result<std::process::Command> {
    let (rights, parent) = (program.rights, std::process::id());
    let mut command = std::process::Command::new(&program.path);
    command
        .args(&program.args)
        .env_clear()
        .env("LC_ALL", "C")
        .current_dir("/")
        .process_group(0);
    command
        .stdin(std::process::Stdio::null())
        .stderr(log.try_clone()?)
        .stdout(log);
    // SAFETY: `assume` only makes system calls; it neither allocates memory nor takes a lock.
    unsafe { command.pre_exec(move || rights.assume(parent, &steps)) };
    Ok(command)
}

fn log_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
    // The child's end does not block either, since a daemon that hangs must not stop OpenVPN.
    Ok(rustix::pipe::pipe_with(flags)?)
}

fn listen(path: &Path, rights: Rights) -> Result<UnixListener, SpawnError> {
    let failed = |source| SpawnError::Listen {
        path: path.to_owned(),
        source,
    };
    let folder = path
        .parent()
        .ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    // The child connects to the socket, and needs no other right in the folder.
    let of_child = |mode| Access::of(mode, (0, rights.gid));
    files::folder(folder, of_child(0o710)).map_err(failed)?;
    let listener = files::listen(path, of_child(0o660)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    UnixListener::from_std(listener).map_err(failed)
}

/// The task that reads the output of one child until it exits.
struct Watcher {
    name: String,
    pid: u32,
    events: ChildEvents,
    listener: Option<UnixListener>,
    stream: Option<UnixStream>,
    commands: mpsc::UnboundedReceiver<String>,
    log: Log,
    pid_file: PathBuf,
    management: Option<PathBuf>,
}

impl Watcher {
    async fn run(mut self, mut process: tokio::process::Child) {
        let mut chunk = [0; CHUNK_BYTES];
        let code = loop {
            tokio::select! {
                status = process.wait() => break exit_code(status),
                lines = self.log.read() => self.send_lines(lines),
                accepted = accept(self.listener.as_ref()) => {
                    // Only one connection is accepted: dropping the listener rejects later ones.
                    self.listener = None;
                    self.stream = accepted.ok();
                    self.send(Happened::ManagementConnected);
                }
                read = read(self.stream.as_mut(), &mut chunk) => match read {
                    Ok(1..) => self.send(Happened::Management(chunk.get(..read.unwrap_or(0)).unwrap_or_default().to_vec())),
                    Ok(0) | Err(_) => self.stream = None,
                },
                Some(command) = self.commands.recv(), if self.stream.is_some() => self.write_command(&command).await,
            }
        };
        let lines = self.log.read_remaining();
        self.send_lines(lines);
        remove(&self.pid_file);
        if let Some(path) = &self.management {
            remove(path);
        }
        self.send(Happened::Exited { code });
    }

    fn send(&self, happened: Happened) {
        self.events.send(ChildEvent {
            name: self.name.clone(),
            pid: self.pid,
            happened,
        });
    }

    fn send_lines(&self, lines: Vec<String>) {
        lines
            .into_iter()
            .for_each(|line| self.send(Happened::Logged(line)));
        if self.log.is_tap_gone()
            && let Some(pid) = i32::try_from(self.pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw)
        {
            tracing::error!(
                child = self.name,
                "the child's TAP link is gone, and it does nothing but write log lines; killing it"
            );
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }

    async fn write_command(&mut self, command: &str) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        // A child that does not read its socket for this long hangs, so its connection is closed.
        let written =
            tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(command.as_bytes())).await;
        if !matches!(written, Ok(Ok(()))) {
            self.stream = None;
        }
    }
}

fn exit_code(status: io::Result<std::process::ExitStatus>) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let Ok(status) = status else { return -1 };
    status
        .code()
        .or(status.signal().map(|signal| -signal))
        .unwrap_or(-1)
}

async fn accept(listener: Option<&UnixListener>) -> io::Result<UnixStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

async fn read(stream: Option<&mut UnixStream>, chunk: &mut [u8]) -> io::Result<usize> {
    match stream {
        Some(stream) => stream.read(chunk).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    /// Starts a program that cannot be started, and compares the error. `withheld` is taken from this thread before.
    #[track_caller]
    fn check(path: &str, withheld: CapabilitySet, expected: &str) {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let program = Program {
            name: "child".to_owned(),
            path: path.into(),
            args: Vec::new(),
            rights: Rights {
                uid: 60_198,
                gid: 60_199,
                network: false,
                nice: 0,
            },
            pid_file: folder.path().join("child.pid"),
            management: None,
        };
        let all = capabilities(None).unwrap();
        let mut reduced = all;
        reduced.effective.remove(withheld);
        set_capabilities(None, reduced).unwrap();
        let started = Child::start(&program, &ChildEvents::default());
        set_capabilities(None, all).unwrap();
        let error = wire::errors::Chain(&started.err().unwrap()).to_string();
        assert!(error.starts_with(expected), "{error}");
    }

    #[tokio::test]
    async fn an_error_names_the_step_that_failed_and_its_object() {
        let nothing = CapabilitySet::empty();
        let missing = "cannot execute /nonexistent/babeld: No such file or directory";
        check("/nonexistent/babeld", nothing, missing);
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text");
        std::fs::write(&text, "no program\n").unwrap();
        let text = text.to_str().unwrap();
        let not_executable = format!("cannot execute {text}: Permission denied");
        check(text, nothing, &not_executable);
        let user = "cannot become user 60198: Operation not permitted";
        check("/bin/true", CapabilitySet::SETUID, user);
        let group = "cannot give up the supplementary groups: Operation not permitted";
        check("/bin/true", CapabilitySet::SETGID, group);
        let bounding_set = "cannot reduce the capability bounding set: Operation not permitted";
        check("/bin/true", CapabilitySet::SETPCAP, bounding_set);
    }

    /// Starts a program as the user of all children in this test.
    fn start(
        folder: &Path,
        name: &str,
        path: &str,
        arguments: &[&str],
        events: &ChildEvents,
    ) -> Child {
        let program = Program {
            name: name.to_owned(),
            path: path.into(),
            args: arguments.iter().map(Into::into).collect(),
            rights: Rights {
                uid: 60_198,
                gid: 60_199,
                network: false,
                nice: 0,
            },
            pid_file: folder.join(format!("{name}.pid")),
            management: None,
        };
        Child::start(&program, events).unwrap()
    }

    /// Passes the log lines of children on.
    struct Lines(mpsc::UnboundedSender<String>);

    impl crate::process::EventListener for Lines {
        fn is_connected(&self) -> bool {
            true
        }

        fn deliver(&self, event: ChildEvent) {
            if let Happened::Logged(line) = event.happened {
                self.0.send(line).unwrap();
            }
        }
    }

    /// Lets a child do something, and compares its first line.
    async fn check_line(arguments: &[&str], expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let events = ChildEvents::default();
        let (lines, mut printed) = mpsc::unbounded_channel();
        events.attach(Box::new(Lines(lines)));
        let child = start(folder.path(), "second", "/bin/sh", arguments, &events);
        let line = tokio::time::timeout(Duration::from_secs(10), printed.recv());
        let line = line.await.unwrap().unwrap();
        assert!(line.contains(expected), "{line}");
        child.kill();
    }

    #[tokio::test]
    async fn a_child_cannot_read_another_of_its_user_or_create_files() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let folder = tempfile::tempdir().unwrap();
                let events = ChildEvents::default();
                let first = start(folder.path(), "first", "/bin/sleep", &["60"], &events);
                let memory = format!("cat /proc/{}/environ", first.pid());
                check_line(&["-c", &memory], "Permission denied").await;
                let own = "cat /proc/$$/environ; echo";
                check_line(&["-c", own], "LC_ALL=C").await;
                check_line(
                    &["-c", "ln -s elsewhere /tmp/link-of-a-child"],
                    "Permission denied",
                )
                .await;
                first.kill();
            })
            .await;
    }
}
