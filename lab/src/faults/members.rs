//! What members can do to a neighbour beside Babel: options pushed by their server, lies on the link, and tunnels that come and go.

use super::{
    Figure, Outcome,
    forged_icmp::{neighbour_advertisement, redirect, router_advertisement},
    liar::{Announcement, Liar, credentials, packets},
    square::{LogWatch, MIDDLE, NEIGHBOUR, RUNNING, Square, VICTIM},
};
use crate::{
    Lab, Node, Options, ip, netns,
    process::Process,
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::BTreeSet,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    path::Path,
    thread,
    time::{Duration, Instant},
};
use wire::{
    babel_packet,
    control::{TUNNELS_PATH, TunnelsDocument},
    overlay,
};

/// Options that a server can push, and that change a client's routes, addresses, names, timers or environment.
const PUSHED: &[&str] = &[
    "route 0.0.0.0 128.0.0.0",
    "route 10.0.0.0 255.0.0.0",
    "route-ipv6 2000::/4",
    "route-ipv6 ::/1",
    "route-gateway 10.9.9.1",
    "route-metric 1",
    "route-delay 0",
    "redirect-gateway def1",
    "redirect-gateway ipv6",
    "redirect-private",
    "ifconfig 10.9.9.2 255.255.255.0",
    "ifconfig-ipv6 fd99::2/64 fd99::1",
    "topology subnet",
    "tun-mtu 1280",
    "dhcp-option DNS 10.9.9.1",
    "dhcp-option DNS6 fd99::1",
    "dhcp-option DOMAIN evil.example",
    "dhcp-option DOMAIN-SEARCH evil.example",
    "dhcp-option ADAPTER_DOMAIN_SUFFIX evil.example",
    "dhcp-option WINS 10.9.9.1",
    "dns server 0 address 10.9.9.1",
    "block-outside-dns",
    "block-ipv6",
    "register-dns",
    "ping 3600",
    "ping-exit 1",
    "ping-restart 1",
    "inactive 1",
    "session-timeout 2",
    "explicit-exit-notify 5",
    "persist-tun",
    "persist-key",
    "setenv-safe LD_PRELOAD /tmp/evil.so",
    "setenv PATH /tmp",
    "echo evil",
    "sndbuf 1024",
    "rcvbuf 1024",
    "socket-flags TCP_NODELAY",
    "comp-lzo yes",
    "compress lz4",
    "client-nat snat 10.0.0.0 255.0.0.0 10.9.9.0",
    "auth-token evil",
    "auth-retry interact",
];
/// Longest wait until a node has dialled the hostile server.
const DIAL_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for which a tunnel to it must last, beyond the timers that it pushed.
const TIMER_SPAN: Duration = Duration::from_secs(6);
/// Length of each attack of a client.
const ATTACK_SPAN: Duration = Duration::from_secs(10);
/// Interval between two lies.
const LIE_INTERVAL: Duration = Duration::from_millis(250);
/// Time after an attack in which pings are counted, too.
const AFTERMATH: Duration = Duration::from_secs(4);
/// Members that connect and leave.
const FLAPPING: usize = 6;
/// Time for which each of their tunnels lives.
const FLAP_LIFE: Duration = Duration::from_millis(400);
/// Pings that may be lost while they do, in percent of all.
const MAX_LOST_PERCENT: f64 = 1.0;
/// The TAP of the hostile server.
const TAP: &str = "hostile";

/// Tries each attack once.
pub(super) fn run() -> Result<Vec<Outcome>> {
    let square = Square::build(1 + FLAPPING)?;
    let mut outcomes = vec![lie_on_link(&square)?, flap(&square)?];
    drop(square);
    outcomes.push(push_options()?);
    Ok(outcomes)
}

/// Addresses and routes of a node that no tunnel may change: all but those on slots, and babeld's.
fn host_state(node: &Node) -> Result<BTreeSet<String>> {
    let mut lines = BTreeSet::new();
    for words in [
        &["-4", "-o", "addr"][..],
        &["-6", "-o", "addr"],
        &["-4", "route"],
        &["-6", "route"],
    ] {
        let listing = ip::output(node.namespace(), words)?;
        let kept = listing
            .lines()
            .filter(|line| !line.contains("wrn"))
            .map(|line| line.split(" valid_lft").next().unwrap_or_default());
        lines.extend(kept.map(str::to_owned));
    }
    Ok(lines)
}

fn count_changes(before: &BTreeSet<String>, after: &BTreeSet<String>) -> u64 {
    let changes: Vec<_> = before.symmetric_difference(after).collect();
    changes.iter().for_each(progress);
    u64::try_from(changes.len()).unwrap_or(u64::MAX)
}

/// The peers of a node's tunnels that are up.
fn peers_up(node: &Node) -> Result<Vec<String>> {
    let document: TunnelsDocument = node.control_document(TUNNELS_PATH)?;
    let up = document.tunnels.into_iter();
    let up = up.filter(|tunnel| tunnel.phase == "up");
    Ok(up.map(|tunnel| tunnel.peer).collect())
}

/// Lets a node dial a server that pushes options.
fn push_options() -> Result<Outcome> {
    let fault = "a member's server pushes 43 options: routes, addresses, names, timers, environment, buffers";
    progress(fault);
    let lab = Lab::build_joined(Options {
        nodes: 2,
        ..Options::default()
    })?;
    let (node, hostile) = (lab.node(0)?, lab.node(1)?);
    let peer = hostile.prefix()?.to_owned();
    node.configure("neighbours", &format!("[{peer}]"))?;
    // The node learns where the server is from the registry, to which the real one announces itself.
    lab.start_and_converge()?;
    hostile.stop_cleanly()?;
    let has_tunnel = || peers_up(node).is_ok_and(|peers| peers.contains(&peer));
    wait_until(DIAL_TIMEOUT, || (!has_tunnel()).then_some(()))
        .context("the tunnel to the stopped node stays")?;
    let before = host_state(node)?;
    let log = LogWatch::start(node);
    let _server = start_server(hostile)?;
    wait_until(DIAL_TIMEOUT, || has_tunnel().then_some(()))
        .with_context(|| node.describe("did not dial the hostile server"))?;
    pause(TIMER_SPAN);
    let closed = log.count(&["tunnel closed"]);
    let changes = count_changes(&before, &host_state(node)?);
    Ok(Outcome {
        id: "pushed-options",
        fault,
        tries: PUSHED.len(),
        figures: vec![
            Figure::count("changed routes and addresses", changes, 0),
            Figure::count("tunnels ended by pushed timers", u64::try_from(closed)?, 0),
        ],
    })
}

/// Starts a server at the port of the node's own, with its certificate.
fn start_server(node: &Node) -> Result<Process> {
    let prefix = node.prefix()?.parse()?;
    let address = overlay::link_local(prefix);
    ip::batch(
        Some(node.namespace()),
        &format!(
            "tuntap add dev {TAP} mode tap\nlink set {TAP} addrgenmode none mtu 1400\nlink set {TAP} up\n\
             addr add {address}/64 dev {TAP} nodad\n"
        ),
    )?;
    let mut arguments = credentials(node);
    let others = [
        "--mode",
        "server",
        "--tls-server",
        "--dh",
        "none",
        "--dev",
        TAP,
        "--dev-type",
        "tap",
        "--proto",
        "udp6",
        "--port",
        "1194",
        "--tun-mtu",
        "1400",
        "--data-ciphers",
        "AES-256-GCM:CHACHA20-POLY1305",
        "--keepalive",
        "2",
        "20",
    ];
    arguments.extend(others.map(str::to_owned));
    for option in PUSHED {
        arguments.extend(["--push".to_owned(), (*option).to_owned()]);
    }
    let log = node.root().join("hostile.log");
    Process::start(node.namespace(), Path::new("openvpn"), &arguments, &log)
}

/// Lets a member take other nodes' addresses on its link, and send router and neighbour advertisements and redirects.
fn lie_on_link(square: &Square) -> Result<Outcome> {
    let fault = "a member sends router advertisements, forged neighbour advertisements and redirects, and Babel from the addresses and with the MAC of others";
    progress(fault);
    let node = square.lab.node(NEIGHBOUR)?;
    let liar = square.connect_liar()?;
    let namespace = square.liar_namespace()?;
    liar.announce(&[])?;
    let before = host_state(node)?;
    let logs: Vec<_> = square
        .lab
        .nodes()
        .iter()
        .take(RUNNING)
        .map(LogWatch::start)
        .collect();
    let victims = [MIDDLE, VICTIM, NEIGHBOUR];
    let victims = victims.map(|victim| square.prefix(victim).map(overlay::link_local));
    let victims = victims.into_iter().collect::<Result<Vec<_>>>()?;
    let start = square.pinger.now();
    send_forged_icmp(&namespace, &victims)?;
    let link_changes = count_changes(&before, &host_state(node)?);
    speak_as_others(&namespace, square, &liar, &victims)?;
    let pings = square.pings(start, square.pinger.now() + AFTERMATH);
    let closed = honest_closings(square, &logs);
    Ok(Outcome {
        id: "lies-on-link",
        fault,
        tries: 1,
        figures: vec![
            Figure::count("changed routes and addresses", link_changes, 0),
            Figure::count("honest tunnels closed", u64::try_from(closed)?, 0),
            Figure::lost(pings, 0.0),
        ],
    })
}

/// Sends router advertisements, neighbour advertisements for these addresses, and redirects, for a while.
fn send_forged_icmp(namespace: &str, victims: &[Ipv6Addr]) -> Result<()> {
    netns::run_inside(namespace, || {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.bind_device(Some(Liar::LINK.as_bytes()))?;
        // Receivers drop such packets with a smaller hop limit (RFC 4861).
        socket.set_multicast_hops_v6(255)?;
        let group = SocketAddr::from((Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0));
        let start = Instant::now();
        while start.elapsed() < ATTACK_SPAN / 2 {
            socket.send_to(&router_advertisement(), &group.into())?;
            for victim in victims {
                socket.send_to(&neighbour_advertisement(*victim), &group.into())?;
                socket.send_to(&redirect(*victim), &group.into())?;
            }
            pause(LIE_INTERVAL);
        }
        Ok(())
    })
}

/// Sends Babel packets from the link-local addresses of others, with the MAC of one of them.
fn speak_as_others(
    namespace: &str,
    square: &Square,
    liar: &Liar,
    victims: &[Ipv6Addr],
) -> Result<()> {
    let link = Liar::LINK;
    let mac = mac_of_first_slot(square.lab.node(MIDDLE)?)?;
    ip::batch(Some(namespace), &format!("link set {link} address {mac}\n"))?;
    for victim in victims {
        ip::batch(
            Some(namespace),
            &format!("addr add {victim}/64 dev {link} nodad\n"),
        )?;
    }
    let own = Announcement::own(square.network, liar.prefix());
    let index = netns::run_inside(namespace, || Ok(nix::net::if_::if_nametoindex(link)?))?;
    let start = Instant::now();
    while start.elapsed() < ATTACK_SPAN / 2 {
        for victim in victims {
            netns::run_inside(namespace, || {
                let from = SocketAddrV6::new(*victim, babel_packet::PORT, 0, index);
                let socket = std::net::UdpSocket::bind(from)?;
                let to = SocketAddrV6::new(babel_packet::GROUP, babel_packet::PORT, 0, index);
                for packet in packets(&[own]) {
                    // The link goes away once the neighbour has closed the tunnel.
                    drop(socket.send_to(&packet, to));
                }
                Ok(())
            })?;
        }
        if liar.was_rejected() {
            break;
        }
        pause(LIE_INTERVAL);
    }
    Ok(())
}

/// The MAC of the first dialling slot of a node.
fn mac_of_first_slot(node: &Node) -> Result<String> {
    let listing = ip::output(node.namespace(), &["-o", "link", "show", "wrn0"])?;
    let mut words = listing.split_whitespace();
    words.find(|word| *word == "link/ether");
    let mac = words.next().context("wrn0 has no MAC")?;
    Ok(mac.to_owned())
}

/// The tunnels between running nodes that were up and were closed, for whatever reason but that there were two.
fn honest_closings(square: &Square, logs: &[LogWatch<'_>]) -> usize {
    let running = (0..RUNNING).filter_map(|index| square.prefix(index).ok());
    let count = |log: &LogWatch<'_>, peer: &str| {
        let with = |reason| log.count(&["tunnel closed", peer, reason]);
        with("reason=") - with("reason=dial_failed") - with("reason=duplicate")
    };
    let peers = running.map(|peer| format!("peer={peer} "));
    let closings = peers.map(|peer| logs.iter().map(|log| count(log, &peer)).sum::<usize>());
    closings.sum()
}

/// Lets members connect to a server and leave without a word, again and again.
fn flap(square: &Square) -> Result<Outcome> {
    let fault = "six members connect to one node and are killed after 0.4 s, again and again";
    progress(fault);
    let logs: Vec<_> = square
        .lab
        .nodes()
        .iter()
        .take(RUNNING)
        .map(LogWatch::start)
        .collect();
    let before = square.starts(NEIGHBOUR, "server-udp")?;
    let start = square.pinger.now();
    let members: Vec<&Node> = square.take_liars(FLAPPING)?;
    let connections = thread::scope(|scope| {
        let members: Vec<_> = members
            .into_iter()
            .map(|member| scope.spawn(move || connect_again_and_again(member)))
            .collect();
        let members = members.into_iter();
        let counts = members.map(|member| member.join().ok().context("a member panicked")?);
        counts.sum::<Result<usize>>()
    })?;
    let pings = square.pings(start, square.pinger.now() + AFTERMATH);
    let starts = square.starts(NEIGHBOUR, "server-udp")? - before;
    let closed = honest_closings(square, &logs);
    Ok(Outcome {
        id: "flapping-members",
        fault,
        tries: connections,
        figures: vec![
            Figure::count("children killed", starts, 0),
            Figure::count("honest tunnels closed", u64::try_from(closed)?, 0),
            Figure::lost(pings, MAX_LOST_PERCENT),
        ],
    })
}

/// Returns how often the member started to connect.
fn connect_again_and_again(member: &Node) -> Result<usize> {
    let mut arguments = credentials(member);
    let remote = format!("45.67.1.{}", NEIGHBOUR + 1);
    let others = [
        "--client",
        "--dev",
        "null",
        "--dev-type",
        "tap",
        "--nobind",
        "--remote",
        &remote,
        "1194",
        "udp4",
    ];
    arguments.extend(others.map(str::to_owned));
    let log = member.root().join("flapping.log");
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < ATTACK_SPAN {
        let openvpn = Process::start(member.namespace(), Path::new("openvpn"), &arguments, &log)?;
        pause(FLAP_LIFE);
        drop(openvpn);
        count += 1;
    }
    Ok(count)
}
