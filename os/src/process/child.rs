//! One child process: its start, its output (log lines, management bytes), its exit.
//!
//! Knows nothing of the child's purpose. Each child has one task on the main thread that reads its
//! output. A hung reader never blocks the child, since the child's end of the log pipe is
//! non-blocking.

use super::{
    events::ChildEvents,
    log::{CHUNK, Log},
    rights::Rights,
};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{PermissionsExt, chown},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream, unix::pipe},
    sync::mpsc,
};
use wire::errors::ignore_not_found;

/// A program to start, with its rights.
#[derive(Clone, Debug)]
pub struct Program {
    /// Names the child in logs, metrics and its folder; `[a-z0-9.-]`.
    pub name: String,
    /// Absolute path of the executable.
    pub path: PathBuf,
    /// Its arguments; nothing in them comes from outside unparsed.
    pub args: Vec<OsString>,
    /// The rights of the process.
    pub rights: Rights,
    /// Where its pid is written, root's own, so that a next start finds a leftover.
    pub pid_file: PathBuf,
    /// The socket that the child connects to (`--management-client`); created again at each start.
    pub management: Option<PathBuf>,
}

/// The reason why a child did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The log pipe.
    #[error("cannot make a log pipe for {name}")]
    Pipe {
        /// The name of the child.
        name: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The management socket.
    #[error("cannot listen on {path}", path = path.display())]
    Listen {
        /// The path of the socket.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// fork or exec.
    #[error("cannot start {path}", path = path.display())]
    Exec {
        /// The path of the executable.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// Something happened to a child.
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
    /// It connected to its management socket.
    ManagementConnected,
    /// It sent these bytes on its management socket.
    Management(Vec<u8>),
    /// It wrote a line to its log, at most 1,024 bytes, without control characters.
    Logged(String),
    /// The process exited and was reaped.
    Exited {
        /// Exit code, or the signal as a negative number.
        code: i32,
    },
}

/// A running child. Dropping it lets the child run; its management socket then closes, and OpenVPN
/// ends by itself.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    pidfd: OwnedFd,
    words: mpsc::UnboundedSender<String>,
}

impl Child {
    /// Starts the program; what happens to it goes to `events`.
    ///
    /// # Errors
    ///
    /// Nothing was started, and nothing is left behind but the folder.
    #[expect(
        clippy::disallowed_methods,
        unsafe_code,
        reason = "the one place that spawns"
    )]
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
        let exec = |source| SpawnError::Exec {
            path: program.path.clone(),
            source,
        };
        let rights = program.rights;
        let parent = std::process::id();
        let mut command = std::process::Command::new(&program.path);
        command
            .args(&program.args)
            .env_clear()
            .env("LC_ALL", "C")
            .current_dir("/")
            .process_group(0);
        command
            .stdin(std::process::Stdio::null())
            .stderr(write_end.try_clone().map_err(pipe)?)
            .stdout(write_end);
        // SAFETY: `assume` makes system calls only; it neither allocates nor locks.
        unsafe { command.pre_exec(move || rights.assume(parent)) };
        let mut command = tokio::process::Command::from(command);
        let process = command.spawn().map_err(exec)?;
        drop(command);
        let pid = process
            .id()
            .ok_or_else(|| exec(io::Error::other("it is gone already")))?;
        // The child is not reaped yet, so this pid is still its own.
        let raw = i32::try_from(pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let raw = raw.ok_or_else(|| exec(io::Error::other("odd pid")))?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|error| exec(error.into()))?;
        note_pid(&program.pid_file, pid);
        let (words, spoken) = mpsc::unbounded_channel();
        let log = pipe::Receiver::from_owned_fd(read_end).map_err(pipe)?;
        let watch = Watch {
            name: program.name.clone(),
            pid,
            events: events.clone(),
            listener,
            stream: None,
            spoken,
            log: Log::new(log),
            pid_file: program.pid_file.clone(),
            management: program.management.clone(),
        };
        tokio::task::spawn_local(watch.run(process));
        Ok(Self { pid, pidfd, words })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it (SIGKILL).
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // ESRCH: the process has exited meanwhile, and its exit event will follow.
        if let Err(error) = pidfd_send_signal(&self.pidfd, signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(pid = self.pid, %error, "cannot signal a child");
        }
    }

    /// Sends a command on its management socket, once it is connected.
    pub fn send_command(&self, command: String) {
        // The receiver is gone only when the child is.
        let _ = self.words.send(command);
    }
}

fn log_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
    // Non-blocking on the child's end as well: a daemon that hangs must not stop the data plane.
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
    fs::create_dir_all(folder).map_err(failed)?;
    chown(folder, Some(rights.uid), Some(rights.gid)).map_err(failed)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    remove(path);
    let listener = UnixListener::bind(path).map_err(failed)?;
    chown(path, Some(rights.uid), Some(rights.gid)).map_err(failed)?;
    Ok(listener)
}

fn remove(path: &Path) {
    if let Err(error) = ignore_not_found(fs::remove_file(path)) {
        tracing::warn!(path = %path.display(), %error, "cannot remove a file");
    }
}

/// Start time of a process, in clock ticks after boot (proc_pid_stat(5), field 22).
fn started(pid: u32) -> Option<u64> {
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    process.stat().ok().map(|stat| stat.starttime)
}

fn note_pid(path: &Path, pid: u32) {
    let Some(started) = started(pid) else { return };
    if let Err(error) = fs::write(path, format!("{pid} {started}\n")) {
        tracing::warn!(path = %path.display(), %error, "cannot write a pid file");
    }
}

/// Kills the child that a dead predecessor left behind, if the pid file still names that very
/// process (pid and start time). True where there was one.
pub fn kill_leftover(pid_file: &Path) -> bool {
    let Ok(text) = fs::read_to_string(pid_file) else {
        return false;
    };
    remove(pid_file);
    let Some((pid, started_then)) = text.trim().split_once(' ') else {
        return false;
    };
    let (Ok(pid), Ok(started_then)) = (pid.parse::<u32>(), started_then.parse::<u64>()) else {
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
    // Asked after the pidfd was opened: a pid used again in between would show another start time.
    if started(pid) != Some(started_then) {
        return false;
    }
    pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
}

/// The task that reads the output of one child until it exits.
struct Watch {
    name: String,
    pid: u32,
    events: ChildEvents,
    listener: Option<UnixListener>,
    stream: Option<UnixStream>,
    spoken: mpsc::UnboundedReceiver<String>,
    log: Log,
    pid_file: PathBuf,
    management: Option<PathBuf>,
}

impl Watch {
    async fn run(mut self, mut process: tokio::process::Child) {
        let mut chunk = [0; CHUNK];
        let code = loop {
            tokio::select! {
                status = process.wait() => break exit_code(status),
                lines = self.log.read() => self.logged(lines),
                accepted = accept(self.listener.as_ref()) => {
                    // Only one client is accepted; later ones find no listener.
                    self.listener = None;
                    self.stream = accepted.ok();
                    self.send(Happened::ManagementConnected);
                }
                read = read(self.stream.as_mut(), &mut chunk) => match read {
                    Ok(1..) => self.send(Happened::Management(chunk.get(..read.unwrap_or(0)).unwrap_or_default().to_vec())),
                    Ok(0) | Err(_) => self.stream = None,
                },
                Some(command) = self.spoken.recv(), if self.stream.is_some() => self.write_command(&command).await,
            }
        };
        let rest = self.log.rest();
        self.logged(rest);
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

    fn logged(&self, lines: Vec<String>) {
        lines
            .into_iter()
            .for_each(|line| self.send(Happened::Logged(line)));
        if self.log.floods()
            && let Some(pid) = i32::try_from(self.pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw)
        {
            tracing::error!(child = self.name, "child floods its log and is killed");
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }

    async fn write_command(&mut self, words: &str) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        // A child that does not read its socket for this long is as good as gone.
        let written =
            tokio::time::timeout(Duration::from_secs(2), stream.write_all(words.as_bytes())).await;
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
