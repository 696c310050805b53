//! A member that runs OpenVPN with its certificate, and sends Babel packets of its own instead of babeld's.

use crate::{Lab, Node, ip, netns, process::Process, wait::wait_until};
use anyhow::{Context, Result};
use ipnet::IpNet;
use policies::names::Prefix;
use std::{
    fs,
    net::{Ipv6Addr, SocketAddrV6, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};
use wire::{babel_packet, overlay};

/// The name of the liar's TAP.
const TAP: &str = "liar";
/// Longest time until the liar is connected to its neighbour.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of announcements in one packet, so that it fits into the MTU of a slot.
const MAX_BODY_BYTES: usize = 1100;
/// The link-local next hop that IPv4 announcements name.
const IPV4_NEXT_HOP: [u8; 4] = [169, 254, 1, 1];

/// A route that is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The destination of the route.
    pub range: IpNet,
    /// The router id of its origin.
    pub router_id: [u8; 8],
    /// The metric (RFC 8966); 65535 retracts the route.
    pub metric: u16,
    /// The sequence number of the origin.
    pub seqno: u16,
}

impl Announcement {
    /// The announcement of its range by a node itself.
    pub fn own(network: overlay::Network, node: Prefix) -> Self {
        Self {
            range: network.node_range(node).into(),
            router_id: overlay::router_id(node),
            metric: 0,
            seqno: 1,
        }
    }

    /// A router id and an update (RFC 8966, sections 4.6.7 to 4.6.9).
    fn encode(&self) -> Vec<u8> {
        let (encoding, octets) = match self.range {
            IpNet::V4(range) => (1, range.network().octets().to_vec()),
            IpNet::V6(range) => (2, range.network().octets().to_vec()),
        };
        let bits = self.range.prefix_len();
        let used = usize::from(bits.div_ceil(8));
        let mut tlvs = [&[6, 10, 0, 0], &self.router_id[..]].concat();
        if encoding == 1 {
            tlvs.extend([&[7, 6, 1, 0], &IPV4_NEXT_HOP[..]].concat());
        }
        let length = bits.div_ceil(8).saturating_add(10);
        // No flags, nothing omitted; the interval is 30 s.
        tlvs.extend([8, length, encoding, 0, bits, 0, 11, 184]);
        tlvs.extend(self.seqno.to_be_bytes());
        tlvs.extend(self.metric.to_be_bytes());
        tlvs.extend(octets.iter().take(used));
        tlvs
    }
}

/// Packets with a hello, the cost of sending to us, and these announcements.
pub fn packets(announcements: &[Announcement]) -> Vec<Vec<u8>> {
    let [high, low] = fastrand::u16(..).to_be_bytes();
    let mut bodies = vec![vec![4, 6, 0, 0, high, low, 1, 144]];
    for announcement in announcements {
        let tlvs = announcement.encode();
        match bodies.last_mut() {
            Some(body) if body.len() + tlvs.len() <= MAX_BODY_BYTES => body.extend(tlvs),
            Some(_) | None => bodies.push(tlvs),
        }
    }
    if let Some(first) = bodies.first_mut() {
        first.extend(babel_packet::ihu(96).get(4..).unwrap_or_default());
    }
    bodies.into_iter().map(with_header).collect()
}

/// Adds the header of a Babel packet (RFC 8966, section 4.2).
pub fn with_header(body: Vec<u8>) -> Vec<u8> {
    let [high, low] = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[42, 2, high, low], &body[..]].concat()
}

/// The range of the lab's network.
///
/// # Errors
/// Fails if no node has joined.
pub fn network_of(lab: &Lab) -> Result<overlay::Network> {
    let address = lab.node(0)?.identity()?.address;
    let start = Ipv6Addr::from_bits(address.to_bits() >> 80 << 80);
    let network = overlay::Network::new(format!("{start}/48").parse()?);
    network.context("the lab's network is no /48")
}

/// A member with a tunnel to one neighbour. Dropping it ends its OpenVPN.
#[derive(Debug)]
pub struct Liar {
    openvpn: Process,
    log: PathBuf,
    socket: UdpSocket,
    link: u32,
    prefix: Prefix,
    network: overlay::Network,
}

impl Liar {
    /// The name of its TAP.
    pub(super) const LINK: &str = TAP;

    /// Connects a node that has joined and does not run to the UDP server of its neighbour.
    ///
    /// # Errors
    /// Fails if OpenVPN cannot be started, or is not connected within 20 s.
    pub fn connect(lab: &Lab, liar: usize, neighbour: usize) -> Result<Self> {
        let node = lab.node(liar)?;
        let prefix: Prefix = node.prefix()?.parse()?;
        let address = overlay::link_local(prefix);
        ip::batch(
            Some(node.namespace()),
            &format!(
                "tuntap add dev {TAP} mode tap\nlink set {TAP} addrgenmode none mtu 1400\nlink set {TAP} up\n\
                 addr add {address}/64 dev {TAP} nodad\n"
            ),
        )?;
        let log = node.root().join("liar.log");
        let openvpn = start_openvpn(node, neighbour, &log)?;
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
        Ok(Self {
            openvpn,
            log,
            socket,
            link,
            prefix,
            network: network_of(lab)?,
        })
    }

    /// The liar's prefix.
    pub fn prefix(&self) -> Prefix {
        self.prefix
    }

    /// Sends a hello, the liar's own range, and these announcements.
    ///
    /// # Errors
    /// Fails if the TAP is gone.
    pub fn announce(&self, announcements: &[Announcement]) -> Result<()> {
        let own = Announcement::own(self.network, self.prefix);
        let all = [&[own], announcements].concat();
        packets(&all)
            .iter()
            .try_for_each(|packet| self.send(packet))
    }

    /// Sends a packet to Babel's multicast group.
    ///
    /// # Errors
    /// Fails if the TAP is gone.
    pub fn send(&self, packet: &[u8]) -> Result<()> {
        let to = SocketAddrV6::new(babel_packet::GROUP, babel_packet::PORT, 0, self.link);
        self.socket.send_to(packet, to)?;
        Ok(())
    }

    /// Whether the neighbour has rejected the liar since it was connected.
    pub fn was_rejected(&self) -> bool {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.contains("AUTH_FAILED")
    }

    /// The last lines of its OpenVPN's log.
    pub fn log_tail(&self) -> String {
        self.openvpn.log_tail(5)
    }
}

/// The options by which OpenVPN uses a node's certificate and keys.
pub(super) fn credentials(node: &Node) -> Vec<String> {
    let state = node.root().join("var/lib/warren");
    let options = [
        ("--ca", "ca.crt"),
        ("--cert", "node.crt"),
        ("--key", "node.key"),
        ("--tls-crypt", "tls-crypt.key"),
    ];
    let words = options.map(|(option, name)| {
        let path = state.join(name).display().to_string();
        [option.to_owned(), path]
    });
    words.concat()
}

/// Returns the arguments of OpenVPN as a client of the server at this IPv4 address, with the certificate of a node.
pub(super) fn client_arguments(node: &Node, remote: &str, device: &str) -> Vec<String> {
    let options = [
        "--client",
        "--dev",
        device,
        "--dev-type",
        "tap",
        "--nobind",
        "--remote",
        remote,
        "1194",
        "udp4",
    ];
    let mut arguments = credentials(node);
    arguments.extend(options.map(str::to_owned));
    arguments
}

/// Starts OpenVPN with the certificate of a node, as a client of its neighbour.
fn start_openvpn(node: &Node, neighbour: usize, log: &Path) -> Result<Process> {
    let remote = format!("45.67.1.{}", neighbour + 1);
    let mut arguments = client_arguments(node, &remote, TAP);
    let others = [
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

#[cfg(test)]
mod tests {
    use super::*;
    use wire::babel_updates::announcements;

    #[test]
    fn announcements_are_encoded_as_others_read_them_and_split_over_packets() {
        let routes: Vec<_> = (0..100u16)
            .map(|number| Announcement {
                range: format!("fd00:1:2:{number:x}::/64").parse().unwrap(),
                router_id: [2, 0x58, 0, 16, 0, 0, 0, 7],
                metric: number,
                seqno: 1,
            })
            .chain([Announcement {
                range: "10.1.2.0/24".parse().unwrap(),
                router_id: [1; 8],
                metric: 3,
                seqno: 2,
            }])
            .collect();
        let packets = packets(&routes);
        assert!(packets.len() > 1 && packets.iter().all(|packet| packet.len() < 1300));
        let read: Vec<_> = packets
            .iter()
            .flat_map(|packet| announcements(packet))
            .map(|one| (one.range, one.router_id, one.metric))
            .collect();
        let expected: Vec<_> = routes
            .iter()
            .map(|one| (one.range, Some(one.router_id), one.metric))
            .collect();
        assert_eq!(read, expected);
    }
}
