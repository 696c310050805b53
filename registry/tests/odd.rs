//! Sends a registry what makes no sense, and looks whether each answer names what was wrong.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use rcgen::CertificateParams;
use registry::http::calls::{AllowedCaller, Call};
use serde_json::{Value, json};
use support::{Identity, Registry, issued, key, request};
use wire::registry::Problem;

/// A good document for each call of a node that takes one.
fn good(call: Call) -> Option<Value> {
    let csr = request(&CertificateParams::default(), &key());
    match call {
        Call::Claim => Some(json!({"version": 1, "token": "x", "csr": csr})),
        Call::Renew => Some(json!({"version": 1, "csr": csr})),
        Call::Announce => Some(json!({
            "version": 1, "endpoints": ["udp:45.67.0.1:1194"], "software": "warren 0.1.0",
            "network_version": 1, "network_applied": 1, "revocations_version": 1, "unreachable": ["9/16"],
        })),
        Call::Bootstrap | Call::Network | Call::Revocations => None,
        Call::Invite
        | Call::Sign
        | Call::Nodes
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

/// Expects a 4xx with a problem document; the field that it names.
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
        let Some(document) = good(call) else { continue };
        for field in document.as_object().unwrap().keys() {
            // What may be left out is left out.
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
    assert_eq!(cells, 7);
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
        let Some(document) = good(call) else { continue };
        for field in document.as_object().unwrap().keys() {
            for value in &wrong {
                // An empty list of endpoints is one; a text is a text.
                let fits = match field.as_str() {
                    "endpoints" | "unreachable" => value.is_array(),
                    "token" => value.is_string(),
                    _ => false,
                };
                if fits {
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
fn what_is_too_long_no_json_or_too_deep_is_a_problem_too() {
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
fn of_thousands_of_changed_requests_none_is_signed_for_another_key() {
    let registry = Registry::start();
    let node = registry.member();
    let csr = request(&CertificateParams::default(), &key());
    let mut random = fastrand::Rng::with_seed(7);
    let before = issued(&registry.paths).len();
    let mut line = registry.line(Some(&node));
    for _ in 0..3_000 {
        let mut bytes = csr.clone().into_bytes();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            bytes[at] = b"ABCabc019+/=-\n "[random.usize(..15)];
        }
        let text = String::from_utf8(bytes).unwrap();
        let (status, _) = line.call(
            "POST",
            "/v1/renewals",
            &json!({"version": 1, "csr": text}).to_string(),
        );
        // Too early for a good one, which a changed character may have left good.
        assert!([400, 409, 422].contains(&status), "{status}: {text}");
    }
    assert_eq!(issued(&registry.paths).len(), before);
}
