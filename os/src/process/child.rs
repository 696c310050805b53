//! One child process: its start, its output (log lines and management bytes) and its exit.
//!
//! This module does not know what the child is for. For each child, one task on the main thread ([`Watcher`]) reads its
//! output. A daemon that hangs does not block the child, since the child's end of the log pipe is
//! non-blocking.

use super::{
    events::ChildEvents,
    leftover::{kill_and_reap, remove, write_pid_file},
    rights::Rights,
    start_step::{StepWriter, step_pipe},
    watcher::{ChildInput, ReleasedInput, Watcher, WatcherHandle},
};
use fault_points::fault;
use files::Access;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
};
use tokio::{net::UnixListener, sync::mpsc};

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
    /// The daemon reads the child's output no more, because another program goes on with the child.
    Released,
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
    /// The task that reads the child's output; `None` once it was asked to end.
    watcher: Option<WatcherHandle>,
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
        let mut command = prepare_command(program, write_end, step_writer).map_err(pipe)?;
        let process = command.spawn().map_err(|source| SpawnError::Exec {
            step: program
                .rights
                .describe_step(steps.failed_step(), &program.path),
            source,
        })?;
        drop(command);
        fault!("start {}", program.name);
        let pid = process.id();
        // The child is not reaped yet, so no other process can have this pid.
        let raw = i32::try_from(pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let raw = raw.ok_or_else(|| exec(io::Error::other("the pid is out of range")))?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|error| exec(error.into()))?;
        warn_of_other_priority(program, raw);
        write_pid_file(&program.pid_file, pid);
        let input = ChildInput {
            log: Some(read_end),
            ..ChildInput::default()
        };
        Self::watch(program, (pid, pidfd), (input, listener), events).map_err(exec)
    }

    /// Reads what the child writes from now on; `events` receives it. At the listener the child is still to connect to its
    /// management socket.
    pub(super) fn watch(
        program: &Program,
        (pid, pidfd): (u32, OwnedFd),
        (input, listener): (ChildInput, Option<UnixListener>),
        events: &ChildEvents,
    ) -> io::Result<Self> {
        let (commands, queued_commands) = mpsc::unbounded_channel();
        let watcher = Watcher::new(program, (pid, pidfd.try_clone()?), events)?;
        let watcher = watcher.start(input, listener, queued_commands)?;
        Ok(Self {
            pid,
            pidfd,
            commands,
            watcher: Some(watcher),
        })
    }

    /// Stops reading what the child writes. The descriptors are returned once all that was read has been delivered, and
    /// [`Happened::Released`] last; nothing is returned if the child exits before, or was released already.
    pub(super) fn release(&mut self) -> impl Future<Output = Option<ReleasedInput>> + use<> {
        let watcher = self.watcher.take();
        async move { watcher?.stop().await }
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

    /// Kills the process, whose output nobody reads, and waits until it has exited; `events` receives its exit.
    pub(super) fn end(&self, program: &Program, events: &ChildEvents) {
        kill_and_reap(self.pid, &self.pidfd);
        remove(&program.pid_file);
        events.send(ChildEvent {
            name: program.name.clone(),
            pid: self.pid,
            happened: Happened::Exited {
                code: -Signal::KILL.as_raw(),
            },
        });
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::process::Capabilities;
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    use std::time::Duration;

    /// Starts a program that cannot be started, and compares the error. `withheld` is taken from this thread before.
    #[track_caller]
    fn check(path: &str, withheld: CapabilitySet, expected: &str) {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let program = program(folder.path(), "child", path, &[]);
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

    /// A program that runs as the user of all children in these tests.
    pub(in crate::process) fn program(
        folder: &Path,
        name: &str,
        path: &str,
        arguments: &[&str],
    ) -> Program {
        Program {
            name: name.to_owned(),
            path: path.into(),
            args: arguments.iter().map(Into::into).collect(),
            rights: Rights {
                uid: 60_198,
                gid: 60_199,
                capabilities: Capabilities::None,
                nice: 0,
            },
            pid_file: folder.join(format!("{name}.pid")),
            management: None,
        }
    }

    /// Lets a child do something, and compares its first line.
    async fn check_line(arguments: &[&str], expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let (events, mut happened) = watched();
        let program = program(folder.path(), "second", "/bin/sh", arguments);
        let child = Child::start(&program, &events).unwrap();
        let event = next(&mut happened).await;
        assert!(
            matches!(&event, Happened::Logged(line) if line.contains(expected)),
            "{event:?}"
        );
        child.kill();
    }

    /// Passes all events of children on.
    struct Events(mpsc::UnboundedSender<ChildEvent>);

    impl crate::process::EventListener for Events {
        fn is_connected(&self) -> bool {
            true
        }

        fn deliver(&self, event: ChildEvent) {
            self.0.send(event).unwrap();
        }
    }

    /// A queue of events of children, and where they arrive.
    pub(in crate::process) fn watched() -> (ChildEvents, mpsc::UnboundedReceiver<ChildEvent>) {
        let (events, (seen, arriving)) = (ChildEvents::default(), mpsc::unbounded_channel());
        events.attach(Box::new(Events(seen)));
        (events, arriving)
    }

    /// Waits for the next event.
    pub(in crate::process) async fn next_event(
        arriving: &mut mpsc::UnboundedReceiver<ChildEvent>,
    ) -> ChildEvent {
        let event = tokio::time::timeout(Duration::from_secs(10), arriving.recv());
        event.await.unwrap().unwrap()
    }

    async fn next(arriving: &mut mpsc::UnboundedReceiver<ChildEvent>) -> Happened {
        next_event(arriving).await.happened
    }

    #[tokio::test]
    async fn a_released_child_runs_on_and_is_adopted_with_the_rest_of_its_output() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let folder = tempfile::tempdir().unwrap();
                let access = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                std::fs::set_permissions(folder.path(), access).unwrap();
                let signal = folder.path().join("go on");
                let script = format!(
                    "printf 'one\\nsecond '; until [ -e '{}' ]; do sleep 0.02; done; echo line; exit 3",
                    signal.display()
                );
                let (events, mut happened) = watched();
                let program = program(folder.path(), "kept", "/bin/sh", &["-c", &script]);
                let mut child = Child::start(&program, &events).unwrap();
                assert!(matches!(next(&mut happened).await, Happened::Logged(line) if line == "one"));
                let input = child.release().await.unwrap().take();
                assert!(matches!(next(&mut happened).await, Happened::Released));
                assert_eq!(input.partial_line, b"second ");
                let handed = child.hand_over(input).unwrap();
                assert!(child.release().await.is_none());

                let other = crate::process::HandedChild {
                    pid: handed.pid,
                    start_time: handed.start_time + 1,
                    input: ChildInput::default(),
                };
                assert!(Child::adopt(&program, other, &events).is_err());
                let adopted = Child::adopt(&program, handed, &events).unwrap();
                std::fs::write(signal, "").unwrap();
                assert!(matches!(next(&mut happened).await, Happened::Logged(line) if line == "second line"));
                assert!(matches!(next(&mut happened).await, Happened::Exited { code: 3 }));
                drop(adopted);
            })
            .await;
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
                let first = program(folder.path(), "first", "/bin/sleep", &["60"]);
                let first = Child::start(&first, &events).unwrap();
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
    #[tokio::test]
    async fn a_child_writes_no_core_dump_and_its_memory_is_limited() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let limits = "ulimit -Hc; ulimit -Hv";
                check_line(&["-c", &format!("echo $({limits})")], "0 1048576").await;
            })
            .await;
    }
}
