//! Sends malformed requests to a real registry, and checks that each answer names the fault.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use rcgen::CertificateParams;
use registry::http::calls::{AllowedCaller, Call};
use serde_json::{Value, json};
use support::{Identity, Registry, issued, key, request};
use wire::registry::Problem;

/// Returns a valid document for each call of a node that has a body.
fn valid_document(call: Call) -> Option<Value> {
    let csr = request(&CertificateParams::default(), &key());
    match call {
        Call::Claim => Some(json!({"version": 1, "token": "x", "csr": csr})),
        Call::Renew => Some(json!({"version": 1, "csr": csr})),
        Call::Announce => Some(json!({
            "version": 1, "endpoints": ["udp:45.67.0.1:1194"], "software": "warren 0.1.0",
            "network_version": 1, "network_applied": 1, "revocations_version": 1, "unreachable": ["9/16"],
        })),
        Call::Depart => Some(json!({"version": 1})),
        Call::Bootstrap | Call::Network | Call::Revocations => None,
        Call::Invite
        | Call::Invitations
        | Call::RevokeInvitation
        | Call::Sign
        | Call::Nodes
        | Call::Rename
        | Call::Revoke
        | Call::Rollout
        | Call::Parameters
        | Call::Set
        | Call::RequestCa
        | Call::RotateCa
        | Call::RotateKey
        | Call::Backup
        | Call::AuditLog => None,
    }
}

/// Expects a 4xx with a problem document, and returns the field that it names.
#[track_caller]
fn check(registry: &Registry, identity: &Identity, call: Call, body: &str) -> Option<String> {
    let (method, path) = call.route();
    let (status, answer) = registry.call(Some(identity), method.as_str(), path, body);
    assert!((400..500).contains(&status), "{call:?}: {status} to {body}");
    let problem: Problem = serde_json::from_str(&answer).unwrap();
    assert_eq!(problem.status, status);
    assert!(
        !problem.title.is_empty() && !problem.detail.contains(body) || body.len() < 3,
        "{answer}"
    );
    problem.field
}

#[test]
fn each_missing_field_is_named() {
    let registry = Registry::start();
    let node = registry.member();
    let mut cells = 0;
    for call in Call::ALL {
        let Some(document) = valid_document(call) else {
            continue;
        };
        for field in document.as_object().unwrap().keys() {
            // These fields are optional.
            if [
                "software",
                "network_version",
                "network_applied",
                "revocations_version",
                "unreachable",
            ]
            .contains(&field.as_str())
            {
                continue;
            }
            let mut less = document.clone();
            less.as_object_mut().unwrap().remove(field);
            assert_eq!(
                check(&registry, &node, call, &less.to_string()).as_ref(),
                Some(field),
                "{call:?}"
            );
            cells += 1;
        }
    }
    assert_eq!(cells, 8);
}

#[test]
fn each_wrong_value_is_named() {
    let registry = Registry::start();
    let node = registry.member();
    let wrong = [
        json!(null),
        json!([]),
        json!({}),
        json!(-1),
        json!(1.5),
        json!("\u{0}"),
        json!(true),
    ];
    for call in Call::ALL {
        let Some(document) = valid_document(call) else {
            continue;
        };
        for field in document.as_object().unwrap().keys() {
            for value in &wrong {
                // For these fields some of the values are valid.
                let is_valid = match field.as_str() {
                    "endpoints" | "unreachable" => value.is_array(),
                    "token" => value.is_string(),
                    _ => false,
                };
                if is_valid {
                    continue;
                }
                let mut changed = document.clone();
                changed[field] = value.clone();
                let named = check(&registry, &node, call, &changed.to_string());
                assert_eq!(named.as_ref(), Some(field), "{call:?} with {field} {value}");
            }
        }
    }
}

#[test]
fn bodies_that_are_too_long_too_deep_or_no_json_are_rejected_with_a_problem_document() {
    let registry = Registry::start();
    let node = registry.member();
    let deep = "[".repeat(8_000);
    let long = format!("{{\"version\":1,\"token\":\"{}\"}}", "x".repeat(9_000));
    for call in Call::ALL
        .into_iter()
        .filter(|call| call.allowed_caller() != AllowedCaller::Operator && call.has_body())
    {
        for body in ["", "{", "null", "[]", "\"\"", "\u{feff}{}", &deep, &long] {
            check(&registry, &node, call, body);
        }
        let (method, path) = call.route();
        assert_eq!(
            registry.call(Some(&node), method.as_str(), path, &long).0,
            413
        );
    }
    for query in ["count=-1", "count=x", "count=99999999999999999999999"] {
        let (status, answer) =
            registry.call(Some(&node), "GET", &format!("/v1/bootstrap?{query}"), "");
        let problem: Problem = serde_json::from_str(&answer).unwrap();
        assert_eq!((status, problem.status), (400, 400), "{answer}");
    }
}

#[test]
fn of_thousands_of_altered_certificate_requests_none_is_signed() {
    let registry = Registry::start();
    let node = registry.member();
    let csr = request(&CertificateParams::default(), &key());
    let mut random = fastrand::Rng::with_seed(7);
    let before = issued(&registry.paths).len();
    let mut keep_connection = registry.keep_connection(Some(&node));
    for _ in 0..3_000 {
        let mut bytes = csr.clone().into_bytes();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            bytes[at] = b"ABCabc019+/=-\n "[random.usize(..15)];
        }
        let text = String::from_utf8(bytes).unwrap();
        let (status, _) = keep_connection.call(
            "POST",
            "/v1/renewals",
            &json!({"version": 1, "csr": text}).to_string(),
        );
        // An altered request may still be valid; then it is rejected because it is too early.
        assert!([400, 409, 422].contains(&status), "{status}: {text}");
    }
    assert_eq!(issued(&registry.paths).len(), before);
}
