//! A tunnel of plain OpenVPN between two nodes' namespaces, beside warren's, to compare with.
//!
//! One client and one server on TAPs, with the nodes' own certificates, the ciphers and MTU that warren uses, and otherwise
//! OpenVPN's defaults.

use crate::{Lab, bulk_transfer::End, ip, process::Process, wait::wait_until};
use anyhow::{Context, Result};
use std::{net::Ipv6Addr, path::Path, time::Duration};

/// Port of the server; warren's servers have other ports.
const PORT: &str = "11940";
/// Name of the TAPs, which is no slot's.
const TAP: &str = "plain0";
/// Addresses of client and server inside the tunnel.
const ADDRESSES: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd98, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd98, 0, 0, 0, 0, 0, 0, 2),
];
/// Longest wait until the tunnel is up.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// The tunnel; both processes are killed when it is dropped.
#[derive(Debug)]
pub struct RawTunnel<'lab> {
    lab: &'lab Lab,
    /// The server, and then the client.
    _processes: [Process; 2],
}

impl<'lab> RawTunnel<'lab> {
    /// Starts a server at node 1 and a client at node 0, and waits until a ping passes. `is_tcp` chooses the transport.
    ///
    /// # Errors
    /// Fails if OpenVPN cannot be started, or no ping passes within 15 s.
    pub fn start(lab: &'lab Lab, is_tcp: bool) -> Result<Self> {
        for (index, address) in ADDRESSES.iter().enumerate() {
            let namespace = lab.node(index)?.namespace();
            // The link stays from one tunnel to the next.
            ip::batch_ignoring_errors(Some(namespace), &format!("tuntap add dev {TAP} mode tap\n"));
            let lines =
                format!("link set {TAP} mtu 1400 up\naddr replace {address}/64 dev {TAP} nodad\n");
            ip::batch(Some(namespace), &lines)?;
        }
        let server_protocol = if is_tcp { "tcp6-server" } else { "udp6" };
        let mut server = vec!["--mode", "server", "--tls-server", "--dh", "none"];
        server.extend(["--proto", server_protocol, "--port", PORT]);
        if is_tcp {
            // It is pushed to the client.
            server.push("--tcp-nodelay");
        }
        let client_protocol = if is_tcp { "tcp4-client" } else { "udp4" };
        let target = "45.67.1.2";
        let client = vec![
            "--client",
            "--nobind",
            "--remote",
            target,
            PORT,
            client_protocol,
        ];
        let processes = [run(lab, 1, &server)?, run(lab, 0, &client)?];
        let node = lab.node(0)?;
        let [_, address] = ADDRESSES.map(|address| address.to_string());
        let ping = ["-6", "-c1", "-W1", &address];
        wait_until(START_TIMEOUT, || node.command("ping", &ping).ok())
            .context("no ping passes the tunnel of plain OpenVPN")?;
        Ok(Self {
            lab,
            _processes: processes,
        })
    }

    /// The namespace and the address of the client (0) or the server (1).
    ///
    /// # Errors
    /// Fails if there is no such node.
    pub fn end(&self, index: usize) -> Result<End<'lab>> {
        let address = ADDRESSES.get(index).context("the tunnel has two ends")?;
        Ok((self.lab.node(index)?.namespace(), *address))
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
