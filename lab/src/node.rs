//! One node of the lab, handled from outside: its namespace, its folder, its daemon.

use crate::{http, ip, lab_run::stat_field, process, process::Process};
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

/// How long an orderly stop may take: its drain has 20 s, every child 2 s, then it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(40);
/// How long `warren join` may take.
const JOIN_PATIENCE: Duration = Duration::from_secs(20);
/// Where a node of the lab serves its metrics, in its own namespace.
const METRICS: &str = "127.0.0.1:9197";
/// Who the children of all nodes run as: OpenVPN, babeld. Nobody else has these.
const CHILD_UIDS: &str = "61197,61198";

/// Who a node is in the network, as `warren join` told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `7/16`.
    pub prefix: String,
    /// The node's own address.
    pub address: Ipv6Addr,
}

/// One node of the lab.
#[derive(Debug)]
pub struct Node {
    index: usize,
    namespace: String,
    root: PathBuf,
    program: PathBuf,
    identity: OnceLock<Identity>,
    daemon: Mutex<Option<Process>>,
}

impl Node {
    /// A node that has not joined yet. Everything of it lies below `root`.
    pub fn new(index: usize, namespace: String, root: PathBuf, program: PathBuf) -> Self {
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

    /// Its network namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What its daemon takes as root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What its daemon printed.
    pub fn log(&self) -> PathBuf {
        self.root.join("warren.log")
    }

    /// Who it is.
    ///
    /// # Errors
    /// Where it has not joined.
    pub fn identity(&self) -> Result<&Identity> {
        self.identity
            .get()
            .ok_or_else(|| anyhow!("node {} has not joined", self.index))
    }

    /// Joins the network.
    ///
    /// # Errors
    /// Where `warren join` refuses, or prints something else than a prefix and an address.
    pub fn join(&self, invitation: &str) -> Result<&Identity> {
        let root = self.root.as_os_str();
        let arguments = [
            "join".as_ref(),
            invitation.as_ref(),
            "--root".as_ref(),
            root,
        ];
        let arguments = arguments
            .into_iter()
            .chain(["--child-uids".as_ref(), OsStr::new(CHILD_UIDS)]);
        let told = process::run(&self.namespace, &self.program, arguments, JOIN_PATIENCE)?;
        let identity =
            identity_of(&told).with_context(|| format!("warren join printed {told:?}"))?;
        Ok(self.identity.get_or_init(|| identity))
    }

    /// Makes a key, and what the registry is asked with.
    ///
    /// # Errors
    /// Where `warren request` refuses.
    pub fn request(&self) -> Result<String> {
        self.warren(&["request", "--child-uids", CHILD_UIDS])
    }

    /// Joins the network with what the registry's operator brought.
    ///
    /// # Errors
    /// Where `warren install` refuses, or prints something else than a prefix and an address.
    pub fn install(&self, answer: &Path) -> Result<&Identity> {
        let told = self.warren(&[
            "install",
            &answer.to_string_lossy(),
            "--child-uids",
            CHILD_UIDS,
        ])?;
        let identity =
            identity_of(&told).with_context(|| format!("warren install printed {told:?}"))?;
        Ok(self.identity.get_or_init(|| identity))
    }

    /// Sets one documented top-level key of the node's configuration, as an operator would: for the next start.
    ///
    /// # Errors
    /// Where it has not joined, or the file cannot be written.
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
    /// Where it runs already, or cannot be started.
    pub fn start(&self) -> Result<()> {
        let mut daemon = self.daemon();
        if daemon
            .as_ref()
            .is_some_and(|process| process.ended().is_none())
        {
            bail!("node {} runs already", self.index);
        }
        let arguments = ["run".as_ref(), "--root".as_ref(), self.root.as_os_str()];
        *daemon = Some(Process::start(
            &self.namespace,
            &self.program,
            arguments,
            &self.log(),
        )?);
        Ok(())
    }

    /// Ends the daemon orderly, and waits. `None` where it ran not, or SIGKILL was needed.
    pub fn stop(&self) -> Option<ExitStatus> {
        self.daemon().take()?.stop(STOP_PATIENCE)
    }

    /// SIGKILL for the daemon alone, and waits until it is reaped.
    pub fn kill(&self) {
        if let Some(process) = self.daemon().take() {
            process.kill();
        }
    }

    /// Sends the daemon a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(process) = self.daemon().as_ref() {
            process.signal(signal);
        }
    }

    /// How the daemon ended by itself; `None` while it runs or where it was never started.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.daemon().as_ref().and_then(Process::ended)
    }

    /// Waits until the daemon has ended by itself.
    pub fn wait(&self, patience: Duration) -> Option<ExitStatus> {
        process::wait_until(patience, || self.ended())
    }

    /// The daemon's pid while it runs.
    pub fn pid(&self) -> Option<u32> {
        let daemon = self.daemon();
        let process = daemon
            .as_ref()
            .filter(|process| process.ended().is_none())?;
        Some(process.pid())
    }

    /// Pids of the daemon's children, zombies left out, with their command lines.
    pub fn children(&self) -> BTreeMap<u32, String> {
        let Some(daemon) = self.pid() else {
            return BTreeMap::new();
        };
        let pids = ip::pids(&self.namespace)
            .into_iter()
            .filter_map(|pid| u32::try_from(pid).ok());
        let children = pids.filter(|pid| stat_field(*pid, 4) == Some(daemon.to_string()));
        let alive = children.filter(|pid| stat_field(*pid, 3).is_some_and(|state| state != "Z"));
        alive.map(|pid| (pid, command_line(pid))).collect()
    }

    /// Pids of everything that lives in the node's namespace, zombies left out.
    pub fn processes(&self) -> BTreeMap<u32, String> {
        let pids = ip::pids(&self.namespace)
            .into_iter()
            .filter_map(|pid| u32::try_from(pid).ok());
        let alive = pids.filter(|pid| stat_field(*pid, 3).is_some_and(|state| state != "Z"));
        alive.map(|pid| (pid, command_line(pid))).collect()
    }

    /// One document of the control socket.
    ///
    /// # Errors
    /// Where the daemon does not answer, or with another document.
    pub fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let socket = self.root.join("run/warren/control.sock");
        let answer = http::get_unix(&socket, path)?;
        serde_json::from_str(&answer)
            .with_context(|| format!("node {} answered {path} strangely", self.index))
    }

    /// The node's metrics, as Prometheus would read them.
    ///
    /// # Errors
    /// Where the exporter does not answer.
    pub fn scrape(&self) -> Result<String> {
        let address: SocketAddr = METRICS.parse().context("the metrics' address")?;
        http::get_inside(&self.namespace, address, "/metrics")
    }

    /// Runs `warren ARGUMENTS --root ROOT` in the node's namespace and returns what it printed.
    ///
    /// # Errors
    /// Where it fails.
    pub fn warren(&self, arguments: &[&str]) -> Result<String> {
        let root = self.root.to_string_lossy();
        let arguments = arguments.iter().copied().chain(["--root", &root]);
        process::run(&self.namespace, &self.program, arguments, JOIN_PATIENCE)
    }

    /// Runs a program in the node's namespace and returns what it printed.
    ///
    /// # Errors
    /// Where it fails or takes longer than 20 s.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Result<String> {
        process::run(
            &self.namespace,
            Path::new(program),
            arguments,
            JOIN_PATIENCE,
        )
    }

    /// The last `lines` lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log(), lines)
    }
}

/// The last `lines` lines of a file; empty where it cannot be read.
pub fn tail(file: &Path, lines: usize) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..)
        .unwrap_or_default()
        .join("\n")
}

fn command_line(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line)
        .replace('\0', " ")
        .trim()
        .to_owned()
}

/// The same lines, but `key: value` in the place of the key's own line or, where it has none, at the end.
fn with_key(text: &str, key: &str, value: &str) -> String {
    let set = format!("{key}: {value}");
    let has_key = |line: &&str| {
        line.strip_prefix(key)
            .is_some_and(|rest| rest.starts_with(':'))
    };
    let found = text.lines().any(|line| has_key(&line));
    let lines = text
        .lines()
        .map(|line| if has_key(&line) { set.as_str() } else { line });
    let end = (!found).then_some(set.as_str());
    lines.chain(end).map(|line| format!("{line}\n")).collect()
}

/// The first word that is a prefix, and the first that is an address.
fn identity_of(told: &str) -> Result<Identity> {
    let words = || told.split(|letter: char| letter.is_whitespace() || ",;()".contains(letter));
    let address = words()
        .find_map(|word| word.parse().ok())
        .context("no address among it")?;
    let is_prefix = |word: &str| {
        let numbers = word.split_once('/');
        numbers.is_some_and(|(number, length)| {
            number.parse::<u32>().is_ok() && length.parse::<u8>().is_ok()
        })
    };
    let prefix = words()
        .find(|word| is_prefix(word))
        .context("no prefix among it")?
        .to_owned();
    Ok(Identity { prefix, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(told: &str, expected: Option<(&str, &str)>) {
        let expected = expected.map(|(prefix, address)| Identity {
            prefix: prefix.to_owned(),
            address: address.parse().unwrap(),
        });
        assert_eq!(identity_of(told).ok(), expected, "{told}");
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
    fn a_key_takes_its_own_line_or_a_new_one() {
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
    fn half_an_identity_is_none() {
        check("7/16", None);
        check("fd12::1", None);
        check("", None);
    }
}
