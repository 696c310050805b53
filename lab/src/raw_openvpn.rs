//! Tunnels of plain OpenVPN between the nodes' namespaces, beside warren's, to compare with.
//!
//! Each is one client and one server on TAPs, with the nodes' own certificates, the ciphers and MTU that warren uses, and otherwise
//! OpenVPN's defaults.

use crate::{Lab, bulk_transfer::End, ip, process::Process, wait::wait_until};
use anyhow::{Context, Result};
use std::{net::Ipv6Addr, path::Path, time::Duration};

/// Port of the first tunnel's server; warren's servers have other ports.
const FIRST_PORT: u16 = 11940;
/// Longest wait until a tunnel is up.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// One tunnel; both processes are killed when it is dropped.
#[derive(Debug)]
struct RawTunnel {
    /// The client, and then the server.
    processes: [Process; 2],
}

/// A path from node 0 to the last node: each node but the second dials the second one.
#[derive(Debug)]
pub struct RawPath<'lab> {
    lab: &'lab Lab,
    tunnels: Vec<RawTunnel>,
}

impl<'lab> RawPath<'lab> {
    /// Starts the tunnels between two or three nodes, and waits until a ping passes each. `is_tcp` chooses the transport.
    ///
    /// # Errors
    /// Fails if OpenVPN cannot be started, or no ping passes within 15 s.
    pub fn start(lab: &'lab Lab, is_tcp: bool) -> Result<Self> {
        let mut tunnels = Vec::new();
        for client in (0..lab.nodes().len()).filter(|index| *index != SERVER) {
            tunnels.push(RawTunnel::start(lab, is_tcp, client)?);
            for other in (0..lab.nodes().len()).filter(|other| ![SERVER, client].contains(other)) {
                let line = format!(
                    "route replace {}/128 via {}\n",
                    address(other, other),
                    address(client, SERVER)
                );
                ip::batch(Some(lab.node(client)?.namespace()), &line)?;
            }
        }
        Ok(Self { lab, tunnels })
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
        // The server's address is that in its only tunnel.
        Ok([
            end(0, 0)?,
            end(last, if last == SERVER { 0 } else { last })?,
        ])
    }

    /// The ids of all processes.
    pub fn pids(&self) -> Vec<u32> {
        let processes = self.tunnels.iter().flat_map(|tunnel| &tunnel.processes);
        processes.map(Process::pid).collect()
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
    fn start(lab: &Lab, is_tcp: bool, client_index: usize) -> Result<Self> {
        let tap = format!("plain{client_index}");
        let port = (FIRST_PORT + u16::try_from(client_index)?).to_string();
        for index in [client_index, SERVER] {
            let namespace = lab.node(index)?.namespace();
            // The link stays from one tunnel to the next.
            ip::batch_ignoring_errors(Some(namespace), &format!("tuntap add dev {tap} mode tap\n"));
            let address = address(client_index, index);
            let lines =
                format!("link set {tap} mtu 1400 up\naddr replace {address}/64 dev {tap} nodad\n");
            ip::batch(Some(namespace), &lines)?;
        }
        let server_protocol = if is_tcp { "tcp6-server" } else { "udp6" };
        let mut server = vec!["--mode", "server", "--tls-server", "--dh", "none"];
        server.extend(["--proto", server_protocol, "--port", &port, "--dev", &tap]);
        if is_tcp {
            // It is pushed to the client.
            server.push("--tcp-nodelay");
        }
        let client_protocol = if is_tcp { "tcp4-client" } else { "udp4" };
        let target = "45.67.1.2";
        let mut client = vec!["--client", "--nobind", "--dev", &tap];
        client.extend(["--remote", target, &port, client_protocol]);
        let server = run(lab, SERVER, &server)?;
        let processes = [run(lab, client_index, &client)?, server];
        let node = lab.node(client_index)?;
        let target = address(client_index, SERVER).to_string();
        let ping = ["-6", "-c1", "-W1", &target];
        wait_until(START_TIMEOUT, || node.command("ping", &ping).ok())
            .context("no ping passes the tunnel of plain OpenVPN")?;
        Ok(Self { processes })
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
    all.extend(["--dev-type", "tap", "--tun-mtu", "1400"]);
    all.extend(["--tls-version-min", "1.3"]);
    all.extend(["--data-ciphers", "AES-256-GCM:CHACHA20-POLY1305"]);
    all.extend(arguments);
    let log = node.root().join("plain-openvpn.log");
    Process::start(node.namespace(), Path::new("openvpn"), all, &log)
}
