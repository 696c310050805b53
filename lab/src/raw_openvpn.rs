//! Tunnels of plain OpenVPN between the nodes' namespaces, beside warren's, to compare with.
//!
//! One server carries them all on one TAP, as warren's does, with the nodes' own certificates, the ciphers and MTU that warren uses, and
//! otherwise OpenVPN's defaults. A ping each half second passes each tunnel, as Babel's hellos pass warren's: OpenVPN 2.6 runs its
//! TLS code for each packet as long as a tunnel is never silent for two seconds.

use crate::{Lab, bulk_transfer::End, ip, process::Process, wait::wait_until};
use anyhow::{Context, Result};
use std::{net::Ipv6Addr, path::Path, time::Duration};

/// Port of the server; warren's servers have other ports.
const PORT: &str = "11940";
/// The TAP of the server, and of each client.
const TAP: &str = "plain";
/// Longest wait until a tunnel is up.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// One tunnel; its processes are killed when it is dropped.
#[derive(Debug)]
struct RawTunnel {
    client: Process,
    /// The ping that keeps the tunnel from being silent.
    _ping: Process,
}

/// A path from node 0 to the last node: each node but the second dials the second one.
#[derive(Debug)]
pub struct RawPath<'lab> {
    lab: &'lab Lab,
    server: Process,
    tunnels: Vec<RawTunnel>,
}

impl<'lab> RawPath<'lab> {
    /// Starts the tunnels between two or three nodes, and waits until a ping passes each. `is_tcp` chooses the transport.
    ///
    /// # Errors
    /// Fails if OpenVPN cannot be started, or no ping passes within 15 s.
    pub fn start(lab: &'lab Lab, is_tcp: bool) -> Result<Self> {
        let nodes = lab.nodes().len();
        let clients = || (0..nodes).filter(|index| *index != SERVER);
        for index in 0..nodes {
            let namespace = lab.node(index)?.namespace();
            // The link stays from one path to the next.
            ip::batch_ignoring_errors(Some(namespace), &format!("tuntap add dev {TAP} mode tap\n"));
            let mut lines = format!("link set {TAP} mtu 1400 up\n");
            for client in clients().filter(|client| [*client, SERVER].contains(&index)) {
                let address = address(client, index);
                lines += &format!("addr replace {address}/64 dev {TAP} nodad\n");
            }
            for other in clients().filter(|other| ![SERVER, *other].contains(&index)) {
                let (target, gateway) = (address(other, other), address(index, SERVER));
                lines += &format!("route replace {target}/128 via {gateway}\n");
            }
            ip::batch(Some(namespace), &lines)?;
        }
        let protocol = if is_tcp { "tcp6-server" } else { "udp6" };
        let mut server = vec!["--mode", "server", "--tls-server", "--dh", "none"];
        server.extend(["--proto", protocol, "--port", PORT]);
        if is_tcp {
            // It is pushed to the client.
            server.push("--tcp-nodelay");
        }
        let server = run(lab, SERVER, &server)?;
        let tunnels = clients().map(|client| RawTunnel::start(lab, is_tcp, client));
        Ok(Self {
            lab,
            server,
            tunnels: tunnels.collect::<Result<_>>()?,
        })
    }

    /// The namespace and the address of the first node and of the last one.
    ///
    /// # Errors
    /// Fails if there is no such node.
    pub fn ends(&self) -> Result<[End<'lab>; 2]> {
        let last = self.lab.nodes().len() - 1;
        let end = |index: usize, client: usize| {
            Ok::<_, anyhow::Error>((self.lab.node(index)?.namespace(), address(client, index)))
        };
        // The server's address is that in the first tunnel.
        Ok([
            end(0, 0)?,
            end(last, if last == SERVER { 0 } else { last })?,
        ])
    }

    /// The ids of all OpenVPN processes.
    pub fn pids(&self) -> Vec<u32> {
        let clients = self.tunnels.iter().map(|tunnel| tunnel.client.pid());
        clients.chain([self.server.pid()]).collect()
    }
}

/// The node that is dialled by the others.
const SERVER: usize = 1;

/// The address of a node inside the tunnel that this client has dialled.
fn address(client: usize, node: usize) -> Ipv6Addr {
    let number = |index: usize| u16::try_from(index).unwrap_or(u16::MAX);
    Ipv6Addr::new(0xfd98, number(client), 0, 0, 0, 0, 0, number(node) + 1)
}

impl RawTunnel {
    fn start(lab: &Lab, is_tcp: bool, index: usize) -> Result<Self> {
        let protocol = if is_tcp { "tcp4-client" } else { "udp4" };
        let remote = ["--remote", "45.67.1.2", PORT, protocol];
        let client = run(
            lab,
            index,
            &[&["--client", "--nobind"], &remote[..]].concat(),
        )?;
        let node = lab.node(index)?;
        let target = address(index, SERVER).to_string();
        let ping = ["-6", "-c1", "-W1", &target];
        wait_until(START_TIMEOUT, || node.command("ping", &ping).ok())
            .context("no ping passes the tunnel of plain OpenVPN")?;
        let ping = ["-6", "-q", "-i0.5", &target];
        let log = node.root().join("plain-ping.log");
        Ok(Self {
            client,
            _ping: Process::start(node.namespace(), Path::new("ping"), ping, &log)?,
        })
    }
}

fn run(lab: &Lab, index: usize, arguments: &[&str]) -> Result<Process> {
    let node = lab.node(index)?;
    let state = node.root().join("var/lib/warren");
    let file = |name: &str| state.join(name).display().to_string();
    let files = ["ca.crt", "node.crt", "node.key", "tls-crypt.key"].map(file);
    let options = ["--ca", "--cert", "--key", "--tls-crypt"];
    let mut all: Vec<&str> = Vec::new();
    for (option, path) in options.into_iter().zip(&files) {
        all.extend([option, path.as_str()]);
    }
    all.extend(["--dev", TAP, "--dev-type", "tap", "--tun-mtu", "1400"]);
    all.extend(["--tls-version-min", "1.3"]);
    all.extend(["--data-ciphers", "AES-256-GCM:CHACHA20-POLY1305"]);
    all.extend(arguments);
    let log = node.root().join("plain-openvpn.log");
    Process::start(node.namespace(), Path::new("openvpn"), all, &log)
}
