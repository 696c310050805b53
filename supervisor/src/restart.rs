//! Restarts the daemon in place: executes its program again in the same process, which goes on with all children.
//!
//! Children, links, routes and rules stay as they are, so standing tunnels lose no packet. Nothing new begins from the request on,
//! and what opens or closes is waited for. Then the output of the children is read no more; what was read is handled; and
//! their descriptors and the state go to the next program ([`wire::handed_state`]). Until exec, each failure leaves this
//! program running as before.

use crate::graph::Graph;
use nix::fcntl::Flock;
use os::{
    clock::Clock,
    process::{ChildInput, Supervised, WRITE_TIMEOUT, reexec::Invocation},
};
use policies::units::Uptime;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};
use wire::{
    control::MAX_RESTART_WAIT,
    handed_state::{HandedProcess, HandedState, MAX_BYTES, VERSION, to_millis},
};

/// Interval at which it is checked whether a step is complete.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// Maximum time until no tunnel opens, drains or closes, in all attempts together: a dial has 10 s, and a drain 20 s and the exit of the
/// process.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum time until all that was read from the children is handled.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// Number of attempts to stop reading between two messages of OpenVPN.
const MAX_RELEASES: u64 = 5;
const _: () = assert!(
    SETTLE_TIMEOUT.as_secs() + MAX_RELEASES * (RELEASE_TIMEOUT.as_secs() + WRITE_TIMEOUT.as_secs())
        < MAX_RESTART_WAIT.as_secs(),
    "the command must wait longer than all attempts take"
);

/// What a restart in place needs of the running daemon.
pub(crate) struct Restart<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) clock: &'a Clock,
    pub(crate) lock: &'a Flock<File>,
    pub(crate) invocation: &'a Invocation,
}

/// The reason why the daemon was not restarted in place. It runs on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRestarted {
    /// A process is not ready, or a tunnel opens, drains or closes.
    #[error("{obstacle}, for {} s already; try again, or stop and start warren", SETTLE_TIMEOUT.as_secs())]
    Unsettled {
        /// What is still to be waited for.
        obstacle: String,
    },
    /// A child exited, or was in the middle of a message, when its output was to be handed over.
    #[error("a child process has just exited or is in the middle of a message; try again")]
    Unreleased,
    /// A signal came.
    #[error("a signal came before")]
    Interrupted,
    /// The state is larger than the next program reads.
    #[error(
        "the state has {bytes} bytes, more than the {MAX_BYTES} that are read; stop and start warren"
    )]
    TooLarge {
        /// The size of the document.
        bytes: usize,
    },
    /// The state has no text.
    #[error("the state cannot be written")]
    State(#[from] serde_json::Error),
    /// The program was not executed.
    #[error("{program} cannot be executed", program = program.display())]
    Exec {
        /// The path of the program.
        program: std::path::PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl Restart<'_> {
    /// Executes the program again. Returns only if that failed; the daemon goes on then as if nothing had happened.
    ///
    /// `report_restart` is called just before. No restart follows once `is_interrupted`, since the next program would not
    /// know of a signal that this one got.
    pub(crate) async fn run(
        &self,
        report_restart: impl FnOnce(),
        mut is_interrupted: impl FnMut() -> bool,
    ) -> NotRestarted {
        self.graph.connections.set_handing_over(true);
        let mut inputs = BTreeMap::new();
        let handed = self.hand_over(&mut inputs, report_restart, &mut is_interrupted);
        let Err(failed) = handed.await;
        self.resume(inputs);
        self.graph.connections.set_handing_over(false);
        failed
    }

    async fn hand_over(
        &self,
        inputs: &mut BTreeMap<String, ChildInput>,
        report_restart: impl FnOnce(),
        is_interrupted: &mut impl FnMut() -> bool,
    ) -> Result<Infallible, NotRestarted> {
        let started = self.clock.now();
        for _ in 0..MAX_RELEASES {
            self.wait_until_settled(started, is_interrupted).await?;
            *inputs = self.release().await?;
            if is_interrupted() {
                return Err(NotRestarted::Interrupted);
            }
            if self.graph.connections.are_between_messages() {
                report_restart();
                return self.execute(inputs);
            }
            self.resume(std::mem::take(inputs));
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
        Err(NotRestarted::Unreleased)
    }

    /// Waits until all processes are ready, no tunnel opens, drains or closes, and no change of a link is under way.
    async fn wait_until_settled(
        &self,
        started: Uptime,
        is_interrupted: &mut impl FnMut() -> bool,
    ) -> Result<(), NotRestarted> {
        while let Some(obstacle) = self.obstacle() {
            if is_interrupted() {
                return Err(NotRestarted::Interrupted);
            }
            if self.clock.now().since(started) >= SETTLE_TIMEOUT {
                return Err(NotRestarted::Unsettled { obstacle });
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
        Ok(())
    }

    fn obstacle(&self) -> Option<String> {
        let Graph {
            store,
            connections,
            babeld_process,
            links,
            ..
        } = self.graph;
        if !babeld_process.is_ready() {
            return Some("babeld is not ready".to_owned());
        }
        let obstacle = connections.obstacle(&store.tunnels.borrow().tunnels);
        let busy_links = || (!links.is_empty()).then(|| "a link is changed".to_owned());
        obstacle.or_else(busy_links)
    }

    /// Stops reading the output of all children, and waits until what was read is handled.
    async fn release(&self) -> Result<BTreeMap<String, ChildInput>, NotRestarted> {
        let (connections, babeld) = (&self.graph.connections, &self.graph.babeld_process);
        let (openvpn, babeld_input) = (connections.release(), babeld.release());
        let mut released = futures_util::future::join_all(openvpn).await;
        released.push(("babeld".to_owned(), babeld_input.await));
        let started = self.clock.now();
        let is_handled =
            || connections.are_released() && babeld.is_released() && self.graph.links.is_empty();
        while !is_handled() && self.clock.now().since(started) < RELEASE_TIMEOUT {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let is_complete = is_handled() && released.iter().all(|(_, input)| input.is_some());
        let taken = released
            .into_iter()
            .filter_map(|(name, input)| Some((name, input?.take())))
            .collect();
        match is_complete {
            true => Ok(taken),
            false => {
                self.resume(taken);
                Err(NotRestarted::Unreleased)
            }
        }
    }

    /// Reads the output of the children again.
    fn resume(&self, mut inputs: BTreeMap<String, ChildInput>) {
        let [openvpn, babeld] = &self.graph.events;
        let input = inputs.remove("babeld");
        self.graph.babeld_process.resume(babeld, input);
        self.graph.connections.resume(openvpn, &mut inputs);
    }

    fn execute(&self, inputs: &BTreeMap<String, ChildInput>) -> Result<Infallible, NotRestarted> {
        let state = self.state(inputs).ok_or(NotRestarted::Unreleased)?;
        let text = serde_json::to_vec(&state)?;
        let bytes = text.len();
        if u64::try_from(bytes).unwrap_or(u64::MAX) > MAX_BYTES {
            return Err(NotRestarted::TooLarge { bytes });
        }
        let of_children = inputs.values().flat_map(|input| {
            let descriptors = input.log.iter().chain(&input.management);
            descriptors.map(AsFd::as_fd)
        });
        let mut descriptors: Vec<_> = of_children.collect();
        descriptors.push(self.lock.as_fd());
        let executed = self.invocation.execute(&text, &descriptors);
        executed.map_err(|source| NotRestarted::Exec {
            program: self.invocation.program.clone(),
            source,
        })
    }

    /// Describes all children and tunnels; `None` if a child has exited.
    fn state(&self, inputs: &BTreeMap<String, ChildInput>) -> Option<HandedState> {
        let mut describe = |process: &Supervised| describe(process, inputs);
        let mut state = HandedState {
            version: VERSION,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            written_at_ms: to_millis(self.clock.now()),
            lock: self.lock.as_raw_fd(),
            babeld: self.graph.babeld_process.hand_over(&mut describe)?,
            servers: Vec::new(),
            dials: Vec::new(),
            cooling_down: Vec::new(),
            are_servers_outdated: false,
            are_dials_outdated: false,
            restart_by_ms: None,
            was_reached: false,
        };
        let table = self.graph.store.tunnels.borrow();
        let connections = &self.graph.connections;
        connections.write_to(&mut state, &table, &mut describe)?;
        Some(state)
    }
}

/// Describes a released process; `None` if it has exited or was not ready.
fn describe(process: &Supervised, inputs: &BTreeMap<String, ChildInput>) -> Option<HandedProcess> {
    let reading = process.reading();
    let input = inputs.get(&reading.name)?;
    let args = process.args().iter();
    Some(HandedProcess {
        pid: reading.pid?,
        start_time: process.start_time()?,
        log: input.log.as_ref().map(AsRawFd::as_raw_fd),
        partial_line: String::from_utf8_lossy(&input.partial_line).into_owned(),
        management: input.management.as_ref().map(AsRawFd::as_raw_fd),
        commands: input.commands.clone(),
        up_since_ms: to_millis(process.up_since()?),
        args: args.map(|arg| arg.to_string_lossy().into_owned()).collect(),
    })
}
