//! What a local user without rights can read and reach at a node, and at which ports a neighbour gets an answer through a tunnel.

use super::{
    Figure, Outcome,
    square::{MIDDLE, NEIGHBOUR, NOBODY, Square},
};
use crate::{Node, netns, progress::progress};
use anyhow::{Context, Result, ensure};
use rustix::thread::{Gid, Uid, set_thread_gid, set_thread_groups, set_thread_uid};
use std::{
    fs::{self, File},
    io::Read,
    net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream},
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};
use wire::{overlay, peer};

/// What is in files with secrets: private keys, keys of `tls-crypt`, keys of babeld.
const SECRETS: [&str; 3] = [
    "PRIVATE KEY",
    "OpenVPN Static key",
    "type hmac-sha256 value",
];
/// The most of a file that is read.
const READ_LIMIT: u64 = 1 << 20;
/// Files of a process that show its memory or its environment (proc(5)).
const PROCESS_FILES: [&str; 3] = ["environ", "mem", "maps"];
/// Longest wait for an answer at a port; a packet filter gives none.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(700);

/// What there is to try.
#[derive(Default)]
struct Paths {
    files: Vec<PathBuf>,
    sockets: Vec<PathBuf>,
}

/// Reads and connects as a local user, and connects as a neighbour.
pub(super) fn run(square: &Square) -> Result<Vec<Outcome>> {
    let node = square.lab.node(NEIGHBOUR)?;
    Ok(vec![read_as_nobody(node)?, connect_as_neighbour(square)?])
}

fn read_as_nobody(node: &Node) -> Result<Outcome> {
    let fault = "a local user reads all files of a node and of its processes, and connects to all its sockets";
    progress(fault);
    let mut paths = Paths::default();
    paths.add(node.root())?;
    let of_root = secrets(&paths.files);
    ensure!(of_root > 0 && !paths.sockets.is_empty(), "nothing to read");
    let daemon = node.pid().context("the daemon does not run")?;
    let processes = node.children().into_keys().chain([daemon]);
    let of_processes: Vec<PathBuf> = processes
        .flat_map(|pid| PROCESS_FILES.map(|name| PathBuf::from(format!("/proc/{pid}/{name}"))))
        .collect();
    let (read, opened, connected) = netns::run_inside(node.namespace(), || {
        become_nobody()?;
        let connected = paths.sockets.iter();
        let connected = connected.filter(|path| UnixStream::connect(path).is_ok());
        let opened = of_processes.iter().filter(|path| begins(path).is_some());
        Ok((secrets(&paths.files), opened.count(), connected.count()))
    })?;
    progress(format!(
        "{of_root} files with secrets; of {} files and {} sockets a local user read {read} secrets and reached {connected} sockets",
        paths.files.len(),
        paths.sockets.len()
    ));
    Ok(Outcome {
        id: "local-user-reads",
        fault,
        tries: paths.files.len() + paths.sockets.len() + of_processes.len(),
        figures: vec![
            count("files with secrets read", read)?,
            count("files of processes read", opened)?,
            count("sockets reached", connected)?,
        ],
    })
}

/// Gives up all rights of the calling thread.
fn become_nobody() -> Result<()> {
    set_thread_groups(&[])?;
    set_thread_gid(Gid::from_raw(NOBODY))?;
    set_thread_uid(Uid::from_raw(NOBODY))?;
    Ok(())
}

impl Paths {
    /// Adds all files and sockets below a folder; follows no link.
    fn add(&mut self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.add(&entry.path())?;
            } else if kind.is_socket() {
                self.sockets.push(entry.path());
            } else if kind.is_file() {
                self.files.push(entry.path());
            }
        }
        Ok(())
    }
}

/// The number of these files that can be read and have a secret.
fn secrets(files: &[PathBuf]) -> usize {
    let has_secret = |path: &&PathBuf| {
        begins(path).is_some_and(|text| SECRETS.iter().any(|secret| text.contains(secret)))
    };
    files.iter().filter(has_secret).count()
}

/// How a file begins; `None` if it cannot be read.
fn begins(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(READ_LIMIT).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn connect_as_neighbour(square: &Square) -> Result<Outcome> {
    let fault = "a neighbour connects to all TCP ports at which a node listens, at both its addresses of the tunnel";
    progress(fault);
    let node = square.lab.node(MIDDLE)?;
    let listing = node.command("ss", &["-Hltn"])?;
    let port = |line: &str| {
        let local = line.split_whitespace().nth(3)?;
        local.rsplit(':').next()?.parse::<u16>().ok()
    };
    let mut ports: Vec<u16> = listing.lines().filter_map(port).collect();
    ports.sort_unstable();
    ports.dedup();
    let slot = square.slot(NEIGHBOUR, MIDDLE)?;
    let middle = square.prefix(MIDDLE)?;
    let overlay = IpAddr::V6(square.network.node_address(middle));
    let neighbour = square.lab.node(NEIGHBOUR)?.namespace();
    let open = netns::run_inside(neighbour, || {
        let link = nix::net::if_::if_nametoindex(slot.as_str())?;
        let link_local = |port| SocketAddrV6::new(overlay::link_local(middle), port, 0, link);
        let targets = ports.iter().flat_map(|port| {
            [
                SocketAddr::new(overlay, *port),
                SocketAddr::V6(link_local(*port)),
            ]
        });
        let answers = |to: &SocketAddr| TcpStream::connect_timeout(to, CONNECT_TIMEOUT).is_ok();
        Ok(targets.filter(answers).collect::<Vec<_>>())
    })?;
    progress(format!("of the ports {ports:?} these answer: {open:?}"));
    let api = SocketAddr::new(overlay, peer::PORT);
    ensure!(open.contains(&api), "the peer API does not answer");
    Ok(Outcome {
        id: "open-ports",
        fault,
        tries: 2 * ports.len(),
        figures: vec![count("open ports beside the peer API's", open.len() - 1)?],
    })
}

fn count(name: &'static str, value: usize) -> Result<Figure> {
    Ok(Figure::count(name, u64::try_from(value)?, 0))
}
