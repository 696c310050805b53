//! Examines the host and the node: each check says whether something is wrong, what was seen, and what to do.
//!
//! Nothing is changed. The checks work before the machine has joined, too; what they cannot find out is skipped.

mod host_checks;
mod lan_check;
mod network_checks;
mod node_checks;
mod program_checks;

use config::{ConfigError, Settings, paths::Paths};
use serde::Serialize;
use std::{
    fs,
    path::{Path, PathBuf},
};
use wire::control::{StatusDocument, TunnelsDocument};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The node cannot work, or does not.
    Failed,
    /// Something may become a problem, or is one for a part of what the node does.
    Warning,
    /// It could not be found out.
    Skipped,
    /// All is well.
    Ok,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The name of the check.
    pub id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What was seen.
    pub seen: String,
    /// What to do; `None` if there is nothing to do.
    pub advice: Option<String>,
}

impl Check {
    fn new(id: &str, outcome: Outcome, seen: impl Into<String>, advice: Option<&str>) -> Self {
        Self {
            id: id.to_owned(),
            outcome,
            seen: seen.into(),
            advice: advice.map(str::to_owned),
        }
    }

    fn ok(id: &str, seen: impl Into<String>) -> Self {
        Self::new(id, Outcome::Ok, seen, None)
    }

    fn skipped(id: &str, seen: impl Into<String>) -> Self {
        Self::new(id, Outcome::Skipped, seen, None)
    }

    fn warning(id: &str, seen: impl Into<String>, advice: &str) -> Self {
        Self::new(id, Outcome::Warning, seen, Some(advice))
    }

    fn failed(id: &str, seen: impl Into<String>, advice: &str) -> Self {
        Self::new(id, Outcome::Failed, seen, Some(advice))
    }
}

/// What the daemon of this node answers on its control socket.
#[derive(Clone, Debug)]
pub enum Daemon {
    /// The daemon answers on its control socket.
    Running {
        /// The state of the node.
        status: Box<StatusDocument>,
        /// The tunnels of the node.
        tunnels: TunnelsDocument,
    },
    /// Nothing answers at the control socket.
    NotRunning,
    /// The reason why it could not be asked.
    Unknown(String),
}

impl Daemon {
    /// Returns the state of the node, if its daemon runs.
    fn status(&self) -> Option<&StatusDocument> {
        match self {
            Self::Running { status, .. } => Some(status),
            Self::NotRunning | Self::Unknown(_) => None,
        }
    }
}

/// What is examined.
pub struct Examined {
    /// The files of the node.
    pub paths: Paths,
    /// The folder below which the files of the system are read: `proc`, `sys`, `etc`, `run`, `dev`, and programs.
    pub system: PathBuf,
    /// The running daemon.
    pub daemon: Daemon,
}

impl Examined {
    /// Reads a file of the system, without blanks at its ends; `None` if it cannot be read.
    fn read(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.system.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// Returns the names in a folder of the system, sorted.
    fn list(&self, path: &str) -> Vec<String> {
        names_in(&self.system.join(path))
    }

    /// Returns whether the machine has joined a network.
    fn has_joined(&self) -> bool {
        self.paths.certificate().exists()
    }
}

/// Returns the names in a folder, sorted; none if it cannot be read.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Installs the cryptography of TLS, which the check of the registry needs.
pub fn install_cryptography() {
    // Fails only if a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Runs all checks.
pub async fn examine(examined: &Examined) -> Vec<Check> {
    let settings = config::load(&examined.paths.config());
    let usable = settings.as_ref().ok();
    let mut checks = host_checks::checks(examined).await;
    checks.extend(program_checks::checks(examined, usable));
    checks.push(configuration(examined, &settings));
    checks.extend(node_checks::checks(examined, usable));
    checks.extend(network_checks::checks(examined, usable).await);
    checks.push(lan_check::check(examined));
    checks.push(daemon(examined));
    checks.extend(findings(examined));
    checks
}

fn configuration(examined: &Examined, settings: &Result<Settings, ConfigError>) -> Check {
    let file = examined.paths.config();
    match settings {
        Ok(_) => Check::ok("configuration", format!("{} is valid", file.display())),
        Err(_) if !file.exists() && !examined.has_joined() => Check::skipped(
            "configuration",
            "this machine has not joined a network, and has no configuration",
        ),
        Err(error) => Check::failed(
            "configuration",
            wire::errors::Chain(error).to_string().replace('\n', "; "),
            "correct it; warren check-config shows each complaint on a line of its own",
        ),
    }
}

fn daemon(examined: &Examined) -> Check {
    match &examined.daemon {
        Daemon::Running { status, .. } => Check::ok("daemon", format!("runs, pid {}", status.pid)),
        Daemon::NotRunning if examined.has_joined() => Check::warning(
            "daemon",
            "the daemon does not run",
            "start it: systemctl start warren; why it stopped: journalctl -u warren",
        ),
        Daemon::NotRunning => Check::skipped("daemon", "this machine has not joined a network"),
        Daemon::Unknown(reason) => Check::skipped("daemon", reason.clone()),
    }
}

/// Returns what the daemon itself finds wrong.
fn findings(examined: &Examined) -> Vec<Check> {
    let findings = examined
        .daemon
        .status()
        .map(|status| &status.health.findings);
    let check = |finding: &wire::control::FindingEntry| {
        let outcome = match finding.severity.as_str() {
            "error" => Outcome::Failed,
            "degraded" => Outcome::Warning,
            _ => Outcome::Ok,
        };
        let id = format!("health.{}", finding.id);
        Check::new(&id, outcome, &finding.seen, Some(&finding.advice))
    };
    findings.into_iter().flatten().map(check).collect()
}
