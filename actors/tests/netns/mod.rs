//! Network namespaces for tests. Each exists as long as the thread that lives in it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a helper of tests"
)]
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of this")]

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread::{JoinHandle, spawn},
};

type Work = Box<dyn FnOnce() + Send>;

/// A network namespace: a thread that lives in it and runs the work that it receives.
pub struct Namespace {
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
    /// The name of the namespace for `ip link set … netns`: the id of its thread.
    pub id: String,
}

impl Namespace {
    /// Creates a namespace with `lo` up.
    pub fn new() -> Self {
        let (work, queue): (Sender<Work>, Receiver<Work>) = channel();
        let thread = spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            queue.into_iter().for_each(|work| work());
        });
        let mut namespace = Self {
            work: Some(work),
            thread: Some(thread),
            id: String::new(),
        };
        namespace.id = namespace.run(|| nix::unistd::gettid().to_string());
        namespace.sh("ip link set lo up");
        namespace
    }

    /// Runs `work` in the namespace, and waits for its result.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (send_result, result) = channel();
        let work = Box::new(move || drop(send_result.send(work())));
        self.work.as_ref().unwrap().send(work).unwrap();
        result.recv().unwrap()
    }

    /// Runs a command line in the namespace, which must succeed; returns its standard output.
    pub fn sh(&self, line: &str) -> String {
        let line = line.to_owned();
        self.run(move || sh(&line))
    }

    /// Runs an actix system in the namespace until `test` ends.
    pub fn run_actors<F: Future<Output = ()>>(&self, test: impl FnOnce() -> F + Send + 'static) {
        self.run(move || actix::System::new().block_on(test()));
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

/// Returns whether namespaces can be created, which needs root; prints a line if not.
pub fn can_create() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: needs root");
    }
    is_root
}
