//! Names of nodes: one label of DNS, unique without regard to case as long as the node's prefix is reserved.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use rcgen::CertificateParams;
use registry::http::admin::{
    AdminError, InviteRequest, InviteResponse, NodeList, RevokeRequest, RevokedNode, SignRequest,
};
use support::{
    GRACE_S, LIFE_S, Registry, ask, check as check_rejected, claim_with, joined, key, request,
};
use wire::registry::Enrolment;

fn named(name: &str) -> InviteRequest {
    InviteRequest {
        ttl_s: 60,
        name: Some(name.into()),
        ..InviteRequest::default()
    }
}

fn invite(registry: &Registry, name: &str) -> Result<InviteResponse, AdminError> {
    ask(registry, "POST", "/v1/invitations", &named(name))
}

fn sign(registry: &Registry, name: &str) -> Result<Enrolment, AdminError> {
    let ask_to_sign = SignRequest {
        csr: request(&CertificateParams::default(), &key()),
        name: Some(name.into()),
        ..SignRequest::default()
    };
    ask(registry, "POST", "/v1/signatures", &ask_to_sign)
}

fn revoke(registry: &Registry, node: &str) -> Result<RevokedNode, AdminError> {
    let node = node.to_owned();
    ask(registry, "POST", "/v1/revocations", &RevokeRequest { node })
}

fn names(registry: &Registry) -> Vec<String> {
    let list: NodeList = registry.order("GET", "/v1/nodes", &());
    list.nodes
        .into_iter()
        .filter_map(|node| node.name)
        .collect()
}

/// Gives a node a name, by an invitation and by a signature, and compares the name that it gets; `None` if the name is
/// rejected.
#[track_caller]
fn check(name: &str, expected: Option<&str>) {
    let registry = Registry::start();
    match expected {
        Some(expected) => {
            joined(&claim_with(&registry, &named(name)));
            assert_eq!(names(&registry), [expected], "{name:?}");
            revoke(&registry, expected).unwrap();
            sign(&registry, name).unwrap();
            assert_eq!(revoke(&registry, name).unwrap().certificates, 1);
        }
        None => {
            check_rejected(invite(&registry, name), "out of range");
            check_rejected(sign(&registry, name), "out of range");
            assert!(names(&registry).is_empty());
        }
    }
}

#[test]
fn a_name_is_one_label_of_dns_in_lower_case() {
    check("printer", Some("printer"));
    check("Printer-2", Some("printer-2"));
    check("7", Some("7"));
    check(&"X".repeat(63), Some(&"x".repeat(63)));
    for invalid in ["", "-a", "a-", "a.b", "a_b", "a b", "7/16", "Prüfer"] {
        check(invalid, None);
    }
    check(&"x".repeat(64), None);
    check(&"A0".repeat(16), None);
}

#[test]
fn a_name_is_unique_without_regard_to_case_and_a_conflict_is_rejected() {
    let registry = Registry::start();
    joined(&claim_with(&registry, &named("printer")));
    for name in ["printer", "PRINTER", "Printer"] {
        check_rejected(invite(&registry, name), "name taken");
        check_rejected(sign(&registry, name), "name taken");
    }
    // An open invitation keeps its name for the node that will join by it.
    invite(&registry, "Island").unwrap();
    check_rejected(invite(&registry, "island"), "name taken");
    check_rejected(sign(&registry, "ISLAND"), "name taken");
    registry.pass(60);
    sign(&registry, "ISLAND").unwrap();
    assert_eq!(names(&registry), ["printer", "island"]);
}

#[test]
fn a_name_stays_with_its_node_until_the_grace_period_of_the_prefix_is_over() {
    let registry = Registry::start();
    joined(&claim_with(&registry, &named("printer")));
    for pass_s in [LIFE_S - 1, 1, GRACE_S - 1] {
        registry.pass(pass_s);
        check_rejected(invite(&registry, "printer"), "name taken");
    }
    registry.pass(1);
    joined(&claim_with(&registry, &named("printer")));
    // After a revocation the operator may give the name to another machine at once.
    revoke(&registry, "PRINTER").unwrap();
    joined(&claim_with(&registry, &named("printer")));
    assert_eq!(revoke(&registry, "printer").unwrap().certificates, 1);
}

#[test]
fn names_from_before_the_rule_stay_and_can_be_used() {
    let mut registry = Registry::start();
    for name in ["first", "second", "third"] {
        joined(&claim_with(&registry, &named(name)));
    }
    registry.stop();
    let path = registry.paths.state_dir.join("registry.sqlite");
    let database = rusqlite::Connection::open(path).unwrap();
    for (old, name) in [
        ("Rack_1.a", "first"),
        ("Rack-2", "second"),
        ("rack-2", "third"),
    ] {
        let rename = "UPDATE prefixes SET name = ?1 WHERE name = ?2";
        database.execute(rename, [old, name]).unwrap();
    }
    drop(database);
    registry.restart();
    assert_eq!(names(&registry), ["Rack_1.a", "Rack-2", "rack-2"]);
    check_rejected(invite(&registry, "RACK-2"), "name taken");
    // Of two names that differ by case alone, each is found by its own spelling.
    assert_eq!(revoke(&registry, "rack-2").unwrap().prefix, "3/16");
    assert_eq!(revoke(&registry, "Rack-2").unwrap().prefix, "2/16");
    assert_eq!(revoke(&registry, "rack_1.A").unwrap().prefix, "1/16");
}
