//! DNS that is away, hangs, denies the registry's name or has too many addresses of it.

use crate::{
    Lab, Node, Options, PingSchedule,
    dns_server::{DnsAnswer, DnsServer},
    faults::{Figure, Outcome},
    pinger::all_pairs,
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result, ensure};
use std::{
    array, fs, iter,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use wire::control::{STATUS_PATH, StatusDocument};

/// The registry's name.
const REGISTRY_NAME: &str = "registry.example";
/// How long the registry keeps announcements. Each node announces itself after a third of it, and by then has closed its connection.
const ANNOUNCEMENT_TTL: Duration = Duration::from_secs(36);
/// The time after which a slow server answers.
const DELAY: Duration = Duration::from_secs(30);
/// Addresses of the name at the server that has too many.
const ADDRESSES: u16 = 1_000;
/// Time for which DNS is wrong: each node calls the registry at least twice.
const FAULT_SPAN: Duration = Duration::from_secs(26);
/// Interval between two requests to a node.
const REQUEST_INTERVAL: Duration = Duration::from_millis(100);
/// Longest wait until all nodes have called the registry, or their DNS servers.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Promised longest time of one request to a node. A lookup that hangs takes ten seconds.
const ANSWER_TIME: Duration = Duration::from_secs(4);
/// Promised age of the figures that a node shows; it renews them each second.
const SNAPSHOT_AGE: Duration = Duration::from_secs(4);
/// Promised part of the pings that are lost meanwhile, in percent.
const MAX_LOST: f64 = 1.0;
/// Promised time from the last step of a stop, which restores the host, to the exit. A lookup hangs meanwhile.
const EXIT: Duration = Duration::from_secs(3);
/// Longest wait for that step: the drain takes up to 20 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Promised time from a start until all nodes reach each other without DNS.
const START: Duration = Duration::from_secs(15);
/// Promised time until the registry has answered all nodes, once DNS is right; a node retries after 90 s at most.
const RECOVERY: Duration = Duration::from_secs(90);
/// The number of nodes. Each has a DNS server of its own.
const NODES: usize = 4;

/// A network whose registry has a name.
struct NamedRegistry {
    lab: Lab,
    /// The DNS server of each node; none where it is away.
    servers: [Option<DnsServer>; NODES],
}

/// What was seen of a node while something was wrong.
#[derive(Clone, Copy, Debug, Default)]
struct Observation {
    slowest_answer: Duration,
    oldest_snapshot: Duration,
    /// Calls to the registry that failed.
    failed_calls: u64,
}

pub(super) fn run() -> Result<Outcome> {
    let mut network = NamedRegistry::build()?;
    let registry = network.registry()?;
    let pinger = network
        .lab
        .start_pings(PingSchedule::Every(REQUEST_INTERVAL))?;
    progress("DNS fails, for each node in another manner");
    let start = pinger.now();
    network.start_servers(faults(registry))?;
    let seen = network.watch()?;
    (1..NODES).try_for_each(|index| network.wait_for_query(index))?;
    let pings = pinger.summarize(start, pinger.now(), all_pairs);
    drop(pinger);
    progress("DNS hangs while the nodes stop and start");
    network.start_servers(array::from_fn(|_| Some(DnsAnswer::Late(registry, DELAY))))?;
    let exited = network.stop_nodes_during_lookups()?;
    let reached = network.lab.start_and_converge()?;
    network.start_servers(array::from_fn(|_| Some(right(registry))))?;
    let recovered = network.wait_for_registry()?;
    Ok(Outcome {
        id: "dns",
        fault: "the registry's name cannot be resolved: no DNS server, answers after 30 s, no such name, and 1,000 addresses",
        tries: NODES,
        figures: vec![
            Figure::time(
                "slowest answer of a node",
                Some(seen.slowest_answer),
                ANSWER_TIME,
            ),
            Figure::time(
                "oldest figures that a node shows",
                Some(seen.oldest_snapshot),
                SNAPSHOT_AGE,
            ),
            Figure::count("failed calls to the registry", seen.failed_calls, 0),
            Figure::lost(pings, MAX_LOST),
            Figure::time("exit while a lookup hangs", Some(exited), EXIT),
            Figure::time("start without DNS reaches all", Some(reached), START),
            Figure::time("registry answers once DNS is right", recovered, RECOVERY),
        ],
    })
}

fn right(registry: Ipv4Addr) -> DnsAnswer {
    DnsAnswer::Addresses(vec![registry])
}

/// What the DNS server of each node answers while something is wrong.
fn faults(registry: Ipv4Addr) -> [Option<DnsAnswer>; NODES] {
    let dead = (1..ADDRESSES).map(|number| {
        let [high, low] = number.to_be_bytes();
        Ipv4Addr::new(45, 67, 100 + high, low)
    });
    let many = dead.chain(iter::once(registry)).collect();
    [
        None,
        Some(DnsAnswer::Late(registry, DELAY)),
        Some(DnsAnswer::NoSuchName),
        Some(DnsAnswer::Addresses(many)),
    ]
}

impl NamedRegistry {
    /// Builds the network, and waits until all nodes reach each other and have called the registry.
    fn build() -> Result<Self> {
        let lab = Lab::build(Options {
            registry_name: Some(REGISTRY_NAME.to_owned()),
            announcement_ttl: Some(ANNOUNCEMENT_TTL),
            ..Options::with_nodes(NODES)
        })?;
        for node in lab.nodes() {
            DnsServer::use_in(node.namespace())?;
        }
        let mut network = Self {
            lab,
            servers: Default::default(),
        };
        let registry = network.registry()?;
        network.start_servers(array::from_fn(|_| Some(right(registry))))?;
        network.lab.join_nodes()?;
        network.lab.start_and_converge()?;
        network
            .wait_for_registry()?
            .context("some node has not called the registry")?;
        Ok(network)
    }

    fn registry(&self) -> Result<Ipv4Addr> {
        Ok(self.lab.registry_address().parse()?)
    }

    fn start_servers(&mut self, answers: [Option<DnsAnswer>; NODES]) -> Result<()> {
        for ((server, node), answer) in self.servers.iter_mut().zip(self.lab.nodes()).zip(answers) {
            // Two servers cannot have one port.
            *server = None;
            *server = answer
                .map(|answer| DnsServer::start(node.namespace(), answer))
                .transpose()?;
        }
        Ok(())
    }

    /// Waits until this node has asked its DNS server.
    fn wait_for_query(&self, index: usize) -> Result<()> {
        let server = self.servers.get(index).and_then(Option::as_ref);
        let server = server.context("the DNS server is away")?;
        wait_until(CALL_TIMEOUT, || (server.queries() > 0).then_some(()))
            .with_context(|| format!("node {index} does not ask for the registry's address"))
    }

    /// Waits until the registry has answered each node again; returns how long that took, or `None` if it took too long.
    fn wait_for_registry(&self) -> Result<Option<Duration>> {
        let last_answers = || {
            let nodes = self.lab.nodes().iter();
            let status = nodes.map(|node| node.control_document::<StatusDocument>(STATUS_PATH));
            status
                .map(|status| Ok(status?.registry.last_answer_at))
                .collect::<Result<Vec<_>>>()
        };
        let (start, before) = (Instant::now(), last_answers()?);
        let all = wait_until(CALL_TIMEOUT, || {
            let now = last_answers().ok()?;
            now.iter()
                .zip(&before)
                .all(|(now, before)| now > before)
                .then_some(())
        });
        Ok(all.map(|()| start.elapsed()))
    }

    /// Does this to all nodes at once.
    fn for_each_node<T: Send>(&self, work: impl Fn(&Node) -> Result<T> + Sync) -> Result<Vec<T>> {
        let work = &work;
        thread::scope(|scope| {
            let nodes = self.lab.nodes().iter();
            let threads: Vec<_> = nodes.map(|node| scope.spawn(move || work(node))).collect();
            let threads = threads.into_iter();
            let all = threads.map(|thread| thread.join().ok().context("a thread panicked")?);
            all.collect()
        })
    }

    /// Asks all nodes again and again; returns the worst of what was seen.
    fn watch(&self) -> Result<Observation> {
        let seen = self.for_each_node(watch)?;
        Ok(seen
            .into_iter()
            .fold(Observation::default(), |all, one| Observation {
                slowest_answer: all.slowest_answer.max(one.slowest_answer),
                oldest_snapshot: all.oldest_snapshot.max(one.oldest_snapshot),
                failed_calls: all.failed_calls + one.failed_calls,
            }))
    }

    /// Stops each node just after it has asked its DNS server; returns the longest time from the last step of a stop to the exit.
    fn stop_nodes_during_lookups(&self) -> Result<Duration> {
        let exits = self.for_each_node(|node| {
            self.wait_for_query(node.index())?;
            node.send_stop();
            wait_until(STOP_TIMEOUT, || {
                let log = fs::read_to_string(node.log_file()).unwrap_or_default();
                log.contains("host restored").then_some(())
            })
            .with_context(|| node.describe("does not stop"))?;
            let start = Instant::now();
            node.stop_cleanly()?;
            Ok(start.elapsed())
        })?;
        Ok(exits.into_iter().max().unwrap_or_default())
    }
}

/// Scrapes a node again and again while something is wrong.
fn watch(node: &Node) -> Result<Observation> {
    let (start, mut seen) = (Instant::now(), Observation::default());
    let calls = || {
        let count = |outcome: &str| {
            node.metric(&format!(
                "warren_registry_requests_total{{outcome=\"{outcome}\"}}"
            ))
        };
        Ok::<_, anyhow::Error>((count("answered")?, count("failed")?))
    };
    let before = calls()?;
    while start.elapsed() < FAULT_SPAN {
        let asked_at = Instant::now();
        let text = node.scrape()?;
        seen.slowest_answer = seen.slowest_answer.max(asked_at.elapsed());
        let mut lines = text.lines();
        let taken_at =
            lines.find_map(|line| line.strip_prefix("warren_snapshot_timestamp_seconds "));
        let taken_at: f64 = taken_at.context("the snapshot has no time")?.parse()?;
        let taken_at = Duration::from_secs_f64(taken_at);
        let age = SystemTime::now().duration_since(UNIX_EPOCH + taken_at);
        seen.oldest_snapshot = seen.oldest_snapshot.max(age.unwrap_or_default());
        pause(REQUEST_INTERVAL);
    }
    let after = calls()?;
    seen.failed_calls = after.1.saturating_sub(before.1);
    ensure!(
        after != before,
        "node {} has not called the registry meanwhile",
        node.index()
    );
    progress(format!("node {}: {seen:?}", node.index()));
    Ok(seen)
}
