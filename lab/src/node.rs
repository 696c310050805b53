//! One node of the lab, handled from outside: its namespace, its folder, its daemon.

mod faults;

pub use faults::SERVER_PORT;

use crate::{
    http, netns,
    proc_files::{command_line, is_running, parent_pid},
    process::{self, Process, last_lines},
};
use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    net::{Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

/// Longest wait until a daemon exits after SIGTERM: its drain takes up to 20 s, each child up to 2 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);
/// Longest time that one command in the node's namespace may take, on a slow emulated processor, too.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// The address at which a node of the lab serves its metrics, in its own namespace.
const METRICS_ADDRESS: &str = "127.0.0.1:9197";
/// The user ids of all nodes' OpenVPN and babeld processes. No other process has them.
const CHILD_UIDS: &str = "61197,61198";
/// Lines of the daemon's log that an error quotes.
const QUOTED_LOG_LINES: usize = 20;

/// The node's identity in the network, as `warren join` printed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedIdentity {
    /// The node's prefix, such as `7/16`.
    pub prefix: String,
    /// The node's own address in the network.
    pub address: Ipv6Addr,
}

/// One node of the lab.
#[derive(Debug)]
pub struct Node {
    index: usize,
    namespace: String,
    root: PathBuf,
    program: PathBuf,
    identity: OnceLock<JoinedIdentity>,
    daemon: Mutex<Option<Process>>,
}

impl Node {
    /// Describes a node that has not joined yet. All its files will be below `root`.
    pub(crate) fn new(index: usize, namespace: String, root: PathBuf, program: PathBuf) -> Self {
        Self {
            index,
            namespace,
            root,
            program,
            identity: OnceLock::new(),
            daemon: Mutex::new(None),
        }
    }

    /// Its number in the lab, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The name that the registry gives it if it joins while the lab is built, such as `node-3`.
    pub fn name(&self) -> String {
        format!("node-{}", self.index)
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The folder that its daemon uses as root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file with what its daemon printed, over all its starts.
    pub fn log_file(&self) -> PathBuf {
        self.root.join("warren.log")
    }

    /// The last `count` lines of its log.
    pub fn log_tail(&self, count: usize) -> String {
        last_lines(&self.log_file(), count)
    }

    /// Its identity in the network.
    ///
    /// # Errors
    /// Fails if it has not joined.
    pub fn identity(&self) -> Result<&JoinedIdentity> {
        self.identity
            .get()
            .ok_or_else(|| anyhow!("node {} has not joined", self.index))
    }

    /// Its prefix in the network, such as `7/16`.
    ///
    /// # Errors
    /// Fails if it has not joined.
    pub fn prefix(&self) -> Result<&str> {
        Ok(&self.identity()?.prefix)
    }

    /// Joins the network with an invitation.
    ///
    /// # Errors
    /// Fails if `warren join` fails, or prints no prefix or no address.
    pub fn join(&self, invitation: &str) -> Result<()> {
        let output = self.warren_command(&["join", invitation, "--child-uids", CHILD_UIDS])?;
        self.set_identity(&output)
    }

    /// Creates a key and returns the signing request that the operator carries to the registry.
    ///
    /// # Errors
    /// Fails if `warren request` fails.
    pub fn create_signing_request(&self) -> Result<String> {
        self.warren_command(&["request", "--child-uids", CHILD_UIDS])
    }

    /// Joins the network with the file that the operator carried back from the registry.
    ///
    /// # Errors
    /// Fails if `warren install` fails, or prints no prefix or no address.
    pub fn install(&self, answer: &Path) -> Result<()> {
        let answer = answer.to_string_lossy();
        let output = self.warren_command(&["install", &answer, "--child-uids", CHILD_UIDS])?;
        self.set_identity(&output)
    }

    fn set_identity(&self, output: &str) -> Result<()> {
        let identity = parse_identity(output)
            .with_context(|| format!("node {}: warren printed {output:?}", self.index))?;
        self.identity.get_or_init(|| identity);
        Ok(())
    }

    /// Sets one top-level key of the node's configuration file, for the next start.
    ///
    /// # Errors
    /// Fails if the node has not joined, or if the file cannot be written.
    pub fn configure(&self, key: &str, value: &str) -> Result<()> {
        let path = self.root.join("etc/warren/warren.yaml");
        let context = || format!("cannot edit {}", path.display());
        let text = fs::read_to_string(&path).with_context(context)?;
        fs::write(&path, with_key(&text, key, value)).with_context(context)
    }

    fn daemon(&self) -> MutexGuard<'_, Option<Process>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the daemon.
    ///
    /// # Errors
    /// Fails if the daemon already runs, or cannot be started.
    pub fn start(&self) -> Result<()> {
        let arguments = ["run".as_ref(), "--root".as_ref(), self.root.as_os_str()];
        self.start_daemon(&self.program, &arguments)
    }

    /// Starts the daemon with these variables in its environment, `NAME=VALUE` each.
    ///
    /// # Errors
    /// Fails if the daemon already runs, or cannot be started.
    pub fn start_with_variables(&self, variables: &[String]) -> Result<()> {
        self.start_through(&[&["env".to_owned()], variables].concat())
    }

    /// Starts the daemon through another program: its words come before those of the daemon's own command line. It must replace itself by
    /// the daemon.
    ///
    /// # Errors
    /// Fails if there are no words, if the daemon already runs, or if it cannot be started.
    pub fn start_through(&self, words: &[String]) -> Result<()> {
        let (program, arguments) = words.split_first().context("no program is given")?;
        let command_line = [self.program.as_os_str(), "run".as_ref(), "--root".as_ref()];
        let arguments: Vec<&OsStr> = arguments
            .iter()
            .map(AsRef::as_ref)
            .chain(command_line)
            .chain([self.root.as_os_str()])
            .collect();
        self.start_daemon(Path::new(program), &arguments)
    }

    fn start_daemon(&self, program: &Path, arguments: &[&OsStr]) -> Result<()> {
        let mut daemon = self.daemon();
        if daemon
            .as_ref()
            .is_some_and(|process| process.exit_status().is_none())
        {
            bail!("the daemon of node {} already runs", self.index);
        }
        let log = self.log_file();
        *daemon = Some(Process::start(&self.namespace, program, arguments, &log)?);
        Ok(())
    }

    /// Stops the daemon with SIGTERM, and waits. Returns `None` if it did not run, or if SIGKILL was needed.
    pub fn stop(&self) -> Option<ExitStatus> {
        self.daemon().take()?.stop(STOP_TIMEOUT)
    }

    /// Stops the daemon with SIGTERM, and requires that it exits in time and with success.
    ///
    /// # Errors
    /// Fails if the daemon did not run, needed SIGKILL, or failed. The error quotes the end of its log.
    pub fn stop_cleanly(&self) -> Result<()> {
        match self.stop() {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("{}", self.describe(&format!("exited with {status}"))),
            None => bail!("{}", self.describe("did not stop in time, or did not run")),
        }
    }

    /// Sends SIGTERM to the daemon, and does not wait.
    pub fn send_stop(&self) {
        if let Some(process) = self.daemon().as_ref() {
            process.send_signal(Signal::SIGTERM);
        }
    }

    /// Sends SIGKILL to the daemon alone, and waits until it is reaped.
    pub fn kill(&self) {
        if let Some(process) = self.daemon().take() {
            process.kill();
        }
    }

    /// The exit status of a daemon that exited by itself; `None` while it runs or if it was never started.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.daemon().as_ref().and_then(Process::exit_status)
    }

    /// The daemon's process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        let daemon = self.daemon();
        let process = daemon
            .as_ref()
            .filter(|process| process.exit_status().is_none())?;
        Some(process.pid())
    }

    /// Process ids and command lines of the daemon's children; zombies are not counted.
    pub fn children(&self) -> BTreeMap<u32, String> {
        let Some(daemon) = self.pid() else {
            return BTreeMap::new();
        };
        let mut processes = self.processes();
        processes.retain(|pid, _| parent_pid(*pid) == Some(daemon));
        processes
    }

    /// Process ids and command lines of all processes in the node's namespace; zombies are not counted.
    pub fn processes(&self) -> BTreeMap<u32, String> {
        netns::pids(&self.namespace)
            .into_iter()
            .filter(|pid| is_running(*pid))
            .map(|pid| (pid, command_line(pid).unwrap_or_default()))
            .collect()
    }

    /// Fetches a document from the daemon's control socket.
    ///
    /// # Errors
    /// Fails if the daemon does not answer, or answers with another kind of document.
    pub fn control_document<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let socket = self.root.join("run/warren/control.sock");
        let document = http::get_unix(&socket, path)?;
        serde_json::from_str(&document)
            .with_context(|| format!("node {} answered {path} with {document:?}", self.index))
    }

    /// The address in the node's namespace at which it serves metrics and the map.
    pub fn metrics_address(&self) -> &'static str {
        METRICS_ADDRESS
    }

    /// Reads the node's metrics, as Prometheus would.
    ///
    /// # Errors
    /// Fails if the exporter does not answer.
    pub fn scrape(&self) -> Result<String> {
        let address: SocketAddr = METRICS_ADDRESS
            .parse()
            .context("cannot parse the address of the metrics")?;
        http::get_inside(&self.namespace, address, "/metrics")
    }

    /// The value of one sample of the node's metrics; `sample` is the metric's name with its labels.
    ///
    /// # Errors
    /// Fails if the exporter does not answer, or has no such sample.
    pub fn metric(&self, sample: &str) -> Result<u64> {
        let text = self.scrape()?;
        let line = text.lines().find_map(|line| line.strip_prefix(sample));
        let value = line.with_context(|| format!("node {} has no sample {sample}", self.index))?;
        value
            .trim()
            .parse()
            .with_context(|| format!("node {} has {sample} {value}", self.index))
    }

    /// When the node's certificate expires, in seconds since 1970.
    ///
    /// # Errors
    /// Fails as [`Node::metric`] does.
    pub fn certificate_expiry(&self) -> Result<u64> {
        self.metric("warren_certificate_expiry_timestamp_seconds")
    }

    /// Runs `warren ARGUMENTS --root ROOT` in the node's namespace and returns what it printed.
    ///
    /// # Errors
    /// Fails if the command fails or takes longer than a minute.
    pub fn warren_command(&self, arguments: &[&str]) -> Result<String> {
        let root = self.root.to_string_lossy();
        let arguments = [arguments, &["--root", &root]].concat();
        self.run_program(&self.program, &arguments)
    }

    /// Runs a program in the node's namespace and returns what it printed.
    ///
    /// # Errors
    /// Fails if the program fails or takes longer than a minute.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.run_program(Path::new(program), arguments)
    }

    fn run_program(&self, program: &Path, arguments: &[impl AsRef<OsStr>]) -> Result<String> {
        process::run(&self.namespace, program, arguments, COMMAND_TIMEOUT)
    }

    /// A sentence about the node, for errors and assertions, followed by the end of its log.
    pub fn describe(&self, event: &str) -> String {
        format!(
            "node {} {event}; its log ends with:\n{}",
            self.index,
            self.log_tail(QUOTED_LOG_LINES)
        )
    }
}

/// The same lines, with `key: value` instead of the key's own line or, if it has none, at the end.
fn with_key(text: &str, key: &str, value: &str) -> String {
    let new_line = format!("{key}: {value}");
    let has_key = |line: &&str| {
        line.strip_prefix(key)
            .is_some_and(|rest| rest.starts_with(':'))
    };
    let is_present = text.lines().any(|line| has_key(&line));
    let lines = text.lines().map(|line| {
        if has_key(&line) {
            new_line.as_str()
        } else {
            line
        }
    });
    let added_line = (!is_present).then_some(new_line.as_str());
    lines
        .chain(added_line)
        .map(|line| format!("{line}\n"))
        .collect()
}

/// The first word that is a prefix, and the first that is an address.
fn parse_identity(output: &str) -> Result<JoinedIdentity> {
    let words = || output.split(|letter: char| letter.is_whitespace() || ",;()".contains(letter));
    let address = words()
        .find_map(|word| word.parse().ok())
        .context("no word of it is an IPv6 address")?;
    let is_prefix = |word: &str| {
        let numbers = word.split_once('/');
        numbers.is_some_and(|(number, length)| {
            number.parse::<u32>().is_ok() && length.parse::<u8>().is_ok()
        })
    };
    let prefix = words()
        .find(|word| is_prefix(word))
        .context("no word of it is a prefix")?
        .to_owned();
    Ok(JoinedIdentity { prefix, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(output: &str, expected: Option<(&str, &str)>) {
        let expected = expected.map(|(prefix, address)| JoinedIdentity {
            prefix: prefix.to_owned(),
            address: address.parse().unwrap(),
        });
        assert_eq!(parse_identity(output).ok(), expected, "{output}");
    }

    #[test]
    fn the_words_around_prefix_and_address_do_not_matter() {
        check("7/16 fd12::7:0:0:0:1\n", Some(("7/16", "fd12::7:0:0:0:1")));
        check(
            "joined as 7/16, address fd12:0:0:7::1",
            Some(("7/16", "fd12:0:0:7::1")),
        );
    }

    #[test]
    fn a_key_replaces_its_own_line_or_gets_a_new_one() {
        let text = "# listen: x\nlisten: { udp: 1194 }\nlog: info\n";
        assert_eq!(
            with_key(text, "log", "debug"),
            "# listen: x\nlisten: { udp: 1194 }\nlog: debug\n"
        );
        assert_eq!(
            with_key("log: info\n", "upnp", "off"),
            "log: info\nupnp: off\n"
        );
    }

    #[test]
    fn half_an_identity_is_rejected() {
        check("7/16", None);
        check("fd12::1", None);
        check("", None);
    }
}
