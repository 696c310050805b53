//! The task that reads the output of one child until it exits, or until another program goes on with the child.

use super::{
    ChildEvent, ChildEvents, Happened, Program,
    leftover::remove,
    log::{CHUNK_BYTES, Log},
};
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest, unix::AsyncFd},
    net::{UnixListener, UnixStream, unix::pipe},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

/// Time within which a child must read a command from its management socket.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a child's output is read from, and what of it was not handled yet.
#[derive(Debug, Default)]
pub struct ChildInput {
    /// The reading end of the log pipe; `None` once the child has closed its end.
    pub log: Option<OwnedFd>,
    /// The begin of a log line whose end was not read yet.
    pub partial_line: Vec<u8>,
    /// The child's connection to its management socket.
    pub management: Option<OwnedFd>,
    /// Commands that were not written to it yet.
    pub commands: String,
}

/// The input of a child that is read no more. Commands may still be added to it, until it is [taken](Self::take).
#[derive(Debug)]
pub struct ReleasedInput {
    input: ChildInput,
    queued_commands: mpsc::UnboundedReceiver<String>,
}

impl ReleasedInput {
    /// Returns the input with all commands that were given so far.
    pub fn take(mut self) -> ChildInput {
        while let Ok(command) = self.queued_commands.try_recv() {
            self.input.commands.push_str(&command);
        }
        self.input
    }
}

/// A running watcher.
#[derive(Debug)]
pub(super) struct WatcherHandle {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Option<ReleasedInput>>,
}

impl WatcherHandle {
    /// Ends the watcher, and returns the input; `None` if the child has exited.
    pub(super) async fn stop(self) -> Option<ReleasedInput> {
        // Fails only if the watcher has ended by itself.
        let _ = self.stop.send(());
        self.task.await.ok()?
    }
}

/// The task that reads the output of one child.
pub(super) struct Watcher {
    name: String,
    pid: u32,
    pidfd: AsyncFd<OwnedFd>,
    events: ChildEvents,
    pid_file: PathBuf,
    management: Option<PathBuf>,
}

impl Watcher {
    /// Builds the watcher of a child process with this pid and pidfd.
    #[expect(
        unsafe_code,
        reason = "tokio cannot know that a type keeps its descriptor"
    )]
    pub(super) fn new(
        program: &Program,
        (pid, pidfd): (u32, OwnedFd),
        events: &ChildEvents,
    ) -> io::Result<Self> {
        // SAFETY: `OwnedFd` keeps its descriptor open until it is dropped.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
        Ok(Self {
            name: program.name.clone(),
            pid,
            pidfd,
            events: events.clone(),
            pid_file: program.pid_file.clone(),
            management: program.management.clone(),
        })
    }

    /// Starts the task on this thread.
    pub(super) fn start(
        self,
        input: ChildInput,
        listener: Option<UnixListener>,
        queued_commands: mpsc::UnboundedReceiver<String>,
    ) -> io::Result<WatcherHandle> {
        let log = input.log.map(pipe::Receiver::from_owned_fd).transpose()?;
        let streams = Streams {
            listener,
            management: input.management.map(to_stream).transpose()?,
            commands: input.commands,
            queued_commands,
            log: Log::new(log, input.partial_line),
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::task::spawn_local(self.run(streams, stopped));
        Ok(WatcherHandle { stop, task })
    }

    async fn run(
        self,
        mut streams: Streams,
        mut stopped: oneshot::Receiver<()>,
    ) -> Option<ReleasedInput> {
        let commands = std::mem::take(&mut streams.commands);
        streams.write_command(&commands).await;
        let mut chunk = [0; CHUNK_BYTES];
        let code = loop {
            tokio::select! {
                code = self.exit_code() => break code,
                // A handle that was dropped leaves the child to this task.
                Ok(()) = &mut stopped => {
                    self.send(Happened::Released);
                    return streams.release();
                }
                lines = streams.log.read() => self.send_lines(&streams.log, lines),
                accepted = accept(streams.listener.as_ref()) => {
                    // Only one connection is accepted: dropping the listener rejects later ones.
                    streams.listener = None;
                    streams.management = accepted.ok();
                    self.send(Happened::ManagementConnected);
                }
                read = read(streams.management.as_mut(), &mut chunk) => match read {
                    Ok(count @ 1..) => self.send(Happened::Management(chunk.get(..count).unwrap_or_default().to_vec())),
                    Ok(0) | Err(_) => streams.management = None,
                },
                Some(command) = streams.queued_commands.recv(), if streams.management.is_some() => streams.write_command(&command).await,
            }
        };
        let lines = streams.log.read_remaining();
        self.send_lines(&streams.log, lines);
        remove(&self.pid_file);
        if let Some(path) = &self.management {
            remove(path);
        }
        self.send(Happened::Exited { code });
        None
    }

    /// Waits until the process exits, and reaps it.
    async fn exit_code(&self) -> i32 {
        // A pidfd becomes readable when its process exits (pidfd_open(2)).
        let exited = self.pidfd.readable().await;
        if exited.is_err() {
            return std::future::pending().await;
        }
        let status = waitid(
            WaitId::PidFd(self.pidfd.get_ref().as_fd()),
            WaitIdOptions::EXITED,
        );
        let Ok(Some(status)) = status else { return -1 };
        status
            .exit_status()
            .or(status.terminating_signal().map(|signal| -signal))
            .unwrap_or(-1)
    }

    fn send(&self, happened: Happened) {
        self.events.send(ChildEvent {
            name: self.name.clone(),
            pid: self.pid,
            happened,
        });
    }

    fn send_lines(&self, log: &Log, lines: Vec<String>) {
        lines
            .into_iter()
            .for_each(|line| self.send(Happened::Logged(line)));
        if log.is_tap_gone() {
            tracing::error!(
                child = self.name,
                "the child's TAP link is gone, and it does nothing but write log lines; killing it"
            );
            let _ = rustix::process::pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
        }
    }
}

/// The ends of a child's pipes and sockets while a watcher has them.
struct Streams {
    listener: Option<UnixListener>,
    management: Option<UnixStream>,
    /// Commands to be written before the queued ones.
    commands: String,
    queued_commands: mpsc::UnboundedReceiver<String>,
    log: Log,
}

impl Streams {
    async fn write_command(&mut self, command: &str) {
        let Some(stream) = &mut self.management else {
            return;
        };
        // A child that does not read its socket for this long hangs, so its connection is closed.
        let written =
            tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(command.as_bytes())).await;
        if !matches!(written, Ok(Ok(()))) {
            self.management = None;
        }
    }

    /// Returns the descriptors of a child that has connected to its management socket, if it does that; `None` if one cannot be taken from the runtime.
    fn release(self) -> Option<ReleasedInput> {
        let (log, partial_line) = self.log.release().ok()?;
        let management = self.management.map(UnixStream::into_std).transpose().ok()?;
        let input = ChildInput {
            log,
            partial_line,
            management: management.map(OwnedFd::from),
            commands: String::new(),
        };
        Some(ReleasedInput {
            input,
            queued_commands: self.queued_commands,
        })
    }
}

fn to_stream(connection: OwnedFd) -> io::Result<UnixStream> {
    let connection = std::os::unix::net::UnixStream::from(connection);
    connection.set_nonblocking(true)?;
    UnixStream::from_std(connection)
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
