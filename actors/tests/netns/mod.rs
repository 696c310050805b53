//! Gives a test network namespaces of its own, as many as it needs; they go with their threads.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a helper of tests"
)]
#![allow(dead_code, unreachable_pub, reason = "each test takes what it needs")]

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread::{JoinHandle, spawn},
};

type Work = Box<dyn FnOnce() + Send>;

/// A network namespace: a thread that lives in it and runs the work that it receives.
pub struct Namespace {
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
    /// Names the namespace to `ip link set … netns`.
    pub id: String,
}

impl Namespace {
    /// A new namespace with `lo` up.
    pub fn new() -> Self {
        let (work, todo): (Sender<Work>, Receiver<Work>) = channel();
        let thread = spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            todo.into_iter().for_each(|work| work());
        });
        let mut namespace = Self {
            work: Some(work),
            thread: Some(thread),
            id: String::new(),
        };
        namespace.id = namespace.on(|| nix::unistd::gettid().to_string());
        namespace.sh("ip link set lo up");
        namespace
    }

    /// Does something in it and waits for the result.
    pub fn on<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (send_result, result) = channel();
        let work = Box::new(move || drop(send_result.send(work())));
        self.work.as_ref().unwrap().send(work).unwrap();
        result.recv().unwrap()
    }

    /// Runs a command line in it, which must succeed; returns its standard output.
    pub fn sh(&self, line: &str) -> String {
        let line = line.to_owned();
        self.on(move || sh(&line))
    }

    /// Runs an actix system in it until `test` returns.
    pub fn actors<F: Future<Output = ()>>(&self, test: impl FnOnce() -> F + Send + 'static) {
        self.on(move || actix::System::new().block_on(test()));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.work.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Runs a command line in the namespace of this thread, which must succeed; returns its standard output.
pub fn sh(line: &str) -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's own tools, not children of the daemon"
    )]
    let output = std::process::Command::new("sh")
        .args(["-ec", line])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Whether namespaces can be created; prints a line where they cannot.
pub fn can() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}
