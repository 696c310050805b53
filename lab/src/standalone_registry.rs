//! A registry alone in a namespace, without nodes; a measurement may kill it and start it again.
//!
//! All of 2001:db8::/32 is local in the namespace, so that a client can connect from any network of that range.

use crate::{
    ip,
    lab_run::{LabRun, should_keep_all_files},
    netns,
    network::{ADMIN_SOCKET, wait_for_listener},
    process::{self, Process, settable_clock, warren_program},
    registry_connection::{PORT, REGISTRY_ADDRESS, RegistryConnector},
};
use anyhow::{Context, Result, anyhow};
use rcgen::KeyPair;
use serde::Deserialize;
use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};
use wire::invitation::{Invitation, token_text};

/// Longest time that one command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait until the registry listens after a start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A registry with its files. Dropping it sends SIGKILL and removes the files.
#[derive(Debug)]
pub struct StandaloneRegistry {
    run: Arc<LabRun>,
    namespace: String,
    root: PathBuf,
    program: PathBuf,
    run_options: Vec<String>,
    /// The file with the registry's time in seconds since 1970, if it is not that of the machine.
    clock: Option<PathBuf>,
    process: Mutex<Option<Process>>,
}

/// A node in the listing of `warren registry list --json`.
#[derive(Clone, Debug, Deserialize)]
pub struct ListedNode {
    /// The serial number of the node's certificate.
    pub serial: String,
    /// The node's prefix, such as `7/16`.
    pub prefix: String,
}

#[derive(Deserialize)]
struct NodeListing {
    nodes: Vec<ListedNode>,
}

impl StandaloneRegistry {
    /// Creates a namespace and a registry with these options of `warren registry init`, and starts the registry with
    /// these options of `warren registry run`.
    ///
    /// # Errors
    /// Fails if the caller is not root, or if a command fails.
    pub fn start(init_options: &[&str], run_options: &[&str]) -> Result<Self> {
        Self::start_at(None, init_options, run_options)
    }

    /// Does the same as [`StandaloneRegistry::start`], for a registry whose clock stands at `time_s` seconds since 1970 until
    /// [`StandaloneRegistry::set_clock`] moves it.
    ///
    /// # Errors
    /// Fails as [`StandaloneRegistry::start`] does.
    pub fn start_with_clock(
        time_s: u64,
        init_options: &[&str],
        run_options: &[&str],
    ) -> Result<Self> {
        Self::start_at(Some(time_s), init_options, run_options)
    }

    fn start_at(time_s: Option<u64>, init_options: &[&str], run_options: &[&str]) -> Result<Self> {
        let run = LabRun::begin(should_keep_all_files())?;
        let namespace = run.namespace("registry");
        ip::batch(None, &format!("netns add {namespace}\n"))?;
        ip::batch(
            Some(&namespace),
            "link set lo up\nroute add local 2001:db8::/32 dev lo\n",
        )?;
        let root = run.make_folder("registry")?;
        let registry = Self {
            clock: time_s.map(|_| run.folder().join("clock")),
            run,
            namespace,
            root,
            program: warren_program(),
            run_options: run_options.iter().map(ToString::to_string).collect(),
            process: Mutex::default(),
        };
        if let Some(time_s) = time_s {
            registry.set_clock(time_s)?;
        }
        let address = format!("[{REGISTRY_ADDRESS}]:{PORT}");
        registry.command("init", &[&["--address", &address], init_options].concat())?;
        registry.start_again()?;
        Ok(registry)
    }

    /// Moves the registry's clock to this time, in seconds since 1970.
    ///
    /// # Errors
    /// Fails if the registry has the clock of the machine, or if the file of its clock cannot be written.
    pub fn set_clock(&self, time_s: u64) -> Result<()> {
        let path = self
            .clock
            .as_ref()
            .context("the registry's clock is that of the machine")?;
        let draft = path.with_extension("new");
        fs::write(&draft, format!("{time_s}\n"))?;
        // The registry reads the file at any time.
        Ok(fs::rename(&draft, path)?)
    }

    /// The time of the registry's clock in seconds since 1970, if it is not that of the machine.
    fn time_s(&self) -> Option<u64> {
        let text = fs::read_to_string(self.clock.as_ref()?).ok()?;
        text.trim().parse().ok()
    }

    /// The words that start `warren registry VERB ARGUMENTS` with the registry's clock.
    fn command_line(&self, verb: &str, arguments: &[&str]) -> Vec<String> {
        let mut words = self
            .clock
            .as_deref()
            .map(settable_clock)
            .unwrap_or_default();
        let program = self.program.to_string_lossy();
        let root = self.root.to_string_lossy();
        let fixed = [&program, "registry", verb, "--root", &root];
        words.extend([&fixed, arguments].concat().into_iter().map(str::to_owned));
        words
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registry's process id.
    ///
    /// # Errors
    /// Fails if the registry does not run.
    pub fn pid(&self) -> Result<u32> {
        self.process()
            .as_ref()
            .map(Process::pid)
            .context("the registry does not run")
    }

    /// Sends SIGKILL to the registry, and waits until it is reaped.
    pub fn kill(&self) {
        if let Some(process) = self.process().take() {
            process.kill();
        }
    }

    /// Starts the registry after [`StandaloneRegistry::kill`], and waits until it listens.
    ///
    /// # Errors
    /// Fails if the registry exits or does not listen within 30 s.
    pub fn start_again(&self) -> Result<()> {
        let options: Vec<_> = self.run_options.iter().map(String::as_str).collect();
        let words = self.command_line("run", &options);
        let log = self.run.folder().join("registry.log");
        let process = Process::start(&self.namespace, Path::new("env"), words, &log)?;
        let socket = self.root.join(ADMIN_SOCKET);
        wait_for_listener(&process, START_TIMEOUT, || {
            UnixStream::connect(&socket).is_ok()
        })?;
        *self.process() = Some(process);
        Ok(())
    }

    /// Runs `warren registry VERB ARGUMENTS` and returns what it printed.
    ///
    /// # Errors
    /// Fails if the command fails.
    pub fn command(&self, verb: &str, arguments: &[&str]) -> Result<String> {
        process::run(
            &self.namespace,
            Path::new("env"),
            self.command_line(verb, arguments),
            COMMAND_TIMEOUT,
        )
    }

    /// Creates an invitation that is good for `uses` nodes, and returns its line.
    ///
    /// # Errors
    /// Fails if `warren registry invite` fails.
    pub fn create_invitation(&self, uses: u32) -> Result<String> {
        let output = self.command("invite", &["--uses", &uses.to_string()])?;
        Ok(output.trim().to_owned())
    }

    /// Creates an invitation that is good for `uses` nodes, and returns its token.
    ///
    /// # Errors
    /// Fails if `warren registry invite` fails.
    pub fn create_token(&self, uses: u32) -> Result<String> {
        let line = self.create_invitation(uses)?;
        let invitation: Invitation = line.parse().map_err(|error| anyhow!("{error}"))?;
        Ok(token_text(&invitation.token))
    }

    /// Starts `warren join` in the registry's namespace, on a machine whose files lie below `machine` in the
    /// [folder of the run](Self::folder).
    ///
    /// # Errors
    /// Fails if the command cannot be started.
    pub fn start_join(&self, invitation: &str, machine: &str) -> Result<Process> {
        let root = self.run.folder().join(machine);
        let log = self.run.folder().join(format!("{machine}.log"));
        let root = root.to_string_lossy();
        let (join, uids) = (["join", invitation, "--root", &root], "60197,60198");
        let arguments = join.into_iter().chain(["--child-uids", uids]);
        Process::start(&self.namespace, &self.program, arguments, &log)
    }

    /// The registry's namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The folder of the run, in which the files of all machines lie.
    pub fn folder(&self) -> &Path {
        self.run.folder()
    }

    /// The path of the registry's database.
    pub fn database(&self) -> PathBuf {
        self.root.join("var/lib/warren-registry/registry.sqlite")
    }

    /// Runs `work` in a thread of its own inside the registry's namespace.
    ///
    /// # Errors
    /// Fails if the namespace cannot be entered, and with any error of `work`.
    pub fn run_inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        netns::run_inside(&self.namespace, work)
    }

    /// The nodes that the registry has a certificate of.
    ///
    /// # Errors
    /// Fails if `warren registry list` fails.
    pub fn list_nodes(&self) -> Result<Vec<ListedNode>> {
        let listing: NodeListing = serde_json::from_str(&self.command("list", &["--json"])?)
            .context("warren registry list printed no list of nodes")?;
        Ok(listing.nodes)
    }

    /// The socket on which the registry is administered.
    pub fn admin_socket(&self) -> PathBuf {
        self.root.join(ADMIN_SOCKET)
    }

    /// What clients connect with: the registry's CA and clock and, with `identity`, a certificate in PEM and its key.
    ///
    /// # Errors
    /// Fails if the CA or the certificate cannot be read.
    pub fn connector(&self, identity: Option<(&str, &KeyPair)>) -> Result<RegistryConnector> {
        let ca = self.root.join("etc/warren-registry/ca.crt");
        RegistryConnector::new(&ca, identity, self.time_s())
    }

    /// Runs `count` clients at the same time, each in a thread inside the registry's namespace, and returns what `work`
    /// returned for each. `work` gets the client's number.
    ///
    /// # Errors
    /// Fails if the namespace cannot be entered, and with the first error of `work`.
    pub fn run_clients<T: Send>(
        &self,
        count: usize,
        work: impl Fn(usize) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let work = &work;
        thread::scope(|scope| {
            let clients: Vec<_> = (0..count)
                .map(|number| {
                    scope.spawn(move || {
                        netns::enter(&self.namespace)?;
                        work(number)
                    })
                })
                .collect();
            clients
                .into_iter()
                .map(|client| client.join().ok().context("a client panicked")?)
                .collect()
        })
    }
}

impl Drop for StandaloneRegistry {
    fn drop(&mut self) {
        self.kill();
        self.run.remove(should_keep_all_files());
    }
}
