//! Makes the calls of members to a real registry, as members and as callers without a certificate.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use policies::names::Endpoint;
use registry::http::admin::{self, AuditLog, NodeList, RevokeRequest, RevokedNode};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use support::{Identity, Registry, TTL_S, read};
use wire::{
    registry::{
        Announced, Announcement, Bootstrap, Departed, Departure, NetworkDocument, Revocations,
        VERSION,
    },
    signed::{self, SignedDocument},
};

const CALLS: [(&str, &str); 6] = [
    ("POST", "/v1/departures"),
    ("POST", "/v1/renewals"),
    ("PUT", "/v1/nodes/self"),
    ("GET", "/v1/bootstrap"),
    ("GET", "/v1/network"),
    ("GET", "/v1/revocations"),
];

fn announce(registry: &Registry, identity: &Identity, endpoints: &[&str]) -> Announced {
    let endpoints = endpoints
        .iter()
        .map(|text| text.parse::<Endpoint>().unwrap())
        .collect();
    registry.ask(
        identity,
        "PUT",
        "/v1/nodes/self",
        &Announcement {
            version: VERSION,
            endpoints,
            ..Announcement::default()
        },
    )
}

/// Compares the nodes to which `identity` is referred with `expected`: prefixes and endpoints, in any order.
#[track_caller]
fn check(registry: &Registry, identity: &Identity, expected: &[(&Identity, &[&str])]) {
    let answer: Bootstrap = registry.ask(identity, "GET", "/v1/bootstrap?count=8", &());
    let mut answer: Vec<(String, Vec<String>)> = answer
        .nodes
        .iter()
        .map(|node| {
            (
                node.prefix.to_string(),
                node.endpoints.iter().map(Endpoint::to_string).collect(),
            )
        })
        .collect();
    answer.sort();
    let expected: Vec<(String, Vec<String>)> = expected
        .iter()
        .map(|(node, endpoints)| {
            (
                node.claimed.prefix.to_string(),
                endpoints.iter().map(|text| (*text).to_owned()).collect(),
            )
        })
        .collect();
    assert_eq!(answer, expected);
}

fn revoke(registry: &Registry, node: &Identity) {
    let ask = RevokeRequest {
        node: node.claimed.prefix.to_string(),
    };
    let done: RevokedNode = admin::ask(
        &registry.paths.admin_socket,
        "POST",
        "/v1/revocations",
        Some(&ask),
    )
    .unwrap();
    assert_eq!(done.certificates, 1);
}

#[test]
fn a_node_is_referred_to_the_others_and_never_to_itself() {
    let mut registry = Registry::start();
    let (first, second) = (registry.member(), registry.member());
    check(&registry, &first, &[]);
    announce(
        &registry,
        &first,
        &["udp:45.67.0.1:1194", "tcp:45.67.0.1:1194"],
    );
    check(&registry, &first, &[]);
    check(
        &registry,
        &second,
        &[(&first, &["udp:45.67.0.1:1194", "tcp:45.67.0.1:1194"])],
    );
    registry.restart();
    check(
        &registry,
        &second,
        &[(&first, &["udp:45.67.0.1:1194", "tcp:45.67.0.1:1194"])],
    );
    announce(&registry, &first, &[]);
    check(&registry, &second, &[]);
}

#[test]
fn an_announcement_expires() {
    let registry = Registry::start();
    let (first, second) = (registry.member(), registry.member());
    let answer = announce(&registry, &first, &["udp:45.67.0.1:1194"]);
    assert_eq!(i64::try_from(answer.ttl_s).unwrap(), TTL_S);
    registry.pass(TTL_S - 1);
    check(&registry, &second, &[(&first, &["udp:45.67.0.1:1194"])]);
    registry.pass(1);
    check(&registry, &second, &[]);
}

#[test]
fn endpoints_that_no_node_should_dial_are_rejected_one_by_one() {
    let registry = Registry::start();
    let (first, second) = (registry.member(), registry.member());
    let bad = [
        "udp:127.0.0.1:1194",
        "udp:[fd12:3456:789a:2::1]:1194",
        "udp:[fe80::1]:1",
    ];
    let answer = announce(
        &registry,
        &first,
        &[&bad[..], &["udp:45.67.0.1:1194", "udp:10.0.0.1:1194"]].concat(),
    );
    assert_eq!(
        answer
            .rejected_endpoints
            .iter()
            .map(|one| one.endpoint.to_string())
            .collect::<Vec<_>>(),
        bad
    );
    // Both nodes call from the same host, so the private endpoint is shown, too.
    check(
        &registry,
        &second,
        &[(&first, &["udp:45.67.0.1:1194", "udp:10.0.0.1:1194"])],
    );
}

#[test]
fn a_node_that_leaves_is_revoked_and_its_key_gets_no_certificate() {
    let registry = Registry::start();
    let (leaving, staying) = (registry.member(), registry.member());
    announce(&registry, &leaving, &["udp:45.67.0.1:1194"]);
    let departure = Departure { version: VERSION };
    let departed: Departed = registry.ask(&leaving, "POST", "/v1/departures", &departure);
    assert_eq!(departed.certificates, 1);
    check(&registry, &staying, &[]);
    let body = serde_json::to_string(&departure).unwrap();
    let repeated = registry.call(Some(&leaving), "POST", "/v1/departures", &body);
    assert_eq!(repeated.0, 403, "{repeated:?}");
    let csr = support::request(&rcgen::CertificateParams::default(), &leaving.key);
    let token = wire::invitation::token_text(&registry.invite(60).token);
    assert_eq!(registry.claim(&token, &csr).0, 409);
    let log: AuditLog = registry.order("GET", "/v1/audit-log", &());
    let expected = format!("left: {}, 1 certificates", leaving.claimed.prefix);
    assert!(
        log.entries.iter().any(|entry| entry.action == expected),
        "{log:?}"
    );
}

#[test]
fn calls_of_members_need_a_certificate() {
    let registry = Registry::start();
    for (method, call) in CALLS {
        assert_eq!(registry.call(None, method, call, "{}").0, 401, "{call}");
    }
}

#[test]
fn a_revoked_node_is_rejected_at_once_and_is_in_the_signed_list() {
    let registry = Registry::start();
    let (first, second) = (registry.member(), registry.member());
    announce(&registry, &first, &["udp:45.67.0.1:1194"]);
    assert_eq!(
        registry
            .call(Some(&second), "GET", "/v1/revocations?after=1", "")
            .0,
        204
    );
    let list = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            registry.ask::<SignedDocument>(&second, "GET", "/v1/revocations?after=1&wait=60", &())
        });
        revoke(&registry, &first);
        waiting.join().unwrap()
    });
    let ca = CertificateDer::from_pem_slice(second.claimed.ca.as_bytes()).unwrap();
    let list = Revocations::read(&signed::open(&list, &[&ca]).unwrap().payload).unwrap();
    assert_eq!((list.version, list.revoked.len()), (2, 1));
    assert_eq!(list.revoked[0].prefix, first.claimed.prefix);
    for (method, call) in CALLS {
        assert_eq!(
            registry.call(Some(&first), method, call, "{}").0,
            403,
            "{call}"
        );
    }
    check(&registry, &second, &[]);
    let listing: NodeList = admin::ask(
        &registry.paths.admin_socket,
        "GET",
        "/v1/nodes",
        None::<&RevokeRequest>,
    )
    .unwrap();
    assert_eq!(
        listing
            .nodes
            .iter()
            .map(|node| node.revoked)
            .collect::<Vec<_>>(),
        [true, false]
    );
}

#[test]
fn the_prefix_of_a_revoked_node_stays_reserved_after_a_restart() {
    let mut registry = Registry::start();
    let first = registry.member();
    revoke(&registry, &first);
    registry.restart();
    let second = registry.member();
    assert_eq!(first.claimed.prefix.to_string(), "1/16");
    assert_eq!(second.claimed.prefix.to_string(), "2/16");
}

#[test]
fn members_get_the_signed_network_document() {
    let registry = Registry::start();
    let node = registry.member();
    let signed: SignedDocument = registry.ask(&node, "GET", "/v1/network", &());
    assert!(signed == node.claimed.network);
    let ca =
        CertificateDer::from_pem_slice(read(&registry.paths.config_dir.join("ca.crt")).as_bytes())
            .unwrap();
    let document = NetworkDocument::read(&signed::open(&signed, &[&ca]).unwrap().payload).unwrap();
    assert_eq!(
        (document.version, document.network.to_string()),
        (1, "fd12:3456:789a::/48".to_owned())
    );
}
