//! Makes each call of the table as each kind of caller, and renews certificates of each age.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use rcgen::{CertificateParams, DnType, KeyPair};
use registry::http::{
    admin::{self, NodeList, RevokeRequest, RevokedNode},
    calls::{AllowedCaller, Call},
};
use std::{
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream, process::CommandExt},
};
use support::{GRACE_S, Identity, LIFE_S, Registry, key, request};
use wire::registry::{Problem, Renewal, Renewed, VERSION};

/// Who may make which call; `warren-lab faults` compares a registry process with the same table.
const CALLERS: &str = include_str!("authority/callers.txt");

/// Which renewals are accepted; `warren-lab faults` compares a registry process with the same table.
const RENEWALS: &str = include_str!("authority/renewals.txt");

/// Returns the cells of a table, as row, column and value.
fn cells(table: &'static str) -> Vec<[&'static str; 3]> {
    let mut lines = table.lines().filter(|line| !line.starts_with('#'));
    let columns: Vec<_> = lines.next().unwrap().split_whitespace().skip(1).collect();
    let rows = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.flat_map(|row| {
        let cells = columns.iter().zip(row.iter().skip(1));
        let cells = cells.map(|(column, value)| [row[0], *column, *value]);
        cells.collect::<Vec<_>>()
    })
    .collect()
}

struct Callers {
    registry: Registry,
    other: Registry,
    member: Identity,
    expired: Identity,
    expired_before_grace: Identity,
    revoked: Identity,
    member_of_other: Identity,
}

impl Callers {
    fn new() -> Self {
        let (registry, other) = (Registry::start(), Registry::start());
        let expired_before_grace = registry.member();
        registry.pass(GRACE_S);
        let expired = registry.member();
        registry.pass(LIFE_S + 60);
        let (member, revoked) = (registry.member(), registry.member());
        let ask = RevokeRequest {
            node: revoked.claimed.prefix.to_string(),
        };
        let _: RevokedNode = registry.order("POST", "/v1/revocations", &ask);
        other.pass(GRACE_S + LIFE_S + 60);
        let member_of_other = other.member();
        Self {
            registry,
            other,
            member,
            expired,
            expired_before_grace,
            revoked,
            member_of_other,
        }
    }

    /// Makes a call with an empty document and returns its status; `None` if TLS rejects the caller.
    fn status(&self, call: Call, caller: &str) -> Option<u16> {
        let (method, path) = call.route();
        let forged = "x-forwarded-for: 127.0.0.1\r\nforwarded: for=127.0.0.1\r\nx-real-ip: ::1\r\nx-ssl-client-verify: SUCCESS\r\n";
        let (identity, headers) = match caller {
            "nobody" => (None, ""),
            "forged-proxy-headers" => (None, forged),
            "member" => (Some(&self.member), ""),
            "expired" => (Some(&self.expired), ""),
            "expired-before-grace" => (Some(&self.expired_before_grace), ""),
            "revoked" => (Some(&self.revoked), ""),
            "member-of-other" => (Some(&self.member_of_other), ""),
            other => unreachable!("{other}"),
        };
        self.registry
            .try_call(identity, method.as_str(), path, headers, "{}")
            .map(|(status, _)| status)
    }
}

#[test]
fn each_call_accepts_its_kind_of_caller_and_no_other() {
    let cast = Callers::new();
    let mut calls = 0;
    for [caller, allowed, expected] in cells(CALLERS) {
        let kind = |call: &Call| format!("{:?}", call.allowed_caller()).to_ascii_lowercase();
        for call in Call::ALL.into_iter().filter(|call| kind(call) == allowed) {
            let status = cast.status(call, caller);
            let is_expected = match expected {
                "yes" => matches!(status, Some(200 | 400)),
                "no" => matches!(status, Some(401 | 403)),
                "absent" => matches!(status, Some(404 | 405)),
                "closed" => status.is_none(),
                other => unreachable!("{other}"),
            };
            assert!(is_expected, "{call:?} by {caller}: {status:?}");
            calls += 1;
        }
    }
    assert_eq!(calls, Call::ALL.len() * 7);
    drop(cast.other);
}

#[test]
fn only_root_and_the_registry_s_user_may_make_the_operator_s_calls() {
    let registry = Registry::start();
    for call in Call::ALL
        .into_iter()
        .filter(|call| call.allowed_caller() == AllowedCaller::Operator)
    {
        let (method, path) = call.route();
        let asked: Result<serde_json::Value, _> = admin::ask(
            &registry.paths.admin_socket,
            method.as_str(),
            path,
            Some(&serde_json::json!({})),
        );
        let is_expected = match &asked {
            Ok(_) => true,
            Err(admin::AdminError::Rejected { title, .. }) => title == "not the document expected",
            Err(_) => false,
        };
        assert!(is_expected, "{call:?}: {:?}", asked.err());
    }
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    // The uid of the peer decides, even if the permissions of the socket and its folders are opened.
    let open = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    };
    let socket = registry.paths.admin_socket.clone();
    socket.ancestors().take(3).for_each(open);
    let ask = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
               s.sendall(b'GET /v1/nodes HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n')\nprint(s.recv(64))";
    #[expect(
        clippy::disallowed_methods,
        reason = "only another process can have another uid"
    )]
    let output = std::process::Command::new("python3")
        .args(["-c", ask])
        .arg(&socket)
        .uid(65_534)
        .gid(65_534)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.contains("HTTP/1.1 403"), "{output}");
    let mut own = UnixStream::connect(&socket).unwrap();
    own.write_all(b"GET /v1/nodes HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    own.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn renew(registry: &Registry, identity: &Identity, key: &KeyPair) -> (u16, String) {
    renew_as(registry, identity, key, &CertificateParams::default())
}

/// Renews with a request for these properties.
fn renew_as(
    registry: &Registry,
    identity: &Identity,
    key: &KeyPair,
    wanted: &CertificateParams,
) -> (u16, String) {
    let renewal = Renewal {
        version: VERSION,
        csr: request(wanted, key),
    };
    let body = serde_json::to_string(&renewal).unwrap();
    registry
        .try_call(Some(identity), "POST", "/v1/renewals", "", &body)
        .unwrap()
}

#[test]
fn whether_a_certificate_is_renewed_depends_on_its_age_and_key() {
    for [age_s, client, expected] in cells(RENEWALS) {
        let registry = Registry::start();
        let (node, other) = (registry.member(), registry.member());
        if client.starts_with("revoked") {
            let ask = RevokeRequest {
                node: node.claimed.prefix.to_string(),
            };
            let _: RevokedNode = registry.order("POST", "/v1/revocations", &ask);
        }
        registry.pass(age_s.parse().unwrap());
        let mut wanted = CertificateParams::default();
        if client == "other-prefix" {
            let prefix = other.claimed.prefix.to_string();
            wanted.distinguished_name.push(DnType::CommonName, prefix);
        }
        let new_key = key();
        let key = match client {
            "new-key" | "revoked-new-key" => &new_key,
            "other-key" => &other.key,
            "own-key" | "other-prefix" | "revoked" => &node.key,
            client => unreachable!("{client}"),
        };
        let (status, body) = renew_as(&registry, &node, key, &wanted);
        assert_eq!(
            status.to_string(),
            expected,
            "{client} at {age_s} s: {body}"
        );
        if let Ok(renewed) = serde_json::from_str::<Renewed>(&body) {
            let serial = wire::signed::serial_of_pem(&renewed.certificate).unwrap();
            let nodes: NodeList = registry.order("GET", "/v1/nodes", &());
            let recorded = nodes.nodes.iter().find(|node| node.serial == serial);
            assert_eq!(recorded.unwrap().prefix, node.claimed.prefix.to_string());
        }
    }
}

#[test]
fn a_repeated_renewal_returns_the_same_certificate_and_different_keys_are_limited() {
    let registry = Registry::start();
    let node = registry.member();
    registry.pass(LIFE_S * 2 / 3);
    let certificate = |(status, body): (u16, String)| {
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Renewed>(&body).unwrap().certificate
    };
    let new_key = key();
    let first = certificate(renew(&registry, &node, &new_key));
    assert_eq!(certificate(renew(&registry, &node, &new_key)), first);
    let more = (0..9)
        .filter(|_| renew(&registry, &node, &key()).0 == 200)
        .count();
    assert_eq!(more, 4);
    let (status, body) = renew(&registry, &node, &key());
    assert_eq!(status, 429, "{body}");
    assert_eq!(
        serde_json::from_str::<Problem>(&body).unwrap().title,
        "too many requests"
    );
    assert_eq!(certificate(renew(&registry, &node, &new_key)), first);
}
