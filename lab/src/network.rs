//! A network of N nodes: the internet (one bridge), the registry, and the nodes, each in a namespace of its own.
//!
//! Addresses look public, since nodes announce no others: the bridge has 45.67.0.1/16, the registry 45.67.0.2,
//! node I 45.67.1.(I+1). A node behind NAT has 192.168.77.2 and its router 45.67.2.(I+1).

mod operator;
pub(crate) mod underlay;

use crate::{
    ip,
    lab_run::Run,
    nat_router::Router,
    node::{Node, tail},
    pinger::{Pace, Pinger, Place},
    process::{self, Process},
    signal_cleanup::take_down_on_signals,
};
use anyhow::{Context, Result, anyhow, bail};
use std::{
    collections::BTreeSet,
    env, fs,
    io::Write,
    net::{Ipv4Addr, TcpStream},
    ops::Range,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};
use underlay::{host, port};

/// The registry's address on the lab's internet.
pub const REGISTRY: &str = "45.67.0.2";
/// The registry's port.
const REGISTRY_PORT: u16 = 9443;
/// Where the registry is administered, below its root.
const ADMINISTRATION: &str = "run/warren-registry/admin.sock";
/// How long short commands of the registry may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The bridge's `/16` has room for these.
const MOST_NODES: usize = 250;

/// What shall be built.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How many nodes.
    pub nodes: usize,
    /// Tunnels that each node dials; `None`: the network's default.
    pub dial: Option<u16>,
    /// How often the policy looks; `None`: the network's default.
    pub refresh: Option<Duration>,
    /// Younger tunnels are spared; `None`: the network's default.
    pub min_age: Option<Duration>,
    /// How long certificates are good; `None`: the registry's default.
    pub certificate_life: Option<Duration>,
    /// How long announcements are kept; `None`: the registry's default.
    pub announcement_ttl: Option<Duration>,
    /// These nodes, by number, live on a LAN of their own behind a NAT router with UPnP.
    pub behind_nat: BTreeSet<usize>,
    /// The registry's CA has a root above it, in the folder [`Lab::offline_root`].
    pub offline_root: bool,
    /// Leave the run's folder with its logs behind; `WARREN_LAB_KEEP=1` does the same.
    pub keep_files: bool,
}

impl Options {
    /// What differs from the shipped defaults, for people.
    pub fn differences(&self) -> Vec<String> {
        let dial = self.dial.map(|dial| format!("tunnels-to-dial {dial}"));
        let refresh = self
            .refresh
            .map(|refresh| format!("refresh {} s", refresh.as_secs_f64()));
        let min_age = self
            .min_age
            .map(|age| format!("min-age {} s", age.as_secs_f64()));
        let life = self
            .certificate_life
            .map(|life| format!("certificate life {} s", life.as_secs()));
        let ttl = self
            .announcement_ttl
            .map(|ttl| format!("announcement TTL {} s", ttl.as_secs()));
        dial.into_iter()
            .chain(refresh)
            .chain(min_age)
            .chain(life)
            .chain(ttl)
            .collect()
    }
}

/// A network on this machine. Everything of it is taken down when it is dropped.
#[derive(Debug)]
pub struct Lab {
    options: Options,
    run: Arc<Run>,
    program: PathBuf,
    registry_root: PathBuf,
    registry: Mutex<Option<Process>>,
    nodes: Vec<Node>,
    routers: Vec<Router>,
}

impl Lab {
    /// Builds the namespaces and links; starts nothing but the NAT routers. Clears away dead runs first.
    ///
    /// # Errors
    /// Where we are not root, or the kernel refuses.
    pub fn new(mut options: Options) -> Result<Self> {
        options.keep_files |= env::var_os("WARREN_LAB_KEEP").is_some_and(|value| value == "1");
        if !nix::unistd::geteuid().is_root() {
            bail!("the lab needs root: it makes network namespaces");
        }
        if options.nodes > MOST_NODES {
            bail!("a lab has at most {MOST_NODES} nodes");
        }
        crate::lab_run::clean();
        let program = process::program();
        let run = Arc::new(Run::new()?);
        take_down_on_signals(&run, options.keep_files);
        let registry_root = run.make_folder("registry")?;
        let mut lab = Self {
            options,
            run,
            program,
            registry_root,
            registry: Mutex::default(),
            nodes: Vec::new(),
            routers: Vec::new(),
        };
        lab.build()?;
        Ok(lab)
    }

    fn build(&mut self) -> Result<()> {
        let count = self.options.nodes;
        let names = ["net".to_owned(), "reg".to_owned()].into_iter();
        let names = names.chain((0..count).map(|index| format!("n{index}")));
        let names = names.chain(
            self.options
                .behind_nat
                .iter()
                .map(|index| format!("r{index}")),
        );
        let lines: String = names
            .map(|what| format!("netns add {}\n", self.run.namespace(&what)))
            .collect();
        ip::batch(None, &lines)?;

        let uplink = |port: &str, what: &str| {
            format!(
                "link add {port} type veth peer name eth0 netns {}\nlink set {port} master internet up\n",
                self.run.namespace(what)
            )
        };
        let mut lines = String::from(
            "link set lo up\nlink add internet type bridge\nlink set internet up\naddr add 45.67.0.1/16 dev internet\n",
        );
        lines.push_str(&uplink("reg", "reg"));
        for index in 0..count {
            let what = if self.is_behind_nat(index) {
                format!("r{index}")
            } else {
                format!("n{index}")
            };
            lines.push_str(&uplink(&port(index), &what));
        }
        ip::batch(Some(&self.run.namespace("net")), &lines)?;

        // Else its neighbours, who hear that it is no router, drop the routes that it advertises.
        ip::inside(&self.run.namespace("net"), || {
            Ok(fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?)
        })?;
        host(&self.run.namespace("reg"), REGISTRY, 16, "45.67.0.1")?;
        for index in 0..count {
            let namespace = self.run.namespace(&format!("n{index}"));
            if self.is_behind_nat(index) {
                let router = self.run.namespace(&format!("r{index}"));
                let folder = self.run.make_folder(&format!("router{index}"))?;
                host(&router, &format!("45.67.2.{}", index + 1), 16, "45.67.0.1")?;
                self.routers.push(Router::new(router, &namespace, folder)?);
            } else {
                host(
                    &namespace,
                    &format!("45.67.1.{}", index + 1),
                    16,
                    "45.67.0.1",
                )?;
            }
            let root = self.run.make_folder(&format!("n{index}"))?;
            self.nodes
                .push(Node::new(index, namespace, root, self.program.clone()));
        }
        Ok(())
    }

    fn is_behind_nat(&self, index: usize) -> bool {
        self.options.behind_nat.contains(&index)
    }

    /// A whole network: the registry runs, all nodes have joined, none is started.
    ///
    /// # Errors
    /// As [`Lab::new`], and where a command of warren refuses.
    pub fn joined(options: Options) -> Result<Self> {
        let lab = Self::new(options)?;
        lab.init_registry()?;
        lab.start_registry()?;
        for node in &lab.nodes {
            node.join(&lab.invite()?)?;
        }
        Ok(lab)
    }

    /// What was asked for.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// All nodes, by number.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The routers of the sites behind NAT, in the order of their nodes.
    pub fn routers(&self) -> &[Router] {
        &self.routers
    }

    /// Node number `index`.
    ///
    /// # Errors
    /// Where there is none.
    pub fn node(&self, index: usize) -> Result<&Node> {
        self.nodes
            .get(index)
            .ok_or_else(|| anyhow!("the lab has no node {index}"))
    }

    /// What [`Pinger::start`] wants to know of all nodes.
    ///
    /// # Errors
    /// Where one has not joined.
    pub fn places(&self) -> Result<Vec<Place>> {
        self.places_of(0..self.nodes.len())
    }

    /// The same of these nodes.
    ///
    /// # Errors
    /// Where one has not joined.
    pub fn places_of(&self, nodes: Range<usize>) -> Result<Vec<Place>> {
        let nodes = self.nodes.get(nodes).unwrap_or_default();
        nodes
            .iter()
            .map(|node| Ok((node.namespace().to_owned(), node.identity()?.address)))
            .collect()
    }

    /// Pings between all nodes.
    ///
    /// # Errors
    /// As [`Pinger::start`], and where a node has not joined.
    pub fn ping(&self, pace: Pace) -> Result<Pinger> {
        Pinger::start(&self.places()?, pace)
    }

    /// The run's folder: logs, and each node's root.
    pub fn folder(&self) -> &Path {
        self.run.folder()
    }

    /// The namespace of the lab's internet.
    pub fn internet_namespace(&self) -> String {
        self.run.namespace("net")
    }

    /// The registry's namespace.
    pub fn registry_namespace(&self) -> String {
        self.run.namespace("reg")
    }

    /// The registry's root.
    pub fn registry_root(&self) -> &Path {
        &self.registry_root
    }

    /// Runs `warren registry VERB MORE` and returns what it printed.
    ///
    /// # Errors
    /// Where it refuses.
    pub fn registry_command(&self, verb: &str, more: &[String]) -> Result<String> {
        let root = self.registry_root.to_string_lossy();
        let fixed = ["registry", verb, "--root", &root]
            .into_iter()
            .map(ToOwned::to_owned);
        let arguments = fixed.chain(more.iter().cloned());
        process::run(
            &self.registry_namespace(),
            &self.program,
            arguments,
            PATIENCE,
        )
    }

    /// Makes the network.
    ///
    /// # Errors
    /// Where `warren registry init` refuses.
    pub fn init_registry(&self) -> Result<()> {
        let mut more = vec![
            "--address".to_owned(),
            format!("{REGISTRY}:{REGISTRY_PORT}"),
        ];
        let milliseconds = |span: Duration| format!("{}ms", span.as_millis());
        let set = [
            ("--dial", self.options.dial.map(|dial| dial.to_string())),
            ("--refresh", self.options.refresh.map(milliseconds)),
            ("--min-age", self.options.min_age.map(milliseconds)),
            (
                "--certificate-life",
                self.options.certificate_life.map(milliseconds),
            ),
            (
                "--announcement-ttl",
                self.options.announcement_ttl.map(milliseconds),
            ),
        ];
        for (name, value) in set {
            if let Some(value) = value {
                more.extend([name.to_owned(), value]);
            }
        }
        if self.options.offline_root {
            more.extend([
                "--offline-root".to_owned(),
                self.offline_root().to_string_lossy().into_owned(),
            ]);
        }
        self.registry_command("init", &more).map(drop)
    }

    fn registry(&self) -> MutexGuard<'_, Option<Process>> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the registry and waits until it listens.
    ///
    /// # Errors
    /// Where it ends or does not listen within 10 s: with the end of its log.
    pub fn start_registry(&self) -> Result<()> {
        let namespace = self.registry_namespace();
        let arguments = [
            "registry".as_ref(),
            "run".as_ref(),
            "--root".as_ref(),
            self.registry_root.as_os_str(),
        ];
        let log = self.run.folder().join("registry.log");
        let process = Process::start(&namespace, &self.program, arguments, &log)?;
        let listens = process::wait_until(Duration::from_secs(10), || {
            let connect = || Ok(TcpStream::connect((REGISTRY, REGISTRY_PORT)).is_ok());
            let ready = UnixStream::connect(self.registry_root.join(ADMINISTRATION)).is_ok()
                && ip::inside(&namespace, connect).unwrap_or(false);
            (ready || process.ended().is_some()).then_some(ready)
        });
        if listens != Some(true) {
            bail!(
                "the registry does not listen; its log ends with: {}",
                tail(&log, 10)
            );
        }
        *self.registry() = Some(process);
        Ok(())
    }

    /// Ends the registry orderly.
    pub fn stop_registry(&self) {
        if let Some(process) = self.registry().take() {
            process.stop(Duration::from_secs(10));
        }
    }

    /// Takes the node's cable out without telling it.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn cut(&self, index: usize) -> Result<()> {
        ip::batch(
            Some(&self.run.namespace("net")),
            &format!("link set {} nomaster\n", port(index)),
        )
    }

    /// Puts the node's cable back.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn mend(&self, index: usize) -> Result<()> {
        ip::batch(
            Some(&self.run.namespace("net")),
            &format!("link set {} master internet\n", port(index)),
        )
    }

    /// Gives the node another address on the internet, as a provider would: `45.67.3.(index+1)`.
    ///
    /// # Errors
    /// Where the node is behind NAT, or the kernel refuses.
    pub fn renumber(&self, index: usize) -> Result<Ipv4Addr> {
        if self.is_behind_nat(index) {
            bail!("node {index} has no address on the internet");
        }
        let number = u8::try_from(index + 1).context("more nodes than addresses")?;
        let address = Ipv4Addr::new(45, 67, 3, number);
        let lines = format!(
            "addr flush dev eth0 scope global\naddr add {address}/16 dev eth0\nroute add default via 45.67.0.1\n"
        );
        ip::batch(Some(self.node(index)?.namespace()), &lines)?;
        Ok(address)
    }

    /// Announces an IPv6 prefix and the bridge as default router, once, to all on the internet (RFC 4861).
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn advertise_router(&self) -> Result<()> {
        underlay::advertise_router(&self.run.namespace("net"))
    }

    /// Starts the daemons of all nodes at once.
    ///
    /// # Errors
    /// Where one cannot be started.
    pub fn start_all(&self) -> Result<()> {
        self.nodes.iter().try_for_each(Node::start)
    }

    /// Ends all daemons orderly, all at once. Returns the nodes that needed SIGKILL.
    pub fn stop_all(&self) -> Vec<usize> {
        thread::scope(|scope| {
            let stops: Vec<_> = self
                .nodes
                .iter()
                .map(|node| scope.spawn(move || node_stops(node)))
                .collect();
            stops
                .into_iter()
                .filter_map(|stop| stop.join().ok().flatten())
                .collect()
        })
    }
}

fn node_stops(node: &Node) -> Option<usize> {
    (node.pid().is_some() && node.stop().is_none()).then(|| node.index())
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() {
            for node in &self.nodes {
                let mut stderr = std::io::stderr();
                drop(writeln!(
                    stderr,
                    "--- end of node {}'s log\n{}",
                    node.index(),
                    node.log_tail(15)
                ));
            }
        }
        for node in &self.nodes {
            node.kill();
        }
        *self.registry() = None;
        self.routers.clear();
        self.run.remove(self.options.keep_files);
    }
}
