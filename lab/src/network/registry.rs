//! The lab's registry, and what its operator does with it.

use super::Lab;
use crate::{
    netns,
    process::{self, Process, false_clock},
    wait::wait_until,
};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::{
    ffi::OsStr,
    fs,
    net::TcpStream,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

/// The last bytes of the registry's address on the lab's internet.
pub(super) const REGISTRY: &str = "0.2";
/// The registry's port.
const REGISTRY_PORT: u16 = 9443;
/// Where the registry serves its metrics, on all addresses.
pub(crate) const REGISTRY_METRICS_PORT: u16 = 9198;
/// The socket on which the registry is administered, below its root.
pub(crate) const ADMIN_SOCKET: &str = "run/warren-registry/admin.sock";
/// Longest time that one command of the registry may take, on a slow emulated processor, too.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait until a new registry listens.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait until a registry exits after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

impl Lab {
    /// The folder that the registry uses as its root.
    pub fn registry_root(&self) -> &Path {
        &self.registry_root
    }

    /// The folder with the root CA's certificate and key, if the lab was built with an offline root.
    pub fn offline_root_folder(&self) -> PathBuf {
        self.folder().join("offline-root")
    }

    /// The registry's address on the lab's internet.
    pub fn registry_address(&self) -> String {
        self.options.underlay_address(REGISTRY)
    }

    /// Runs `warren registry VERB ARGUMENTS` and returns what it printed.
    ///
    /// # Errors
    /// Fails if the command fails.
    pub fn registry_command(&self, verb: &str, arguments: &[&str]) -> Result<String> {
        self.registry_command_at("", verb, arguments)
    }

    /// Runs a command of the registry with a clock that is wrong by this offset, such as `-5d`; an empty one is none.
    fn registry_command_at(&self, offset: &str, verb: &str, arguments: &[&str]) -> Result<String> {
        let environment = false_clock(offset);
        let (root, program) = (
            self.registry_root.to_string_lossy(),
            self.program.to_string_lossy(),
        );
        let fixed = [&program, "registry", verb, "--root", &root];
        let words: Vec<&str> = environment.iter().map(AsRef::as_ref).collect();
        process::run(
            &self.registry_namespace(),
            Path::new("env"),
            [&words, fixed.as_slice(), arguments].concat(),
            COMMAND_TIMEOUT,
        )
    }

    /// Creates the registry's files with `warren registry init` and the lab's options.
    ///
    /// # Errors
    /// Fails if the command fails.
    pub fn init_registry(&self) -> Result<()> {
        let options = &self.options;
        let milliseconds = |span: Duration| format!("{}ms", span.as_millis());
        let dial = options.tunnels_to_dial.map(|count| count.to_string());
        let offline_root = options
            .has_offline_root
            .then(|| self.offline_root_folder().to_string_lossy().into_owned());
        let settings = [
            ("--dial", dial),
            ("--refresh", options.refresh.map(milliseconds)),
            ("--min-age", options.min_age.map(milliseconds)),
            (
                "--certificate-life",
                options.certificate_life.map(milliseconds),
            ),
            (
                "--announcement-ttl",
                options.announcement_ttl.map(milliseconds),
            ),
            ("--offline-root", offline_root),
        ];
        let name = options.registry_name.clone();
        let host = name.unwrap_or_else(|| self.registry_address());
        let address = format!("{host}:{REGISTRY_PORT}");
        let mut arguments = vec!["--address", &address];
        for (name, value) in &settings {
            if let Some(value) = value {
                arguments.extend([*name, value.as_str()]);
            }
        }
        let offset = options.ca_age.map(|age| format!("-{}s", age.as_secs()));
        let offset = offset.unwrap_or_default();
        self.registry_command_at(&offset, "init", &arguments)
            .map(drop)
    }

    pub(super) fn registry_process(&self) -> MutexGuard<'_, Option<Process>> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the registry, and waits until it listens.
    ///
    /// # Errors
    /// Fails if the registry exits or does not listen within a minute. The error quotes the end of its log.
    pub fn start_registry(&self) -> Result<()> {
        self.start_registry_with_clock("")
    }

    /// Starts the registry with a clock that is wrong by this offset, such as `+45s`; an empty one is none.
    ///
    /// # Errors
    /// Fails as [`Lab::start_registry`] does.
    pub fn start_registry_with_clock(&self, offset: &str) -> Result<()> {
        let namespace = self.registry_namespace();
        let metrics = format!("[::]:{REGISTRY_METRICS_PORT}");
        let environment = false_clock(offset);
        let arguments = [
            self.program.as_os_str(),
            "registry".as_ref(),
            "run".as_ref(),
            "--metrics".as_ref(),
            metrics.as_ref(),
            "--root".as_ref(),
            self.registry_root.as_os_str(),
        ];
        let address = self.registry_address();
        let log = self.folder().join("registry.log");
        let environment = environment.iter().map(OsStr::new);
        let words = environment.chain(arguments);
        let process = Process::start(&namespace, Path::new("env"), words, &log)?;
        let connect = || Ok(TcpStream::connect((address.as_str(), REGISTRY_PORT)).is_ok());
        wait_for_listener(&process, START_TIMEOUT, || {
            UnixStream::connect(self.registry_root.join(ADMIN_SOCKET)).is_ok()
                && netns::run_inside(&namespace, connect).unwrap_or(false)
        })?;
        *self.registry_process() = Some(process);
        Ok(())
    }

    /// Stops the registry with SIGTERM, and waits until it exits.
    pub fn stop_registry(&self) {
        if let Some(process) = self.registry_process().take() {
            process.stop(STOP_TIMEOUT);
        }
    }

    /// Freezes the registry with SIGSTOP, or lets it go on with SIGCONT.
    pub fn freeze_registry(&self, freeze: bool) {
        if let Some(process) = self.registry_process().as_ref() {
            process.send_signal(if freeze {
                Signal::SIGSTOP
            } else {
                Signal::SIGCONT
            });
        }
    }

    /// Creates an invitation with these options of `warren registry invite`.
    ///
    /// # Errors
    /// Fails if the command fails or prints no invitation.
    pub fn invite(&self, options: &[&str]) -> Result<String> {
        let output = self.registry_command("invite", options)?;
        let invitation = output
            .split_whitespace()
            .find(|word| word.starts_with("warren://"));
        invitation
            .map(ToOwned::to_owned)
            .with_context(|| format!("no invitation in {output:?}"))
    }

    /// Revokes all certificates of the node with this prefix.
    ///
    /// # Errors
    /// Fails if `warren registry revoke` fails.
    pub fn revoke(&self, prefix: &str) -> Result<()> {
        self.registry_command("revoke", &[prefix]).map(drop)
    }

    /// Lets a node join by files: carries its signing request to the registry, and the answer back.
    ///
    /// # Errors
    /// Fails if one of the three commands fails.
    pub fn join_by_file(&self, index: usize) -> Result<()> {
        let node = self.node(index)?;
        let request = self.folder().join("request.txt");
        let answer = self.folder().join("answer.txt");
        fs::write(&request, node.create_signing_request()?)?;
        let signed = self.registry_command("sign", &[&request.to_string_lossy()])?;
        fs::write(&answer, signed)?;
        node.install(&answer).map(drop)
    }
}

/// Waits until `is_listening` holds for a registry that has just been started.
///
/// # Errors
/// Fails if the process exits or `timeout` passes first. The error quotes the end of its log.
pub(crate) fn wait_for_listener(
    process: &Process,
    timeout: Duration,
    is_listening: impl Fn() -> bool,
) -> Result<()> {
    let outcome = wait_until(timeout, || {
        let is_ready = is_listening();
        (is_ready || process.exit_status().is_some()).then_some(is_ready)
    });
    if outcome != Some(true) {
        bail!(
            "the registry does not listen; its log ends with: {}",
            process.log_tail(10)
        );
    }
    Ok(())
}
