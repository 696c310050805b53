//! Replaces the CA and the keys of a real registry, step by step.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use rcgen::CertificateParams;
use registry::{
    http::admin::{
        AdminError, ChangeResult, RevokeRequest, RevokedNode, RotateCaRequest, RotateKeyRequest,
    },
    service::{RotationStep, SharedKey},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::io::{Read, Write};
use support::{Identity, Registry, apply, ask, check, key, request};
use wire::{
    invitation::token_text,
    registry::{NetworkDocument, Renewal, Renewed, VERSION},
    signed::{self, SignedDocument},
};

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn document(signed: &SignedDocument, ca: &str) -> NetworkDocument {
    NetworkDocument::read(&signed::open(signed, &[der(ca)]).unwrap().payload).unwrap()
}

fn network(registry: &Registry, identity: &Identity) -> SignedDocument {
    registry.ask(identity, "GET", "/v1/network", &())
}

fn rotate(
    registry: &Registry,
    step: RotationStep,
    force: bool,
) -> Result<ChangeResult, AdminError> {
    ask(
        registry,
        "POST",
        "/v1/authority",
        &RotateCaRequest {
            step,
            force,
            certificate: None,
        },
    )
}

/// Returns whether a node that trusts `ca` alone can make a call.
fn reaches(registry: &Registry, identity: &Identity, ca: &str) -> bool {
    let mut tls = registry.connect(Some(identity), ca);
    if tls
        .write_all(b"GET /v1/network HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .is_err()
    {
        return false;
    }
    let mut answer = Vec::new();
    let _ = tls.read_to_end(&mut answer);
    answer.starts_with(b"HTTP/1.1 200")
}

/// Activates a staged CA, and returns a newcomer that trusts it alone.
fn activate(registry: &mut Registry, node: &Identity, old: &str, new: &str) -> Identity {
    let invitation = registry.invite(600);
    rotate(registry, RotationStep::Activate, false).unwrap();
    let csr = request(&CertificateParams::default(), &key());
    assert_eq!(registry.claim(&token_text(&invitation.token), &csr).0, 403);
    registry.restart();
    assert!(reaches(registry, node, old) && reaches(registry, node, new));
    let both = network(registry, node);
    assert_eq!(
        document(&both, old).authorities,
        [new.to_owned(), old.to_owned()]
    );
    assert_eq!(
        document(&both, new).authorities,
        [new.to_owned(), old.to_owned()]
    );
    let newcomer = registry.member();
    assert_eq!(newcomer.claimed.ca, *new);
    apply(registry, node);
    apply(registry, &newcomer);
    check_not_ready(registry, RotationStep::Retire);
    newcomer
}

/// Stages a CA, and returns its certificate once all nodes have applied the documents.
fn stage(registry: &mut Registry, node: &Identity, old: &str) -> String {
    rotate(registry, RotationStep::Stage, false).unwrap();
    check(
        rotate(registry, RotationStep::Stage, false),
        "step out of order",
    );
    let staged = document(&network(registry, node), old);
    assert_eq!(
        (staged.authorities.len(), &*staged.authorities[0]),
        (2, old)
    );
    let new = staged.authorities[1].clone();
    assert!(
        !reaches(registry, node, &new),
        "a staged CA must not sign anything"
    );
    assert_eq!(registry.member().claimed.ca, old);
    check_not_ready(registry, RotationStep::Activate);
    registry.restart();
    apply(registry, node);
    check_not_ready(registry, RotationStep::Activate);
    let revoke = RevokeRequest {
        node: "2/16".into(),
    };
    let _: RevokedNode = registry.order("POST", "/v1/revocations", &revoke);
    apply(registry, node);
    new
}

/// Expects that a step is rejected because some node is not ready.
#[track_caller]
fn check_not_ready(registry: &Registry, step: RotationStep) {
    check(rotate(registry, step, false), "nodes not ready");
}

#[test]
fn the_ca_is_replaced_in_three_steps_and_a_node_that_follows_never_loses_access() {
    let mut registry = Registry::start();
    let mut node = registry.member();
    let old = node.claimed.ca.clone();
    check(
        rotate(&registry, RotationStep::Activate, false),
        "step out of order",
    );
    check(
        rotate(&registry, RotationStep::Retire, true),
        "step out of order",
    );
    let new = stage(&mut registry, &node, &old);
    let newcomer = activate(&mut registry, &node, &old, &new);

    let renewal = Renewal {
        version: VERSION,
        csr: request(&CertificateParams::default(), &node.key),
    };
    let renewed: Renewed = registry.ask(&node, "POST", "/v1/renewals", &renewal);
    let former = std::mem::replace(&mut node.claimed.certificate, renewed.certificate);
    apply(&registry, &node);
    rotate(&registry, RotationStep::Retire, false).unwrap();
    registry.restart();
    assert!(reaches(&registry, &node, &new) && reaches(&registry, &newcomer, &new));
    let now = network(&registry, &node);
    assert!(signed::open(&now, &[der(&old)]).is_err());
    assert_eq!(document(&now, &new).authorities, std::slice::from_ref(&new));
    node.claimed.certificate = former;
    assert!(
        !reaches(&registry, &node, &new),
        "a certificate of the old CA must not be accepted"
    );
    assert!(!registry.paths.config_dir.join("ca.key").exists());

    // A second replacement can follow.
    rotate(&registry, RotationStep::Stage, false).unwrap();
    registry.restart();
    assert_eq!(
        document(&network(&registry, &newcomer), &new)
            .authorities
            .len(),
        2
    );
}

#[test]
fn each_shared_key_is_replaced_in_three_steps() {
    let registry = Registry::start();
    let node = registry.member();
    let step = |key, step| {
        ask::<ChangeResult>(
            &registry,
            "POST",
            "/v1/keys",
            &RotateKeyRequest {
                key,
                step,
                force: false,
            },
        )
    };
    let now = || document(&network(&registry, &node), &node.claimed.ca);
    let first = now();
    for key in [SharedKey::Babel, SharedKey::TlsCrypt] {
        check(step(key, RotationStep::Activate), "step out of order");
        step(key, RotationStep::Stage).unwrap();
        check(step(key, RotationStep::Activate), "nodes not ready");
        apply(&registry, &node);
        let staged = now();
        assert_eq!(
            (&staged.babel_key, &staged.tls_crypt),
            match key {
                SharedKey::Babel => (&first.babel_key, &first.tls_crypt),
                SharedKey::TlsCrypt => (&staged.babel_key, &first.tls_crypt),
            }
        );
        check(step(key, RotationStep::Retire), "step out of order");
        step(key, RotationStep::Activate).unwrap();
        apply(&registry, &node);
        let active = now();
        match key {
            SharedKey::Babel => {
                assert!(active.babel_key != first.babel_key && active.babel_lenient)
            }
            SharedKey::TlsCrypt => {
                assert_eq!(Some(&active.tls_crypt), staged.tls_crypt_other.as_ref());
                assert_eq!(Some(&first.tls_crypt), active.tls_crypt_other.as_ref());
            }
        }
        step(key, RotationStep::Retire).unwrap();
        let retired = now();
        assert!(!retired.babel_lenient && retired.tls_crypt_other.is_none());
        assert_eq!(
            (&retired.babel_key, &retired.tls_crypt),
            (&active.babel_key, &active.tls_crypt)
        );
        apply(&registry, &node);
    }
}
