//! A network of N nodes on this machine: the internet (one bridge), the registry, and the nodes, each in a namespace
//! of its own.
//!
//! Addresses look public, unless [`Options::has_private_addresses`] says otherwise: the bridge has 45.67.0.1/16, the registry 45.67.0.2,
//! node I 45.67.1.(I+1). A node behind NAT has 192.168.77.2 and its router 45.67.2.(I+1).

mod build;
mod options;
mod registry;
mod split;
pub(crate) mod underlay;

pub use options::{Options, tunnels_to_dial};
pub(crate) use registry::{ADMIN_SOCKET, REGISTRY_METRICS_PORT, wait_for_listener};

use crate::{
    lab_run::{LabRun, should_keep_all_files},
    nat_router::NatRouter,
    node::Node,
    pinger::{PingHost, PingSchedule, Pinger},
    process::{Process, warren_program},
    progress::progress,
};
use anyhow::{Result, anyhow, ensure};
use std::{
    io::Write,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

/// Nodes of the largest lab: the last byte of a node's address is its number plus 1.
const MAX_NODES: usize = 250;
/// Lines of each node's log that are printed if a test panics.
const LOG_LINES_AFTER_PANIC: usize = 15;

/// A network on this machine. Dropping it removes everything that belongs to it.
#[derive(Debug)]
pub struct Lab {
    options: Options,
    run: Arc<LabRun>,
    program: PathBuf,
    registry_root: PathBuf,
    registry: Mutex<Option<Process>>,
    nodes: Vec<Node>,
    nat_routers: Vec<NatRouter>,
}

impl Lab {
    /// Creates the namespaces and links. Starts no process but the NAT routers' miniupnpd. Removes dead runs first.
    ///
    /// # Errors
    /// Fails if the caller is not root, if there are too many nodes, or if the kernel rejects a change.
    pub fn build(mut options: Options) -> Result<Self> {
        options.keep_files |= should_keep_all_files();
        ensure!(
            options.nodes <= MAX_NODES,
            "a lab has at most {MAX_NODES} nodes, not {}",
            options.nodes
        );
        let program = options.program.clone().unwrap_or_else(warren_program);
        let run = LabRun::begin(options.keep_files)?;
        let registry_root = run.make_folder("registry")?;
        let mut lab = Self {
            options,
            run,
            program,
            registry_root,
            registry: Mutex::default(),
            nodes: Vec::new(),
            nat_routers: Vec::new(),
        };
        lab.create_namespaces_and_links()?;
        Ok(lab)
    }

    /// Builds a lab, starts its registry, and lets all nodes join. No node is started.
    ///
    /// Progress lines name the settings that differ from the shipped defaults.
    ///
    /// # Errors
    /// Fails as [`Lab::build`] does, and if a command of warren fails.
    pub fn build_joined(options: Options) -> Result<Self> {
        let nodes = options.nodes;
        progress(format!(
            "building a lab of {nodes} nodes; settings that differ from the shipped defaults: {}",
            options.differences_from_defaults()
        ));
        let lab = Self::build(options)?;
        lab.join_nodes()?;
        Ok(lab)
    }

    /// Creates and starts the registry of a lab that [`Lab::build`] has built, and lets all nodes join.
    ///
    /// # Errors
    /// Fails if a command of warren fails.
    pub fn join_nodes(&self) -> Result<()> {
        self.init_registry()?;
        self.start_registry()?;
        for node in &self.nodes {
            node.join(&self.invite(&["--name", &node.name()])?)?;
        }
        for index in &self.options.metered_nodes {
            self.node(*index)?.configure("metered", "true")?;
        }
        progress(format!(
            "all nodes have joined; their files are in {}",
            self.folder().display()
        ));
        Ok(())
    }

    /// All nodes, by number.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The routers of the sites behind NAT, in the order of their nodes.
    pub fn nat_routers(&self) -> &[NatRouter] {
        &self.nat_routers
    }

    /// The node with this number.
    ///
    /// # Errors
    /// Fails if there is none.
    pub fn node(&self, index: usize) -> Result<&Node> {
        self.nodes
            .get(index)
            .ok_or_else(|| anyhow!("the lab has no node {index}"))
    }

    /// Namespaces and addresses of these nodes, for [`Pinger::start`].
    ///
    /// # Errors
    /// Fails if one of them has not joined.
    pub fn ping_hosts(&self, nodes: Range<usize>) -> Result<Vec<PingHost>> {
        let ping_host = |node: &Node| {
            Ok(PingHost {
                namespace: node.namespace().to_owned(),
                address: node.identity()?.address,
            })
        };
        let nodes = self.nodes.get(nodes).unwrap_or_default();
        nodes.iter().map(ping_host).collect()
    }

    /// Starts to ping between all nodes.
    ///
    /// # Errors
    /// Fails as [`Pinger::start`] does, and if a node has not joined.
    pub fn start_pings(&self, schedule: PingSchedule) -> Result<Pinger> {
        Pinger::start(&self.ping_hosts(0..self.nodes.len())?, schedule)
    }

    /// The run's folder, which contains logs and each node's root.
    pub fn folder(&self) -> &Path {
        self.run.folder()
    }

    /// Starts the daemons of all nodes at once.
    ///
    /// # Errors
    /// Fails if one cannot be started.
    pub fn start_nodes(&self) -> Result<()> {
        self.nodes.iter().try_for_each(Node::start)
    }

    /// Stops all running daemons at once, with SIGTERM. Returns the nodes that needed SIGKILL.
    pub fn stop_nodes(&self) -> Vec<usize> {
        let stop = |node: &Node| {
            let was_running = node.pid().is_some();
            (was_running && node.stop().is_none()).then(|| node.index())
        };
        thread::scope(|scope| {
            let stops: Vec<_> = self
                .nodes
                .iter()
                .map(|node| scope.spawn(move || stop(node)))
                .collect();
            stops
                .into_iter()
                .filter_map(|stop| stop.join().ok().flatten())
                .collect()
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() {
            for node in &self.nodes {
                drop(writeln!(
                    std::io::stderr(),
                    "--- end of node {}'s log\n{}",
                    node.index(),
                    node.log_tail(LOG_LINES_AFTER_PANIC)
                ));
            }
        }
        for node in &self.nodes {
            node.kill();
        }
        *self.registry_process() = None;
        self.nat_routers.clear();
        self.run.remove(self.options.keep_files);
    }
}
