//! A member with plain OpenVPN announces the range of another node: its neighbour closes the tunnel before others lose a packet.

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Node, Options, PingSchedule, Pinger, ip, is_skipped_without_root, netns,
    pinger::all_pairs,
    process::Process,
    wait::{pause, wait_until},
};
use policies::names::Prefix;
use serde_json::json;
use std::{
    fs,
    net::{Ipv6Addr, SocketAddrV6, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};
use wire::{babel_packet, overlay};

/// The neighbour of the liar, the node whose range is announced, and the liar.
const NEIGHBOUR: usize = 0;
const VICTIM: usize = 1;
const LIAR: usize = 3;
/// The name of the liar's TAP.
const TAP: &str = "liar";
/// Longest time until the liar is connected to its neighbour.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Time from the first lie after which the tunnel must be closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which the liar tries to come back.
const RETURN_ATTEMPTS: Duration = Duration::from_secs(30);

/// Whose router id a lie has.
#[derive(Clone, Copy)]
enum RouterId {
    Liar,
    Victim,
}

/// Pings that may be lost until the tunnel is closed: those of one pair, 50 ms apart, in half a second. Without the check a pair loses all.
const MAX_LOST: u64 = 10;

#[test]
fn a_node_that_announces_the_range_of_another_loses_its_tunnel_at_once_and_takes_no_packet()
-> Result<()> {
    if is_skipped_without_root("false_routes") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options::with_nodes(4))?;
    for node in &lab.nodes()[..LIAR] {
        node.start()?;
    }
    let pinger = Pinger::start(
        &lab.ping_hosts(0..LIAR)?,
        PingSchedule::Every(Duration::from_millis(50)),
    )?;
    wait_until(Duration::from_secs(30), || {
        pinger.all_answered(Duration::ZERO, all_pairs)
    })
    .context("some pair has had no reply within 30 s")?;
    let liar = Liar::connect(&lab)?;
    let start = pinger.now();
    for _ in 0..3 {
        liar.announce(None)?;
        pause(Duration::from_millis(500));
    }
    ensure!(
        liar.has_tunnel(&lab)?,
        "an honest announcement closed the tunnel"
    );
    wait_until(CLOSE_TIMEOUT, || {
        liar.announce(Some(RouterId::Victim)).ok()?;
        pause(Duration::from_millis(200));
        (!liar.has_tunnel(&lab).ok()?).then_some(())
    })
    .context("the liar still has its tunnel after 5 s")?;
    wait_until(RETURN_ATTEMPTS, || liar.was_rejected())
        .context("the liar was admitted again, or did not try")?;
    liar.announce(Some(RouterId::Liar))?;
    let pings = pinger.summarize(start, pinger.now(), all_pairs);
    assert!(
        pings.lost <= MAX_LOST,
        "{:?}",
        pinger.describe_losses(start, pinger.now(), all_pairs)
    );
    let count = "warren_suspicious_routes_total{kind=\"origin\"}";
    assert_eq!(lab.node(NEIGHBOUR)?.metric(count)?, 1);
    assert_eq!(lab.node(VICTIM)?.metric(count)?, 0);
    Ok(())
}

/// Starts OpenVPN with the certificate of a node, as a client of its neighbour.
fn start_openvpn(node: &Node, log: &Path) -> Result<Process> {
    let state = node.root().join("var/lib/warren");
    let file = |name: &str| state.join(name).display().to_string();
    let remote = format!("45.67.1.{}", NEIGHBOUR + 1);
    let mut arguments: Vec<String> = Vec::new();
    for (option, name) in [
        ("--ca", "ca.crt"),
        ("--cert", "node.crt"),
        ("--key", "node.key"),
        ("--tls-crypt", "tls-crypt.key"),
    ] {
        arguments.extend([option.to_owned(), file(name)]);
    }
    let others = [
        "--client",
        "--dev",
        TAP,
        "--dev-type",
        "tap",
        "--nobind",
        "--remote",
        &remote,
        "1194",
        "udp4",
        "--remote-cert-tls",
        "server",
        "--tls-version-min",
        "1.3",
        "--data-ciphers",
        "AES-256-GCM:CHACHA20-POLY1305",
        "--script-security",
        "1",
        "--ifconfig-noexec",
        "--route-noexec",
        "--persist-tun",
        "--tun-mtu",
        "1400",
        "--ping",
        "2",
        "--ping-restart",
        "6",
    ];
    arguments.extend(others.map(str::to_owned));
    Process::start(node.namespace(), Path::new("openvpn"), &arguments, log)
}

/// A router id and an update with metric 0 (RFC 8966, sections 4.6.7 and 4.6.9).
fn update(network: overlay::Network, of: Prefix, origin: Prefix) -> Vec<u8> {
    let range = network.node_range(of);
    let octets = range.network().octets();
    let id = overlay::router_id(origin);
    let head = [8, 18, 2, 0, range.prefix_len(), 0, 11, 184, 0, 1, 0, 0];
    [&[6, 10, 0, 0], &id[..], &head, &octets[..8]].concat()
}

/// A member that runs OpenVPN, and sends Babel packets of its own.
struct Liar {
    _openvpn: Process,
    log: PathBuf,
    socket: UdpSocket,
    link: u32,
    prefix: Prefix,
    victim: Prefix,
    network: overlay::Network,
}

impl Liar {
    /// Connects the last node of the lab to its neighbour.
    fn connect(lab: &Lab) -> Result<Self> {
        let prefix = |index| -> Result<Prefix> { Ok(lab.node(index)?.prefix()?.parse()?) };
        let (liar, victim) = (prefix(LIAR)?, prefix(VICTIM)?);
        let node = lab.node(LIAR)?;
        let address = overlay::link_local(liar);
        ip::batch(
            Some(node.namespace()),
            &format!(
                "tuntap add dev {TAP} mode tap\nlink set {TAP} addrgenmode none mtu 1400\nlink set {TAP} up\n\
                 addr add {address}/64 dev {TAP} nodad\n"
            ),
        )?;
        let log = lab.folder().join("liar.log");
        let openvpn = start_openvpn(node, &log)?;
        wait_until(CONNECT_TIMEOUT, || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            text.contains("Initialization Sequence Completed")
                .then_some(())
        })
        .with_context(|| format!("the liar is not connected: {}", openvpn.log_tail(5)))?;
        let (socket, link) = netns::run_inside(node.namespace(), || {
            let link = nix::net::if_::if_nametoindex(TAP)?;
            let from = SocketAddrV6::new(address, babel_packet::PORT, 0, link);
            Ok((UdpSocket::bind(from)?, link))
        })?;
        let address = lab.node(NEIGHBOUR)?.identity()?.address;
        let start = Ipv6Addr::from_bits(address.to_bits() >> 80 << 80);
        let network = overlay::Network::new(format!("{start}/48").parse()?);
        let network = network.context("the lab's network is no /48")?;
        Ok(Self {
            _openvpn: openvpn,
            log,
            socket,
            link,
            prefix: liar,
            victim,
            network,
        })
    }

    /// Sends a hello, the cost of sending to the liar, its own range, and the victim's range under one of the router ids.
    fn announce(&self, lie: Option<RouterId>) -> Result<()> {
        let [high, low] = fastrand::u16(..).to_be_bytes();
        let hello = [4, 6, 0, 0, high, low, 1, 144];
        let mut parts = hello.to_vec();
        parts.extend(babel_packet::ihu(96).get(4..).unwrap_or_default());
        parts.extend(update(self.network, self.prefix, self.prefix));
        if let Some(router_id) = lie {
            let origin = match router_id {
                RouterId::Liar => self.prefix,
                RouterId::Victim => self.victim,
            };
            parts.extend(update(self.network, self.victim, origin));
        }
        let [high, low] = u16::try_from(parts.len())?.to_be_bytes();
        let packet = [&[42, 2, high, low], &parts[..]].concat();
        let to = SocketAddrV6::new(babel_packet::GROUP, babel_packet::PORT, 0, self.link);
        self.socket.send_to(&packet, to)?;
        Ok(())
    }

    /// Returns whether the neighbour has a tunnel to the liar that is up.
    fn has_tunnel(&self, lab: &Lab) -> Result<bool> {
        let document: serde_json::Value = lab.node(NEIGHBOUR)?.control_document("/v1/tunnels")?;
        let (liar, up) = (json!(self.prefix.to_string()), json!("up"));
        let tunnels = document
            .get("tunnels")
            .and_then(|tunnels| tunnels.as_array())
            .cloned()
            .unwrap_or_default();
        Ok(tunnels
            .iter()
            .any(|tunnel| tunnel.get("peer") == Some(&liar) && tunnel.get("phase") == Some(&up)))
    }

    fn was_rejected(&self) -> Option<()> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.contains("AUTH_FAILED").then_some(())
    }
}
