//! Writes OpenVPN's command lines (openvpn(8), version 2.6).
//!
//! These options set a tunnel's cryptography and restrict what a peer can do: of the options that a peer
//! pushes, only those that the data channel needs are accepted, and OpenVPN executes no program.

use os::kernel::RECEIVE_BUFFER_BYTES;
use policies::{
    attempts::Attempt,
    names::{Prefix, Slot, Transport},
};
use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

/// MTU of every link and tunnel.
const MTU: &str = "1400";

/// The ciphers of the data channel; all of them are AEAD ciphers.
const CIPHERS: &str = "AES-256-GCM:CHACHA20-POLY1305";

/// Number of clients that OpenVPN accepts above the daemon's own limit, so that it is the daemon that
/// rejects a client, with a reason.
const SPARE_CLIENTS: u16 = 10;

/// Files and settings that all OpenVPN processes of a node share.
#[derive(Clone, Debug)]
pub struct OpenvpnFiles {
    /// The network's CA certificate.
    pub ca: PathBuf,
    /// The node's certificate.
    pub certificate: PathBuf,
    /// The node's key.
    pub key: PathBuf,
    /// The network's `tls-crypt` key.
    pub tls_crypt: PathBuf,
    /// The network's second `tls-crypt` key; the file exists only while the key is replaced.
    pub tls_crypt_other: PathBuf,
    /// The folder with one empty file for each revoked serial number.
    pub revoked: PathBuf,
    /// The tun device node to open; `None` for `/dev/net/tun`.
    pub tun_node: Option<PathBuf>,
    /// Whether the host has IPv6, so that servers can listen on dual-stack sockets.
    pub ipv6: bool,
}

/// A list of arguments under construction.
struct Args(Vec<OsString>);

impl Args {
    fn add<const N: usize>(&mut self, arguments: [&str; N]) -> &mut Self {
        self.0.extend(arguments.map(OsString::from));
        self
    }

    fn add_path(&mut self, option: &str, path: &PathBuf) -> &mut Self {
        self.0.push(option.into());
        self.0.push(path.into());
        self
    }
}

fn common_args(
    files: &OpenvpnFiles,
    tls_crypt: &PathBuf,
    device: &str,
    management: &PathBuf,
) -> Args {
    let mut args = Args(Vec::new());
    args.add(["--dev", device, "--dev-type", "tap"]);
    if let Some(node) = &files.tun_node {
        args.add_path("--dev-node", node);
    }
    args.add_path("--ca", &files.ca)
        .add_path("--cert", &files.certificate)
        .add_path("--key", &files.key)
        .add_path("--tls-crypt", tls_crypt)
        .add_path("--crl-verify", &files.revoked)
        .add(["dir"])
        .add_path("--management", management)
        .add(["unix", "--management-client", "--management-hold"])
        .add(["--tls-version-min", "1.3", "--data-ciphers", CIPHERS])
        .add([
            "--script-security",
            "1",
            "--ifconfig-noexec",
            "--route-noexec",
        ])
        .add(["--persist-tun", "--persist-key", "--tun-mtu", MTU])
        // `--keepalive` is not used, since it doubles the timeout on a server.
        .add(["--ping", "10"])
        .add(["--verb", "3", "--suppress-timestamps", "--auth-nocache"]);
    args
}

/// Builds the command line of the server of one transport. Its TAP is `wrnu` or `wrnt`, and each client gets
/// a VLAN of its own.
pub(super) fn server_args(
    files: &OpenvpnFiles,
    transport: Transport,
    port: u16,
    max_accepted: u16,
    management: &PathBuf,
) -> Vec<OsString> {
    let (device, protocol) = match (transport, files.ipv6) {
        (Transport::Udp, true) => ("wrnu", "udp6"),
        (Transport::Udp, false) => ("wrnu", "udp4"),
        (Transport::Tcp, true) => ("wrnt", "tcp6-server"),
        (Transport::Tcp, false) => ("wrnt", "tcp4-server"),
    };
    let mut args = common_args(files, &files.tls_crypt, device, management);
    args.add([
        "--mode",
        "server",
        "--tls-server",
        "--dh",
        "none",
        "--proto",
        protocol,
    ])
    .add([
        "--port",
        &port.to_string(),
        "--ping-restart",
        "60",
        "--remote-cert-tls",
        "client",
    ])
    // The daemon decides each CONNECT and REAUTH; clients have no password.
    .add(["--management-client-auth", "--auth-user-pass-optional"])
    .add(["--vlan-tagging", "--vlan-accept", "tagged"])
    .add([
        "--max-clients",
        &max_accepted.saturating_add(SPARE_CLIENTS).to_string(),
    ]);
    // No `--explicit-exit-notify`: with it a server that is stopped runs on for two seconds, in which it admits
    // clients. The daemon notifies the clients itself before it stops a server.
    match transport {
        // Answers leave from the address that the client dialled, where the host has several.
        Transport::Udp => args
            .add(["--rcvbuf", &RECEIVE_BUFFER_BYTES.to_string()])
            .add(["--multihome"]),
        Transport::Tcp => args.add(["--tcp-nodelay"]),
    };
    args.0
}

/// Builds the command line of the client on `slot` that makes this attempt, and accepts no server but `peer`.
///
/// The process exits whenever OpenVPN would reconnect by itself, so that the daemon decides about that.
pub(super) fn client_args(
    files: &OpenvpnFiles,
    slot: Slot,
    peer: Prefix,
    attempt: Attempt,
    management: &PathBuf,
) -> Vec<OsString> {
    let Attempt {
        endpoint,
        uses_other_key,
        local_port,
    } = attempt;
    let tls_crypt = if uses_other_key {
        &files.tls_crypt_other
    } else {
        &files.tls_crypt
    };
    let protocol = match (endpoint.transport, endpoint.address) {
        (Transport::Udp, SocketAddr::V4(_)) => "udp4",
        (Transport::Udp, SocketAddr::V6(_)) => "udp6",
        (Transport::Tcp, SocketAddr::V4(_)) => "tcp4-client",
        (Transport::Tcp, SocketAddr::V6(_)) => "tcp6-client",
    };
    let address = endpoint.address.ip().to_string();
    let port = endpoint.address.port().to_string();
    let mut args = common_args(files, tls_crypt, &slot.to_string(), management);
    args.add(["--client", "--remote", &address, &port, protocol]);
    match local_port {
        Some(port) => args.add(["--lport", &port.to_string()]),
        None => args.add(["--nobind"]),
    };
    args.add([
        "--verify-x509-name",
        &peer.to_string(),
        "name",
        "--remote-cert-tls",
        "server",
    ])
    .add(["--ping-exit", "60", "--remap-usr1", "SIGTERM", "--tls-exit"])
    .add([
        "--connect-retry-max",
        "1",
        "--connect-timeout",
        "5",
        "--resolv-retry",
        "0",
    ])
    .add(["--tls-timeout", "1", "--hand-window", "10"])
    .add([
        "--pull-filter",
        "accept",
        "cipher",
        "--pull-filter",
        "accept",
        "peer-id",
    ])
    .add(["--pull-filter", "accept", "protocol-flags"])
    .add(["--pull-filter", "accept", "key-derivation"])
    .add(["--pull-filter", "ignore", ""]);
    match endpoint.transport {
        // The peer's server then knows that this client exited, and does not take it for dead.
        Transport::Udp => args
            .add(["--explicit-exit-notify", "1"])
            .add(["--rcvbuf", &RECEIVE_BUFFER_BYTES.to_string()]),
        // `--tcp-nodelay` works on servers only: what they push for it is ignored like all other options.
        Transport::Tcp => args.add(["--socket-flags", "TCP_NODELAY"]),
    };
    args.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> OpenvpnFiles {
        let at = |name: &str| PathBuf::from("/var/lib/warren").join(name);
        OpenvpnFiles {
            ca: at("ca.crt"),
            certificate: at("node.crt"),
            key: at("node.key"),
            tls_crypt: at("tls-crypt.key"),
            tls_crypt_other: at("tls-crypt-other.key"),
            revoked: "/var/lib/warren/revoked".into(),
            tun_node: None,
            ipv6: true,
        }
    }

    #[track_caller]
    fn check_contains(args: &[OsString], options: &str) {
        let line: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        let line = format!(" {} ", line.join(" "));
        assert!(
            line.contains(&format!(" {options} ")),
            "{options:?} is missing in {line:?}"
        );
    }

    #[test]
    fn a_client_accepts_only_those_pushed_options_that_the_data_channel_needs() {
        let peer = "7/16".parse().unwrap();
        let endpoint = "udp:192.0.2.1:1194".parse().unwrap();
        let attempt = Attempt {
            endpoint,
            uses_other_key: false,
            local_port: None,
        };
        let args = client_args(
            &files(),
            Slot::Dialling(0),
            peer,
            attempt,
            &"/run/m.sock".into(),
        );
        let filters: Vec<_> = args
            .iter()
            .enumerate()
            .filter(|(_, arg)| *arg == "--pull-filter")
            .map(|(at, _)| (args[at + 1].clone(), args[at + 2].clone()))
            .collect();
        let accepted = ["cipher", "peer-id", "protocol-flags", "key-derivation"];
        let mut expected: Vec<(OsString, OsString)> = accepted
            .iter()
            .map(|option| ("accept".into(), option.into()))
            .collect();
        expected.push(("ignore".into(), "".into()));
        assert_eq!(filters, expected);
    }

    #[test]
    fn neither_client_nor_server_runs_programs_or_changes_addresses_and_routes() {
        let endpoint = "tcp:[2001:db8::1]:1194".parse().unwrap();
        let peer = "7/16".parse().unwrap();
        let management = "/run/m.sock".into();
        let lines = [
            client_args(
                &files(),
                Slot::Dialling(0),
                peer,
                Attempt {
                    endpoint,
                    uses_other_key: true,
                    local_port: None,
                },
                &management,
            ),
            server_args(&files(), Transport::Udp, 1194, 30, &management),
            server_args(&files(), Transport::Tcp, 1194, 30, &management),
        ];
        for line in lines {
            check_contains(
                &line,
                "--script-security 1 --ifconfig-noexec --route-noexec",
            );
            check_contains(&line, "--tls-version-min 1.3");
            check_contains(&line, "--crl-verify /var/lib/warren/revoked dir");
            check_contains(&line, "--management-client");
        }
    }

    #[test]
    fn both_ends_of_a_tcp_tunnel_send_each_packet_without_delay() {
        let client = client_args(
            &files(),
            Slot::Dialling(0),
            "7/16".parse().unwrap(),
            Attempt {
                endpoint: "tcp:192.0.2.1:1194".parse().unwrap(),
                uses_other_key: false,
                local_port: None,
            },
            &"/run/m.sock".into(),
        );
        check_contains(&client, "--socket-flags TCP_NODELAY");
        let server = server_args(&files(), Transport::Tcp, 1194, 30, &"/run/m.sock".into());
        check_contains(&server, "--tcp-nodelay");
    }

    #[test]
    fn a_path_through_nats_is_dialled_from_the_port_that_opened_it() {
        let line = |local_port| {
            client_args(
                &files(),
                Slot::Dialling(0),
                "7/16".parse().unwrap(),
                Attempt {
                    endpoint: "udp:192.0.2.1:1194".parse().unwrap(),
                    uses_other_key: false,
                    local_port,
                },
                &"/run/m.sock".into(),
            )
        };
        check_contains(&line(Some(40_000)), "--lport 40000");
        check_contains(&line(None), "--nobind");
        let bound = line(Some(40_000));
        assert!(!bound.iter().any(|option| option == "--nobind"));
    }

    #[test]
    fn a_udp_server_answers_from_the_address_that_was_dialled() {
        let line = server_args(&files(), Transport::Udp, 1194, 30, &"/run/m.sock".into());
        check_contains(&line, "--multihome");
    }

    #[test]
    fn both_ends_of_a_udp_tunnel_receive_into_a_large_buffer() {
        let client = client_args(
            &files(),
            Slot::Dialling(0),
            "7/16".parse().unwrap(),
            Attempt {
                endpoint: "udp:192.0.2.1:1194".parse().unwrap(),
                uses_other_key: false,
                local_port: None,
            },
            &"/run/m.sock".into(),
        );
        let server = server_args(&files(), Transport::Udp, 1194, 30, &"/run/m.sock".into());
        for line in [client, server] {
            check_contains(&line, "--rcvbuf 1048576");
        }
    }

    #[test]
    fn a_server_lets_the_daemon_admit_clients_and_gives_each_its_own_vlan() {
        let line = server_args(&files(), Transport::Udp, 1194, 30, &"/run/m.sock".into());
        check_contains(&line, "--management-client-auth --auth-user-pass-optional");
        check_contains(&line, "--vlan-tagging --vlan-accept tagged");
        check_contains(&line, "--max-clients 40");
        check_contains(&line, "--proto udp6");
        assert!(
            !line.iter().any(|option| option == "--explicit-exit-notify"),
            "a server that is stopped has to exit at once"
        );
    }
}
