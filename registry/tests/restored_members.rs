//! Nodes whose certificate was renewed after the copy of the database that the operator has restored.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use rcgen::{CertificateParams, KeyPair};
use registry::{
    http::admin::{BackupRequest, ChangeResult, RevokeRequest, RevokedNode},
    init::restore::restore,
};
use support::{GRACE_S, Identity, LIFE_S, Registry, request};
use wire::{
    registry::{Announced, Announcement, Renewal, Renewed, VERSION},
    signed::serial_of_pem,
};

/// Renews a node's certificate with its own key.
fn renew(registry: &Registry, node: &Identity) -> Identity {
    let csr = request(&CertificateParams::default(), &node.key);
    let renewal = Renewal {
        version: VERSION,
        csr,
    };
    let renewed: Renewed = registry.ask(node, "POST", "/v1/renewals", &renewal);
    let mut claimed = node.claimed.clone();
    claimed.certificate = renewed.certificate;
    Identity {
        claimed,
        key: KeyPair::from_pem(&node.key.serialize_pem()).unwrap(),
    }
}

/// Returns a registry that was restored from a copy, and a node that had renewed its certificate after that copy.
fn restored() -> (Registry, Identity) {
    let mut registry = Registry::start();
    let node = registry.member();
    let copy = registry.paths.state_dir.join("copy.sqlite");
    let _: ChangeResult = registry.order("POST", "/v1/backups", &BackupRequest::to(copy.clone()));
    registry.pass(LIFE_S * 2 / 3);
    let renewed = renew(&registry, &node);
    registry.stop();
    restore(&registry.paths, &copy, registry.now()).unwrap();
    registry.restart();
    (registry, renewed)
}

fn status(registry: &Registry, node: &Identity) -> u16 {
    registry.call(Some(node), "GET", "/v1/network", "").0
}

#[test]
fn a_renewed_node_is_recognized_by_its_key_and_renews_again() {
    for age_s in [0, LIFE_S / 3, LIFE_S / 3 + GRACE_S - 1] {
        let (registry, node) = restored();
        registry.pass(age_s);
        assert_eq!(status(&registry, &node), 200, "{age_s} s later");
        let announcement = Announcement {
            version: VERSION,
            ..Announcement::default()
        };
        let announced: Announced = registry.ask(&node, "PUT", "/v1/nodes/self", &announcement);
        assert!(announced.renew, "{age_s} s later");
        let again = renew(&registry, &node);
        let serials = [&node, &again].map(|node| serial_of_pem(&node.claimed.certificate));
        assert_ne!(serials[0], serials[1]);
        // The answer may be lost, so that the node shows its old certificate again.
        let repeated = renew(&registry, &node);
        assert_eq!(repeated.claimed.certificate, again.claimed.certificate);
        assert_eq!(status(&registry, &again), 200);
    }
}

#[test]
fn a_renewed_node_is_unknown_after_the_grace_period_of_the_recorded_certificate() {
    let (registry, node) = restored();
    registry.pass(LIFE_S / 3 + GRACE_S);
    assert_eq!(status(&registry, &node), 403);
}

#[test]
fn a_renewed_node_that_is_revoked_is_rejected() {
    let (registry, node) = restored();
    let ask = RevokeRequest {
        node: node.claimed.prefix.to_string(),
    };
    let _: RevokedNode = registry.order("POST", "/v1/revocations", &ask);
    assert_eq!(status(&registry, &node), 403);
}
