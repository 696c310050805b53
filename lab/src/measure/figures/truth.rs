//! What the kernel and babeld of a node say.

use crate::{ip, node::Node};
use anyhow::{Context, Result};
use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

/// The table to which babeld exports routes.
const BABEL_TABLE: &str = "197";
/// Babel's metric of a route that leads nowhere.
const UNREACHABLE: &str = "65535";
/// Longest wait for babeld's answer.
const BABELD_TIMEOUT: Duration = Duration::from_millis(500);

/// What the kernel and babeld of one node say at one moment.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// Routes to nodes in babeld's table of the kernel that lead somewhere, and those that are unreachable.
    installed: u64,
    unreachable: u64,
    /// What babeld says, if it answers: its neighbours on slots, and the nodes that it has a finite route to.
    babeld: Option<(u64, u64)>,
    /// Datagrams that the kernel dropped, since the sockets of the servers were full.
    dropped: u64,
    /// Whether the processes run that a node has once.
    processes: [(&'static str, bool); 3],
}

impl Truth {
    /// Reads the tables and the processes of a node.
    ///
    /// # Errors
    /// Fails if a file of the kernel cannot be read.
    pub fn read(node: &Node) -> Result<Self> {
        let words = ["-6", "route", "show", "table", BABEL_TABLE];
        // Without a route the table does not exist, and the listing fails.
        let routes = ip::output(node.namespace(), &words).unwrap_or_default();
        let is_unreachable = |line: &&str| line.starts_with("unreachable");
        let count = |lines: usize| u64::try_from(lines).unwrap_or(u64::MAX);
        let children = node.children();
        let runs = |words: &[&str]| {
            let mut lines = children.values();
            lines.any(|line| words.iter().all(|word| line.contains(word)))
        };
        let babeld = babeld_dump(node).ok();
        Ok(Self {
            installed: count(routes.lines().filter(|line| !is_unreachable(line)).count()),
            unreachable: count(routes.lines().filter(is_unreachable).count()),
            babeld: babeld.map(|dump| read_dump(&dump)),
            dropped: kernel_drops(node, crate::node::SERVER_PORT)?,
            processes: [
                ("warren_process_up{process=\"babeld\"} ", runs(&["babeld"])),
                (
                    "warren_process_up{process=\"server-udp\"} ",
                    runs(&["--dev wrnu"]),
                ),
                (
                    "warren_process_up{process=\"server-tcp\"} ",
                    runs(&["--dev wrnt"]),
                ),
            ],
        })
    }

    /// The samples that show this, and what they should show.
    pub fn figures(&self) -> Vec<(&'static str, u64)> {
        let mut figures = vec![
            ("warren_nodes_reachable ", self.installed),
            ("warren_routes_installed ", self.installed),
            ("warren_routes_unreachable ", self.unreachable),
            (
                "warren_openvpn_receive_dropped_total{process=\"server-udp\"} ",
                self.dropped,
            ),
        ];
        if let Some((neighbours, nodes)) = self.babeld {
            figures.push(("warren_neighbours ", neighbours));
            figures.push(("warren_nodes_known ", nodes));
        }
        let processes = self.processes.iter();
        figures.extend(processes.map(|(sample, runs)| (*sample, u64::from(*runs))));
        figures
    }
}

/// What the babeld of a node prints of its interfaces, neighbours and routes.
///
/// # Errors
/// Fails if babeld does not answer within half a second.
pub fn babeld_dump(node: &Node) -> Result<String> {
    let socket = babeld_socket(node).context("babeld has no socket")?;
    ask_babeld(&socket)
}

/// The path of babeld's local socket, as its configuration says.
fn babeld_socket(node: &Node) -> Option<String> {
    let file = node.root().join("run/warren/child/babeld.conf");
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with("local-path"))?;
    line.split_ascii_whitespace()
        .nth(1)
        .map(|path| path.trim_matches('"').to_owned())
}

fn ask_babeld(socket: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(BABELD_TIMEOUT))?;
    stream.write_all(b"dump\nquit\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The number of neighbours on slots, and of other nodes that babeld has a route to.
fn read_dump(dump: &str) -> (u64, u64) {
    let mut neighbours = BTreeSet::new();
    let mut nodes = BTreeSet::new();
    for line in dump.lines() {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let after = |name: &str| {
            let mut rest = words.iter().skip_while(|word| **word != name);
            rest.nth(1).copied().unwrap_or_default()
        };
        match words.get(1).copied() {
            Some("neighbour") if after("if").starts_with("wrn") => {
                neighbours.insert(after("neighbour").to_owned());
            }
            // A retracted route leads nowhere, and babeld keeps it for a while (RFC 8966, section 2.8).
            Some("route") if after("metric") != UNREACHABLE => {
                nodes.insert(after("prefix").to_owned());
            }
            Some(_) | None => {}
        }
    }
    let count = |set: BTreeSet<String>| u64::try_from(set.len()).unwrap_or(u64::MAX);
    (count(neighbours), count(nodes))
}

/// The drops of the UDP sockets with this local port, as the kernel of the node's namespace counts them.
///
/// # Errors
/// Fails if the kernel's tables cannot be read.
pub fn kernel_drops(node: &Node, port: u16) -> Result<u64> {
    let suffix = format!(":{port:04X}");
    let mut sum = 0;
    for file in ["/proc/net/udp", "/proc/net/udp6"] {
        let text = node.command("cat", &[file])?;
        for line in text.lines() {
            let columns: Vec<_> = line.split_ascii_whitespace().collect();
            if columns.get(1).is_some_and(|local| local.ends_with(&suffix)) {
                let drops = columns.last().context("a line has no column")?;
                sum += drops.parse::<u64>()?;
            }
        }
    }
    Ok(sum)
}
