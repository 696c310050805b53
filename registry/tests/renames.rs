//! Names in certificates: a certificate states the name of its node, and a renamed node gets a new one early.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use rcgen::CertificateParams;
use registry::http::admin::{AdminError, InviteRequest, RenameRequest, RenamedNode, RevokeRequest};
use support::{Identity, Registry, ask, check as check_rejected, claim_with, joined, request};
use wire::registry::{Announced, Announcement, Renewal, Renewed, VERSION};
use x509_parser::extensions::GeneralName;

fn rename(registry: &Registry, node: &str, name: &str) -> Result<RenamedNode, AdminError> {
    let (node, name) = (node.to_owned(), name.to_owned());
    ask(registry, "PUT", "/v1/names", &RenameRequest { node, name })
}

/// Returns the DNS names of a certificate.
fn dns_names(pem: &str) -> Vec<String> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let certificate = block.parse_x509().unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let dns = |name: &GeneralName| {
        let GeneralName::DNSName(name) = name else {
            return None;
        };
        Some((*name).to_owned())
    };
    names.value.general_names.iter().filter_map(dns).collect()
}

/// Announces a node, and compares whether the registry asks it to renew its certificate.
#[track_caller]
fn check_announced(registry: &Registry, node: &Identity, expected: bool) {
    let announcement = Announcement {
        version: VERSION,
        ..Announcement::default()
    };
    let announced: Announced = registry.ask(node, "PUT", "/v1/nodes/self", &announcement);
    assert_eq!(announced.renew, expected);
}

fn renew(registry: &Registry, node: &Identity) -> (u16, String) {
    let renewal = Renewal {
        version: VERSION,
        csr: request(&CertificateParams::default(), &node.key),
    };
    let body = serde_json::to_string(&renewal).unwrap();
    registry
        .try_call(Some(node), "POST", "/v1/renewals", "", &body)
        .unwrap()
}

#[test]
fn a_certificate_states_the_name_of_its_node_as_its_only_dns_name() {
    let registry = Registry::start();
    let named = InviteRequest {
        ttl_s: 60,
        name: Some("Printer".into()),
        ..InviteRequest::default()
    };
    let claimed = joined(&claim_with(&registry, &named));
    assert_eq!(dns_names(&claimed.certificate), ["printer"]);
    let nameless = registry.member();
    assert!(dns_names(&nameless.claimed.certificate).is_empty());
}

#[test]
fn a_renamed_node_is_asked_to_renew_its_certificate_and_may_do_so_once() {
    let registry = Registry::start();
    let mut node = registry.member();
    let prefix = node.claimed.prefix.to_string();
    registry.pass(100);
    check_announced(&registry, &node, false);
    assert_eq!(renew(&registry, &node).0, 409);
    let renamed = rename(&registry, &prefix, "Printer").unwrap();
    assert_eq!((renamed.prefix, renamed.name.as_str()), (prefix, "printer"));
    registry.pass(100);
    check_announced(&registry, &node, true);
    let (status, body) = renew(&registry, &node);
    assert_eq!(status, 200, "{body}");
    let renewed: Renewed = serde_json::from_str(&body).unwrap();
    assert_eq!(dns_names(&renewed.certificate), ["printer"]);
    // A node that did not get the answer repeats its request, and gets the same certificate.
    assert_eq!(renew(&registry, &node), (status, body));
    node.claimed.certificate = renewed.certificate;
    check_announced(&registry, &node, false);
    assert_eq!(renew(&registry, &node).0, 409);
    // The same name again brings it into a certificate from before certificates stated names.
    rename(&registry, "printer", "printer").unwrap();
    check_announced(&registry, &node, true);
}

#[test]
fn a_new_name_must_be_valid_and_free_and_its_node_must_live() {
    let registry = Registry::start();
    let (first, second) = (registry.member(), registry.member());
    let (first, second) = (
        first.claimed.prefix.to_string(),
        second.claimed.prefix.to_string(),
    );
    rename(&registry, &first, "printer").unwrap();
    let invited = InviteRequest {
        ttl_s: 60,
        name: Some("island".into()),
        ..InviteRequest::default()
    };
    let _: serde_json::Value = registry.order("POST", "/v1/invitations", &invited);
    check_rejected(rename(&registry, &second, "Printer"), "name taken");
    check_rejected(rename(&registry, &second, "island"), "name taken");
    check_rejected(rename(&registry, &second, "a.b"), "out of range");
    check_rejected(rename(&registry, "99/16", "rack"), "no such node");
    check_rejected(rename(&registry, "nobody", "rack"), "no such node");
    // The name that a node gives up is free at once.
    rename(&registry, "printer", "rack").unwrap();
    assert_eq!(
        rename(&registry, &second, "printer").unwrap().prefix,
        second
    );
    let node = "rack".to_owned();
    let _: serde_json::Value = registry.order("POST", "/v1/revocations", &RevokeRequest { node });
    check_rejected(rename(&registry, "rack", "shelf"), "no such node");
}
