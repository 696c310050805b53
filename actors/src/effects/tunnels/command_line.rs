//! Writes OpenVPN's command lines (openvpn(8), version 2.6).
//!
//! All that the design demands of a tunnel's cryptography and rights stands here: nothing that a
//! peer pushes is taken but what the data channel needs, and nothing is executed.

use policies::names::{Endpoint, Prefix, Slot, Transport};
use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

/// MTU of every link and tunnel.
const MTU: &str = "1400";

/// The ciphers, AEAD only.
const CIPHERS: &str = "AES-256-GCM:CHACHA20-POLY1305";

/// Room above our own limit, so that the daemon itself rejects a client and gives a reason.
const SPARE_CLIENTS: u16 = 10;

/// DocumentFiles and settings that all OpenVPN processes of a node share.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The network's CA certificate.
    pub ca: PathBuf,
    /// The node's certificate.
    pub certificate: PathBuf,
    /// The node's key.
    pub key: PathBuf,
    /// The network's `tls-crypt` key.
    pub tls_crypt: PathBuf,
    /// The key that others may use while the network's key is changed; there only then.
    pub tls_crypt_other: PathBuf,
    /// The folder of revoked serial numbers, one empty file each.
    pub revoked: PathBuf,
    /// The tun node to open, where not `/dev/net/tun`.
    pub tun_node: Option<PathBuf>,
    /// Whether sockets can be dual-stack.
    pub ipv6: bool,
}

/// A list of arguments under construction.
struct Args(Vec<OsString>);

impl Args {
    fn add<const N: usize>(&mut self, words: [&str; N]) -> &mut Self {
        self.0.extend(words.map(OsString::from));
        self
    }

    fn path(&mut self, option: &str, path: &PathBuf) -> &mut Self {
        self.0.push(option.into());
        self.0.push(path.into());
        self
    }
}

fn common(identity: &Identity, tls_crypt: &PathBuf, device: &str, management: &PathBuf) -> Args {
    let mut args = Args(Vec::new());
    args.add(["--dev", device, "--dev-type", "tap"]);
    if let Some(node) = &identity.tun_node {
        args.path("--dev-node", node);
    }
    args.path("--ca", &identity.ca)
        .path("--cert", &identity.certificate)
        .path("--key", &identity.key)
        .path("--tls-crypt", tls_crypt)
        .path("--crl-verify", &identity.revoked)
        .add(["dir"])
        .path("--management", management)
        .add(["unix", "--management-client", "--management-hold"])
        .add(["--tls-version-min", "1.3", "--data-ciphers", CIPHERS])
        .add([
            "--script-security",
            "1",
            "--ifconfig-noexec",
            "--route-noexec",
        ])
        .add(["--persist-tun", "--persist-key", "--tun-mtu", MTU])
        // `--keepalive` would double the time-out on a server.
        .add(["--ping", "10"])
        .add(["--verb", "3", "--suppress-timestamps", "--auth-nocache"]);
    args
}

/// The server of one transport: its TAP is `wrnu` or `wrnt`, each client gets a VLAN of its own.
pub(super) fn server(
    identity: &Identity,
    transport: Transport,
    port: u16,
    max_accepted: u16,
    management: &PathBuf,
) -> Vec<OsString> {
    let (device, protocol) = match (transport, identity.ipv6) {
        (Transport::Udp, true) => ("wrnu", "udp6"),
        (Transport::Udp, false) => ("wrnu", "udp4"),
        (Transport::Tcp, true) => ("wrnt", "tcp6-server"),
        (Transport::Tcp, false) => ("wrnt", "tcp4-server"),
    };
    let mut args = common(identity, &identity.tls_crypt, device, management);
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
    if transport == Transport::Udp {
        args.add(["--explicit-exit-notify", "1"]);
    } else {
        args.add(["--tcp-nodelay"]);
    }
    args.0
}

/// One attempt to reach a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    /// The endpoint that is dialled.
    pub(super) endpoint: Endpoint,
    /// With the key that others may use while the network's key is changed.
    pub(super) other_key: bool,
}

/// Builds the command line of the client on `slot` that makes that attempt and accepts only `peer`
/// as its server.
///
/// The process exits on anything that would make it restart, so that the daemon decides.
pub(super) fn client(
    identity: &Identity,
    slot: Slot,
    peer: Prefix,
    attempt: Attempt,
    management: &PathBuf,
) -> Vec<OsString> {
    let Attempt {
        endpoint,
        other_key,
    } = attempt;
    let tls_crypt = if other_key {
        &identity.tls_crypt_other
    } else {
        &identity.tls_crypt
    };
    let protocol = match (endpoint.transport, endpoint.address) {
        (Transport::Udp, SocketAddr::V4(_)) => "udp4",
        (Transport::Udp, SocketAddr::V6(_)) => "udp6",
        (Transport::Tcp, SocketAddr::V4(_)) => "tcp4-client",
        (Transport::Tcp, SocketAddr::V6(_)) => "tcp6-client",
    };
    let address = endpoint.address.ip().to_string();
    let port = endpoint.address.port().to_string();
    let mut args = common(identity, tls_crypt, &slot.to_string(), management);
    args.add([
        "--client", "--nobind", "--remote", &address, &port, protocol,
    ])
    .add([
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
    if endpoint.transport == Transport::Udp {
        // So that a planned end is not taken for a death.
        args.add(["--explicit-exit-notify", "1"]);
    }
    args.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let at = |name: &str| PathBuf::from("/etc/warren").join(name);
        Identity {
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
    fn check(args: &[OsString], demanded: &str) {
        let line: Vec<_> = args.iter().map(|word| word.to_string_lossy()).collect();
        let line = format!(" {} ", line.join(" "));
        assert!(
            line.contains(&format!(" {demanded} ")),
            "{demanded:?} is missing in {line:?}"
        );
    }

    #[test]
    fn a_client_takes_nothing_that_a_peer_pushes_but_what_the_data_channel_needs() {
        let peer = "7/16".parse().unwrap();
        let endpoint = "udp:192.0.2.1:1194".parse().unwrap();
        let attempt = Attempt {
            endpoint,
            other_key: false,
        };
        let args = client(
            &identity(),
            Slot::Dialling(0),
            peer,
            attempt,
            &"/run/m.sock".into(),
        );
        let filters: Vec<_> = args
            .iter()
            .enumerate()
            .filter(|(_, word)| *word == "--pull-filter")
            .map(|(at, _)| (args[at + 1].clone(), args[at + 2].clone()))
            .collect();
        let accepted = ["cipher", "peer-id", "protocol-flags", "key-derivation"];
        let mut expected: Vec<(OsString, OsString)> = accepted
            .iter()
            .map(|what| ("accept".into(), what.into()))
            .collect();
        expected.push(("ignore".into(), "".into()));
        assert_eq!(filters, expected);
    }

    #[test]
    fn both_ends_run_nothing_and_set_nothing() {
        let endpoint = "tcp:[2001:db8::1]:1194".parse().unwrap();
        let peer = "7/16".parse().unwrap();
        let management = "/run/m.sock".into();
        let lines = [
            client(
                &identity(),
                Slot::Dialling(0),
                peer,
                Attempt {
                    endpoint,
                    other_key: true,
                },
                &management,
            ),
            server(&identity(), Transport::Udp, 1194, 30, &management),
            server(&identity(), Transport::Tcp, 1194, 30, &management),
        ];
        for line in lines {
            check(
                &line,
                "--script-security 1 --ifconfig-noexec --route-noexec",
            );
            check(&line, "--tls-version-min 1.3");
            check(&line, "--crl-verify /var/lib/warren/revoked dir");
            check(&line, "--management-client");
        }
    }

    #[test]
    fn a_server_asks_the_daemon_and_gives_each_client_its_own_vlan() {
        let line = server(&identity(), Transport::Udp, 1194, 30, &"/run/m.sock".into());
        check(&line, "--management-client-auth --auth-user-pass-optional");
        check(&line, "--vlan-tagging --vlan-accept tagged");
        check(&line, "--max-clients 40");
        check(&line, "--proto udp6");
    }
}
