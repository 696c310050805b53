//! Makes each call of the table as each kind of caller, and renews certificates of each age.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use rcgen::{CertificateParams, KeyPair};
use registry::http::{
    admin::{self, RevokeRequest, RevokedNode},
    calls::{AllowedCaller, Call},
};
use std::{
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream, process::CommandExt},
};
use support::{GRACE_S, Identity, LIFE_S, Registry, key, request};
use wire::registry::{Problem, Renewal, Renewed, VERSION};

/// The kinds of callers over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Nobody,
    Member,
    /// A node whose certificate has expired within the grace period.
    Expired,
    /// A node whose certificate expired before the grace period.
    ExpiredBeforeGrace,
    Revoked,
    /// A member of another network.
    MemberOfOther,
    /// A caller without a certificate that sends the headers by which a proxy marks an operator.
    ForgedProxyHeaders,
}

const CALLERS: [Caller; 7] = [
    Caller::Nobody,
    Caller::Member,
    Caller::Expired,
    Caller::ExpiredBeforeGrace,
    Caller::Revoked,
    Caller::MemberOfOther,
    Caller::ForgedProxyHeaders,
];

/// Returns whether a caller over TLS may make a call.
fn is_let_in(call: Call, caller: Caller) -> bool {
    match (call.allowed_caller(), caller) {
        (AllowedCaller::Anybody, Caller::MemberOfOther) => false,
        (AllowedCaller::Anybody, _) => true,
        (AllowedCaller::Member | AllowedCaller::Renewer, Caller::Member)
        | (AllowedCaller::Renewer, Caller::Expired) => true,
        (AllowedCaller::Member | AllowedCaller::Renewer | AllowedCaller::Operator, _) => false,
    }
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
    fn status(&self, call: Call, caller: Caller) -> Option<u16> {
        let (method, path) = call.route();
        let headers = match caller {
            Caller::ForgedProxyHeaders => {
                "x-forwarded-for: 127.0.0.1\r\nforwarded: for=127.0.0.1\r\nx-real-ip: ::1\r\nx-ssl-client-verify: SUCCESS\r\n"
            }
            Caller::Nobody
            | Caller::Member
            | Caller::Expired
            | Caller::ExpiredBeforeGrace
            | Caller::Revoked
            | Caller::MemberOfOther => "",
        };
        let identity = match caller {
            Caller::Nobody | Caller::ForgedProxyHeaders => None,
            Caller::Member => Some(&self.member),
            Caller::Expired => Some(&self.expired),
            Caller::ExpiredBeforeGrace => Some(&self.expired_before_grace),
            Caller::Revoked => Some(&self.revoked),
            Caller::MemberOfOther => Some(&self.member_of_other),
        };
        self.registry
            .try_call(identity, method.as_str(), path, headers, "{}")
            .map(|(status, _)| status)
    }
}

#[test]
fn each_call_accepts_its_kind_of_caller_and_no_other() {
    let cast = Callers::new();
    let mut cells = 0;
    for call in Call::ALL {
        for caller in CALLERS {
            let status = cast.status(call, caller);
            // The empty document is malformed, which only an accepted caller learns from the answer.
            let is_expected = match (is_let_in(call, caller), status) {
                (true, Some(200 | 400)) => true,
                (false, None) => caller == Caller::MemberOfOther,
                (false, Some(status)) if call.allowed_caller() == AllowedCaller::Operator => {
                    matches!(status, 404 | 405)
                }
                (false, Some(status)) => matches!(status, 401 | 403),
                (true, _) => false,
            };
            assert!(is_expected, "{call:?} by {caller:?}: {status:?}");
            cells += 1;
        }
    }
    assert_eq!(cells, Call::ALL.len() * CALLERS.len());
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
    let renewal = Renewal {
        version: VERSION,
        csr: request(&CertificateParams::default(), key),
    };
    let body = serde_json::to_string(&renewal).unwrap();
    registry
        .try_call(Some(identity), "POST", "/v1/renewals", "", &body)
        .unwrap()
}

/// Renews a certificate `age_s` seconds after it was issued, with its own key or a new one, revoked or not, and compares
/// the status.
#[track_caller]
fn check(age_s: i64, own_key: bool, revoked: bool, expected: u16) {
    let registry = Registry::start();
    let node = registry.member();
    if revoked {
        let ask = RevokeRequest {
            node: node.claimed.prefix.to_string(),
        };
        let _: RevokedNode = registry.order("POST", "/v1/revocations", &ask);
    }
    registry.pass(age_s);
    let key = if own_key {
        KeyPair::from_pem(&node.key.serialize_pem()).unwrap()
    } else {
        key()
    };
    let (status, body) = renew(&registry, &node, &key);
    assert_eq!(
        status, expected,
        "at {age_s} s, own key {own_key}, revoked {revoked}: {body}"
    );
}

#[test]
fn whether_a_certificate_is_renewed_depends_on_its_age_and_key() {
    let third = LIFE_S * 2 / 3;
    for (age_s, own_key, new_key) in [
        (1, 409, 409),
        (third - 1, 409, 409),
        (third, 200, 200),
        (LIFE_S - 1, 200, 200),
        // An expired certificate is renewed with the same key only.
        (LIFE_S, 200, 409),
        (LIFE_S + GRACE_S - 1, 200, 409),
        (LIFE_S + GRACE_S, 403, 403),
        (LIFE_S + 2 * GRACE_S, 403, 403),
    ] {
        check(age_s, true, false, own_key);
        check(age_s, false, false, new_key);
        check(age_s, true, true, 403);
        check(age_s, false, true, 403);
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

#[test]
fn a_renewal_with_the_key_of_another_node_is_rejected() {
    let registry = Registry::start();
    let (node, other) = (registry.member(), registry.member());
    registry.pass(LIFE_S * 2 / 3);
    assert_eq!(renew(&registry, &node, &other.key).0, 409);
}
