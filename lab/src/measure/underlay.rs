//! Measures what passes a tunnel over paths that carry small packets only, and what the node reports of it.

use crate::{
    Lab, Options,
    bulk_transfer::measure_rate,
    ip, netns,
    network::underlay::bridge_port,
    node::Node,
    process::run_with_input,
    progress::{progress, round, seconds},
    wait::wait_until,
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};
use wire::control::{STATUS_PATH, StatusDocument, TUNNELS_PATH, TunnelsDocument};

/// The MTUs of the path.
pub const MTUS: [u16; 5] = [1500, 1492, 1460, 1420, 1280];
/// Payloads of pings, in bytes: a small one, one that fills a packet of 1,400 bytes, one of seven fragments. They are sent once a
/// second until they are answered, so that a path that becomes narrow is noticed after five or six.
const PING_BYTES: [u16; 3] = [56, 1352, 9000];
/// Longest wait for the first ping.
const FIRST_PING_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait until a ping of one size passes. A path that becomes narrow is noticed within a quarter of a minute.
const PING_TIMEOUT: Duration = Duration::from_secs(25);
/// MTU of a path before it becomes narrow.
const WIDE: u16 = 1500;
/// Longest wait until the node reports whether packets of full size pass.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Length of the bulk transfer. A path that passes single packets of full size, but no full TCP segments, is noticed within it.
const BULK_TIME: Duration = Duration::from_secs(3);
/// The rate below which bulk data counts as not passing, in Mbit/s: far below what any of these paths carries, and above what a path
/// on which large packets are lost again and again does.
const MIN_RATE: f64 = 10.0;

/// How the two nodes' tunnel runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// UDP over IPv4.
    UdpIpv4,
    /// UDP over IPv6.
    UdpIpv6,
    /// TCP over IPv4.
    Tcp,
    /// UDP or TCP over IPv4, as the nodes choose.
    Either,
}

/// One kind of path.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Path {
    /// Its MTU, in bytes.
    pub mtu: u16,
    /// How the tunnel runs over it.
    pub carrier: Carrier,
    /// Whether a router reports packets that are too large. If not, they are dropped without notice.
    pub icmp_passes: bool,
    /// Whether fragments pass.
    pub fragments_pass: bool,
    /// Whether the path carries packets of 1,500 bytes until the tunnel is up and has carried one.
    pub narrows_later: bool,
}

/// One kind of path, and what passed it.
#[derive(Clone, Debug, Serialize)]
pub struct UnderlayCell {
    #[serde(flatten)]
    path: Path,
    /// Time from the start of the daemons to the first answer; `null` if there was none.
    first_ping_seconds: Option<f64>,
    /// Time from then until the largest ping was answered.
    largest_ping_seconds: f64,
    /// Payload of the largest ping that was answered; 0 if none was.
    largest_ping_bytes: u16,
    /// Rate of one TCP connection.
    bulk_mbit_per_second: f64,
    /// Whether the node reports that it is ready.
    is_ready: bool,
    /// What the node reports of packets of full size.
    full_size_packets: String,
}

impl UnderlayCell {
    /// Returns whether the largest ping and bulk data passed.
    pub fn passes_all(&self) -> bool {
        Some(&self.largest_ping_bytes) == PING_BYTES.last() && self.bulk_mbit_per_second >= MIN_RATE
    }
}

/// The output of `measure underlay`.
#[derive(Clone, Debug, Serialize)]
pub struct Underlay {
    /// Load of the machine over the last minute, after the measurement.
    load_average: String,
    cells: Vec<UnderlayCell>,
    /// Cells in which something did not pass.
    failed: usize,
    /// Failed cells in which the node reported nothing of it.
    silent: usize,
}

/// Measures each carrier on paths of these MTUs: with ICMP, without, and on a path without ICMP that becomes narrow later; and the
/// choice of the nodes on a path that drops fragments, too.
///
/// # Errors
/// Fails if a lab cannot be built, or a node does not answer at its control socket.
pub fn measure(mtus: &[u16]) -> Result<Underlay> {
    let mut paths = Vec::new();
    for mtu in mtus {
        for carrier in [Carrier::UdpIpv4, Carrier::UdpIpv6, Carrier::Tcp] {
            for (icmp_passes, narrows_later) in [(true, false), (false, false), (false, true)] {
                paths.push(Path {
                    mtu: *mtu,
                    carrier,
                    icmp_passes,
                    fragments_pass: true,
                    narrows_later,
                });
            }
        }
        paths.push(Path {
            mtu: *mtu,
            carrier: Carrier::Either,
            icmp_passes: false,
            fragments_pass: false,
            narrows_later: false,
        });
    }
    let mut cells = Vec::new();
    for path in paths {
        let cell = measure_path(path)?;
        progress(format!("{cell:?}"));
        cells.push(cell);
    }
    let failed = cells.iter().filter(|cell| !cell.passes_all());
    let is_silent = |cell: &&UnderlayCell| cell.is_ready && cell.full_size_packets != "lost";
    let load = fs::read_to_string("/proc/loadavg").context("cannot read the load")?;
    Ok(Underlay {
        load_average: load.split(' ').next().unwrap_or_default().to_owned(),
        failed: failed.clone().count(),
        silent: failed.filter(is_silent).count(),
        cells,
    })
}

/// Measures what passes a tunnel between two nodes over this path.
///
/// # Errors
/// Fails if the lab cannot be built, or a node does not answer at its control socket.
pub fn measure_path(path: Path) -> Result<UnderlayCell> {
    let lab = Lab::build_joined(Options::with_nodes(2))?;
    configure_nodes(&lab, path.carrier)?;
    let first_mtu = if path.narrows_later { WIDE } else { path.mtu };
    narrow_path(
        &lab,
        Path {
            mtu: first_mtu,
            ..path
        },
    )?;
    lab.start_nodes()?;
    let (node, peer) = (lab.node(0)?, lab.node(1)?);
    let target = peer.identity()?.address.to_string();
    let start = Instant::now();
    let mut first_ping_seconds = None;
    let mut largest_ping_bytes = 0;
    let mut largest_ping_seconds = 0.0;
    for bytes in PING_BYTES {
        let since = Instant::now();
        let timeout = match first_ping_seconds {
            None => FIRST_PING_TIMEOUT,
            Some(_) => PING_TIMEOUT,
        };
        let size = bytes.to_string();
        let ping = ["-6", "-c1", "-W1", "-s", &size, &target];
        if wait_until(timeout, || node.command("ping", &ping).ok()).is_none() {
            break;
        }
        if first_ping_seconds.is_none() && path.narrows_later {
            wait_until(REPORT_TIMEOUT, || is_carried(node).then_some(()))
                .context("no packet of full size passed the wide path")?;
            set_mtu(&lab, path.mtu)?;
        }
        first_ping_seconds.get_or_insert(seconds(start.elapsed()));
        largest_ping_bytes = bytes;
        largest_ping_seconds = round(largest_ping_seconds + since.elapsed().as_secs_f64(), 3);
    }
    let from = (node.namespace(), node.identity()?.address);
    let to = (peer.namespace(), peer.identity()?.address);
    let rate = measure_rate(from, to, BULK_TIME)?;
    let described = wait_until(REPORT_TIMEOUT, || {
        describe(node)
            .ok()
            .filter(|(_, full_size)| full_size != "unknown")
    });
    let (is_ready, full_size_packets) = described.map_or_else(|| describe(node), Ok)?;
    lab.stop_nodes();
    Ok(UnderlayCell {
        path,
        first_ping_seconds,
        largest_ping_seconds,
        largest_ping_bytes,
        bulk_mbit_per_second: round(rate, 0),
        is_ready,
        full_size_packets,
    })
}

/// Returns whether a packet of full size has passed the node's tunnel.
fn is_carried(node: &Node) -> bool {
    describe(node).is_ok_and(|(_, full_size)| full_size == "carried")
}

/// Whether the node is ready, and what it reports of packets of full size in the tunnel that it uses.
fn describe(node: &Node) -> Result<(bool, String)> {
    let status: StatusDocument = node.control_document(STATUS_PATH)?;
    let tunnels: TunnelsDocument = node.control_document(TUNNELS_PATH)?;
    let mut tunnels = tunnels.tunnels.into_iter();
    let used = tunnels.find(|tunnel| tunnel.nodes_served > 0);
    let full_size = used.map(|tunnel| tunnel.full_size_packets);
    Ok((
        status.ready,
        full_size.unwrap_or_else(|| "unknown".to_owned()),
    ))
}

/// The node's IPv6 address on the lab's internet.
fn ipv6_address(index: usize) -> String {
    format!("2a0c:5c80::1:{}", index + 1)
}

fn configure_nodes(lab: &Lab, carrier: Carrier) -> Result<()> {
    for node in lab.nodes() {
        let listen = match carrier {
            Carrier::UdpIpv4 | Carrier::UdpIpv6 => "{ udp: 1194, tcp: 0 }",
            Carrier::Either => "{ udp: 1194, tcp: 1194 }",
            Carrier::Tcp => "{ udp: 0, tcp: 1194 }",
        };
        node.configure("listen", listen)?;
        if carrier == Carrier::UdpIpv6 {
            let address = ipv6_address(node.index());
            let line = format!("addr add {address}/64 dev eth0 nodad\n");
            ip::batch(Some(node.namespace()), &line)?;
            node.configure("endpoints", &format!("[\"udp:[{address}]:1194\"]"))?;
        }
    }
    Ok(())
}

/// Lets only packets of the path's MTU pass between the nodes.
fn narrow_path(lab: &Lab, path: Path) -> Result<()> {
    route_through_bridge(lab)?;
    set_mtu(lab, path.mtu)?;
    let internet = lab.internet_namespace();
    let mut rules = String::from(
        "add table inet path\nadd chain inet path forward { type filter hook forward priority 0; }\nadd chain inet path output { type filter hook output priority 0; }\n",
    );
    if path.carrier == Carrier::UdpIpv6 {
        rules.push_str("add rule inet path forward ip protocol udp drop\n");
    }
    if !path.fragments_pass {
        rules.push_str("add rule inet path forward ip frag-off & 0x3fff != 0 drop\nadd rule inet path forward exthdr frag exists drop\n");
    }
    if !path.icmp_passes {
        rules.push_str("add rule inet path output icmp type destination-unreachable drop\nadd rule inet path output icmpv6 type packet-too-big drop\n");
    }
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &internet, "nft", "-f", "-"]);
    run_with_input(&mut command, &rules).context("nft failed (package nftables)")
}

/// Sets the MTU of the router between the nodes.
fn set_mtu(lab: &Lab, mtu: u16) -> Result<()> {
    let line = format!("link set internet mtu {mtu}\n");
    ip::batch(Some(&lab.internet_namespace()), &line)
}

/// Makes the lab's internet a router between the nodes.
fn route_through_bridge(lab: &Lab) -> Result<()> {
    let internet = lab.internet_namespace();
    let line = "addr add 2a0c:5c80::1/64 dev internet nodad\n";
    ip::batch(Some(&internet), line)?;
    for (name, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/internet/send_redirects", "0"),
    ] {
        netns::write_sysctl(&internet, name, value)?;
    }
    for node in lab.nodes() {
        // The bridge itself would forward frames between the nodes; their routes lead through the router instead.
        let port = bridge_port(node.index());
        ip::batch(
            Some(&internet),
            &format!("link set {port} type bridge_slave isolated on\n"),
        )?;
        let peer = 1 - node.index();
        let lines = format!(
            "route add 45.67.1.{}/32 via 45.67.0.1\nroute add {}/128 via 2a0c:5c80::1\n",
            peer + 1,
            ipv6_address(peer)
        );
        ip::batch_ignoring_errors(Some(node.namespace()), &lines);
    }
    Ok(())
}
