//! Members that come and go under many names and prefixes, and operators' names that are none: what metrics show of them.

use crate::{
    Lab, Node, Options,
    faults::{Figure, Outcome, liar::client_arguments},
    network::ADMIN_SOCKET,
    process::Process,
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result};
use local_http::{Endpoint, Limits};
use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

/// The nodes that run. The first of them is scraped.
const RUNNING: usize = 2;
/// The members that connect again and again.
const MEMBERS: usize = 16;
/// How often each of them connects.
const ROUNDS: usize = 6;
/// Longest time for which a member waits for its tunnel. The network rejects one that comes too often.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Names that the registry is asked for.
const NAMES: usize = 5_000;
/// Interval between two scrapes.
const SCRAPE_INTERVAL: Duration = Duration::from_millis(250);
/// Promised number of series: 690 with 20 tunnels, and 16 for each further one. Thirty tunnels are accepted, each slot rests for 2 s, and
/// closed ones are shown for 30 s.
const MAX_SERIES: u64 = 690 + 16 * 450;
/// Promised size of a scrape in bytes.
const MAX_BYTES: u64 = 2 << 20;
/// Promised time of a scrape.
const SCRAPE_TIME: Duration = Duration::from_secs(4);
/// The network of all hosts of the lab, no address of which is in metrics.
const UNDERLAY: &str = "45.67.";
/// The secret files of a node.
const SECRETS: [&str; 2] = ["node.key", "tls-crypt.key"];
/// Characters of the shortest line of a secret file that is searched for.
const MIN_SECRET_LINE: usize = 24;
/// Limits of one request to the registry.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(20),
    bytes: 1 << 20,
};

/// The largest values of all scrapes.
#[derive(Debug, Default)]
struct Scrapes {
    series: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
    exposed: AtomicU64,
}

pub(super) fn run() -> Result<Outcome> {
    let lab = Lab::build_joined(Options::with_nodes(RUNNING + MEMBERS))?;
    let (running, members) = lab.nodes().split_at(RUNNING);
    running.iter().try_for_each(Node::start)?;
    let scraped = lab.node(0)?;
    wait_until(CONNECT_TIMEOUT * 5, || scraped.scrape().ok()).context("no metrics are served")?;
    progress("members come and go, and the registry is asked for names that are none");
    let (scrapes, is_over) = (Scrapes::default(), AtomicBool::new(false));
    let (connected, names) = thread::scope(|scope| {
        let watch = scope.spawn(|| scrapes.watch(scraped, &is_over));
        let comings: Vec<_> = members
            .iter()
            .map(|member| scope.spawn(|| connect_again_and_again(member)))
            .collect();
        let names = count_wrong_names(&lab.registry_root().join(ADMIN_SOCKET));
        let mut connected = 0;
        for coming in comings {
            connected += coming.join().ok().context("a thread panicked")??;
        }
        is_over.store(true, Ordering::Relaxed);
        watch.join().ok().context("a thread panicked")??;
        Ok::<_, anyhow::Error>((connected, names?))
    })?;
    progress(format!("{connected} tunnels came up; {scrapes:?}"));
    let value = |value: &AtomicU64| value.load(Ordering::Relaxed);
    let slowest = Duration::from_nanos(value(&scrapes.nanoseconds));
    Ok(Outcome {
        id: "hostile-names",
        fault: "16 members connect to a node six times each, and the registry is asked for 5,000 names that are no names of nodes",
        tries: NAMES + MEMBERS * ROUNDS,
        figures: vec![
            Figure::count("series of the node", value(&scrapes.series), MAX_SERIES),
            Figure::count("bytes of a scrape", value(&scrapes.bytes), MAX_BYTES),
            Figure::time("slowest scrape", Some(slowest), SCRAPE_TIME),
            Figure::count(
                "scrapes with addresses of hosts or secrets",
                value(&scrapes.exposed),
                0,
            ),
            Figure::count("wrong names accepted", names, 0),
        ],
    })
}

impl Scrapes {
    /// Scrapes a node until it is over.
    fn watch(&self, node: &Node, is_over: &AtomicBool) -> Result<()> {
        let secrets = secret_lines(node)?;
        while !is_over.load(Ordering::Relaxed) {
            let start = Instant::now();
            let text = node.scrape()?;
            let nanoseconds = u64::try_from(start.elapsed().as_nanos())?;
            let series = text.lines().filter(|line| !line.starts_with('#')).count();
            let is_exposed = text.contains(UNDERLAY)
                || secrets.iter().any(|secret| text.contains(secret.as_str()));
            self.nanoseconds.fetch_max(nanoseconds, Ordering::Relaxed);
            self.series
                .fetch_max(u64::try_from(series)?, Ordering::Relaxed);
            self.bytes
                .fetch_max(u64::try_from(text.len())?, Ordering::Relaxed);
            self.exposed
                .fetch_add(u64::from(is_exposed), Ordering::Relaxed);
            pause(SCRAPE_INTERVAL);
        }
        Ok(())
    }
}

/// The lines of a node's secret files that are long enough to be no word of something else.
fn secret_lines(node: &Node) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for name in SECRETS {
        let path = node.root().join("var/lib/warren").join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
        let of_secret = text.lines().filter(|line| !line.starts_with(['-', '#']));
        lines.extend(
            of_secret
                .filter(|line| line.len() >= MIN_SECRET_LINE)
                .map(str::to_owned),
        );
    }
    Ok(lines)
}

/// Connects a member to the first node, and ends its OpenVPN; returns how often its tunnel came up.
fn connect_again_and_again(member: &Node) -> Result<u64> {
    let mut connected = 0;
    for round in 0..ROUNDS {
        let log = member.root().join(format!("openvpn-{round}.log"));
        let mut arguments = client_arguments(member, "45.67.1.1", "churn");
        // The server closes the tunnel at once.
        arguments.extend(["--explicit-exit-notify", "1"].map(str::to_owned));
        let openvpn = Process::start(member.namespace(), Path::new("openvpn"), &arguments, &log)?;
        let is_up = wait_until(CONNECT_TIMEOUT, || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            text.contains("Initialization Sequence Completed")
                .then_some(())
        });
        connected += u64::from(is_up.is_some());
        openvpn.stop(CONNECT_TIMEOUT);
    }
    Ok(connected)
}

/// Asks the registry for invitations with names that are no names of nodes; returns how many it created.
fn count_wrong_names(socket: &Path) -> Result<u64> {
    let mut accepted = 0;
    for number in 0..NAMES {
        let name = match number % 4 {
            0 => format!("a{{b=\"{number}\"}} 1\n"),
            1 => format!("-{}", "x".repeat(number)),
            2 => format!("..{number}\u{0}\u{202e}\"\\"),
            _ => std::iter::repeat_with(|| fastrand::char(..))
                .take(number % 80)
                .chain(['_'])
                .collect(),
        };
        let body = serde_json::json!({"ttl_s": 60, "name": name}).to_string();
        let answer = local_http::send(
            Endpoint::Unix(socket),
            "POST",
            "/v1/invitations",
            Some(body),
            LIMITS,
        )?;
        accepted += u64::from(answer.status == 200);
    }
    Ok(accepted)
}
