//! A host on a LAN on which nodes speak Babel, which does not belong to the network: without a key, with a wrong one, and with recorded
//! packets.

use super::{Figure, Outcome};
use crate::{
    Lab, Node, Options, PingSchedule, Pinger, ip,
    measure::figures::babeld_dump,
    netns,
    ping_record::LOST_AFTER,
    pinger::all_pairs,
    process::Process,
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result, ensure};
use policies::names::Prefix;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fs,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use wire::{babel_packet, overlay};

/// The stranger's link, a bridge that joins all links of the LAN.
const LAN: &str = "lan";
/// The link of a node on the LAN.
const NODE_LINK: &str = "lan0";
/// The number of the node that the stranger pretends to be; there is none of that number.
const STRANGER: u32 = 9;
/// Longest wait until the nodes have routes by the LAN, or until the stranger's route is accepted with the right key.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Time for which each attack lasts, and for which packets are recorded.
const ATTACK_SPAN: Duration = Duration::from_secs(5);
/// Interval between two readings of the nodes' tables, and between two replays of all recorded packets.
const READ_INTERVAL: Duration = Duration::from_millis(200);
/// Two nodes that reach each other by a tunnel and by a LAN, and a host there that does not belong to the network.
struct Lan {
    lab: Lab,
    pinger: Pinger,
    /// The stranger's namespace and address.
    stranger: (String, Ipv6Addr),
    /// The stranger's babeld writes here.
    folder: PathBuf,
}

pub(super) fn run() -> Result<Vec<Outcome>> {
    Ok(vec![Lan::build()?.attack()?])
}

impl Lan {
    fn build() -> Result<Self> {
        let lab = Lab::build(Options::with_nodes(2))?;
        lab.init_registry()?;
        lab.start_registry()?;
        // babeld drops its first request for routes with the packets that are not yet authenticated, so routes come with an update.
        lab.registry_command("set", &["hello-interval", "1s"])?;
        lab.registry_command("set", &["update-interval", "4s"])?;
        for node in lab.nodes() {
            node.join(&lab.invite(&["--name", &node.name()])?)?;
        }
        let internet = lab.internet_namespace();
        let mut lines = format!("link add {LAN} type bridge\nlink set {LAN} up\n");
        for node in lab.nodes() {
            let port = format!("l{}", node.index());
            let namespace = node.namespace();
            lines.push_str(&format!(
                "link add {port} type veth peer name {NODE_LINK} netns {namespace}\nlink set {port} master {LAN} up\n"
            ));
        }
        ip::batch(Some(&internet), &lines)?;
        for node in lab.nodes() {
            ip::batch(
                Some(node.namespace()),
                &format!("link set {NODE_LINK} up\n"),
            )?;
            node.configure("interfaces", &format!("[{NODE_LINK}]"))?;
        }
        let address = wait_until(TIMEOUT, || link_local(&internet, LAN).ok());
        let address = address.context("the stranger has no address")?;
        lab.start_nodes()?;
        let pinger = lab.start_pings(PingSchedule::STEADY)?;
        wait_until(TIMEOUT, || pinger.all_answered(Duration::ZERO, all_pairs))
            .context("the nodes do not reach each other")?;
        let folder = lab.folder().to_owned();
        Ok(Self {
            lab,
            pinger,
            stranger: (internet, address),
            folder,
        })
    }

    /// Speaks Babel without a key, with a wrong one, and by recorded packets; with the right key last, which must be accepted.
    fn attack(&self) -> Result<Outcome> {
        let fault = "a host on a LAN of the nodes announces a range by Babel without a key, with a wrong key, and sends recorded packets again";
        progress(fault);
        let (namespace, _) = &self.stranger;
        wait_until(TIMEOUT, || {
            self.routes().ok().filter(|routes| routes.1 == 2)
        })
        .context("a node has no route by the LAN")?;
        let recorded = netns::run_inside(namespace, || record(LAN))?;
        ensure!(
            recorded.len() > 4,
            "only {} packets were recorded",
            recorded.len()
        );
        let start = self.pinger.now();
        let mut observed = Vec::new();
        for key in [None, Some("0f".repeat(32))] {
            let babeld = self.start_babeld(key.as_deref())?;
            observed.push(self.observe(|| Ok(()))?);
            drop(babeld);
        }
        let replay = || netns::run_inside(namespace, || self.replay(&recorded));
        observed.push(self.observe(replay)?);
        let end = self.pinger.now();
        pause(LOST_AFTER);
        let pings = self.pinger.summarize(start, end, all_pairs);
        let key = babel_key(self.lab.node(0)?)?;
        let member = self.start_babeld(Some(&key))?;
        let is_accepted = || {
            let (by_stranger, _) = self.routes().ok()?;
            (by_stranger > 0).then_some(())
        };
        wait_until(TIMEOUT, is_accepted)
            .context("with the right key, too, no route is accepted")?;
        drop(member);
        Ok(Outcome {
            id: "stranger-on-lan",
            fault,
            tries: observed.len(),
            figures: vec![
                Figure::count(
                    "routes accepted",
                    observed.iter().map(|seen| seen.0).sum(),
                    0,
                ),
                Figure::count(
                    "readings without a LAN route",
                    observed.iter().map(|seen| seen.1).sum(),
                    0,
                ),
                Figure::count("pings lost", pings.lost, 0),
            ],
        })
    }

    /// Starts babeld as the stranger, which announces the range of a node that does not exist.
    fn start_babeld(&self, key: Option<&str>) -> Result<Process> {
        let (namespace, _) = &self.stranger;
        let node = Prefix::new(STRANGER, 16).context("a prefix is wrong")?;
        let range = super::liar::network_of(&self.lab)?.node_range(node);
        let route = format!("-6 route replace unreachable {range} proto 197");
        let words: Vec<_> = route.split(' ').collect();
        ip::output(namespace, &words)?;
        let (definition, reference) = match key {
            Some(key) => (format!("key id k type hmac-sha256 value {key}\n"), " key k"),
            None => (String::new(), ""),
        };
        let id = overlay::router_id_text(node);
        let text = format!(
            "skip-kernel-setup true\nrouter-id {id}\n{definition}interface {LAN} type wired hello-interval 1{reference}\n\
             redistribute ip {range} proto 197 allow\nredistribute local deny\nredistribute deny\n"
        );
        let path = |name: &str| self.folder.join(name).display().to_string();
        fs::write(path("stranger.conf"), text)?;
        // A pid file of an earlier one prevents its start.
        drop(fs::remove_file(path("stranger.pid")));
        let (file, pid, state) = (
            path("stranger.conf"),
            path("stranger.pid"),
            path("stranger.state"),
        );
        let arguments = ["-c", &file, "-I", &pid, "-S", &state];
        Process::start(
            namespace,
            Path::new("babeld"),
            arguments,
            Path::new(&path("stranger.log")),
        )
    }

    /// Lets this be done again and again for the span of an attack; returns the most routes by the stranger that the nodes had meanwhile,
    /// and the number of readings in which a node had no route by the other one's link on the LAN.
    fn observe(&self, attack: impl Fn() -> Result<()>) -> Result<(u64, u64)> {
        let (start, mut most, mut missing) = (Instant::now(), 0, 0);
        while start.elapsed() < ATTACK_SPAN {
            attack()?;
            let (by_stranger, by_members) = self.routes()?;
            most = most.max(by_stranger);
            missing += self.lab.nodes().len().saturating_sub(by_members);
            pause(READ_INTERVAL);
        }
        Ok((most, u64::try_from(missing)?))
    }

    /// The routes by the stranger in the tables of the nodes' babelds, and the number of nodes with a route by the other's link on the LAN.
    fn routes(&self) -> Result<(u64, usize)> {
        let stranger = format!(" via {} ", self.stranger.1);
        let (mut by_stranger, mut by_members) = (0, 0);
        for node in self.lab.nodes() {
            let dump = babeld_dump(node)?;
            let routes = dump.lines().filter(|line| line.starts_with("add route "));
            let (false_ones, others): (Vec<_>, Vec<_>) =
                routes.partition(|line| line.contains(&stranger));
            by_stranger += false_ones.len();
            let by_lan = |line: &&str| line.ends_with(&format!(" if {NODE_LINK}"));
            by_members += usize::from(others.iter().any(by_lan));
        }
        Ok((u64::try_from(by_stranger)?, by_members))
    }

    /// Sends recorded packets once: from the address of their sender, and from the stranger's own.
    fn replay(&self, recorded: &[(Ipv6Addr, Vec<u8>)]) -> Result<()> {
        let link = nix::net::if_::if_nametoindex(LAN)?;
        let to = SocketAddr::from(SocketAddrV6::new(
            babel_packet::GROUP,
            babel_packet::PORT,
            0,
            link,
        ));
        for (sender, packet) in recorded {
            for from in [*sender, self.stranger.1] {
                let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
                socket.set_freebind_v6(true)?;
                socket.set_multicast_if_v6(link)?;
                let from = SocketAddrV6::new(from, babel_packet::PORT, 0, link);
                socket.bind(&SocketAddr::from(from).into())?;
                socket.send_to(packet, &to.into())?;
            }
        }
        Ok(())
    }
}

/// The link-local address of a link, once it is no longer tentative.
fn link_local(namespace: &str, link: &str) -> Result<Ipv6Addr> {
    let listing = ip::output(
        namespace,
        &[
            "-6",
            "-o",
            "addr",
            "show",
            "dev",
            link,
            "scope",
            "link",
            "-tentative",
        ],
    )?;
    let mut words = listing
        .split_whitespace()
        .skip_while(|word| *word != "inet6");
    let address = words.nth(1).context("the link has no address")?;
    let (address, _) = address
        .split_once('/')
        .context("an address has no length")?;
    Ok(address.parse()?)
}

/// The key in the configuration of a node's babeld.
fn babel_key(node: &Node) -> Result<String> {
    let text = fs::read_to_string(node.root().join("run/warren/child/babeld.conf"))?;
    let mut lines = text
        .lines()
        .filter(|line| line.starts_with("key id network "));
    let line = lines.next().context("babeld has no key")?;
    Ok(line.rsplit(' ').next().unwrap_or_default().to_owned())
}

/// Receives Babel packets of a link for a while; returns them with their senders.
fn record(link: &str) -> Result<Vec<(Ipv6Addr, Vec<u8>)>> {
    let socket = UdpSocket::bind(("::", babel_packet::PORT))?;
    let index = nix::net::if_::if_nametoindex(link)?;
    socket.join_multicast_v6(&babel_packet::GROUP, index)?;
    socket.set_read_timeout(Some(READ_INTERVAL))?;
    let (start, mut recorded) = (Instant::now(), Vec::new());
    let mut buffer = [0; 1500];
    while start.elapsed() < ATTACK_SPAN {
        if let Ok((length, SocketAddr::V6(sender))) = socket.recv_from(&mut buffer) {
            let packet = buffer.get(..length).unwrap_or_default();
            recorded.push((*sender.ip(), packet.to_vec()));
        }
    }
    Ok(recorded)
}
