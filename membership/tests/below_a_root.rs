//! Tests which documents are accepted below a root: from intermediate CAs that replace each other, and from a thief with the
//! key of one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod ca;

use ca::{Ca, accept, network, trusting};
use membership::documents::{CurrentDocuments, DocumentRejected, UpdateOutcome};
use wire::registry::{DocumentKind, Revocations};

fn revocations(version: u64, revoked_cas: &[&str]) -> Revocations {
    let authorities = revoked_cas.iter().map(ToString::to_string).collect();
    Revocations {
        kind: DocumentKind::Revocations,
        version,
        revoked: Vec::new(),
        authorities,
    }
}

/// A root, and two intermediate CAs that it certified one after the other.
fn root_and_two_cas() -> (Ca, Ca, Ca) {
    let root = Ca::self_signed("root", 1);
    let (first, second) = (
        Ca::intermediate(&root, 0x100),
        Ca::intermediate(&root, 0x200),
    );
    (root, first, second)
}

#[test]
fn a_document_of_a_later_ca_replaces_one_of_an_earlier_ca_whatever_the_versions() {
    let (root, first, second) = root_and_two_cas();
    let current = accept(
        &trusting(&[&root]),
        &first.sign_document(true, &network(u64::MAX, &[])),
    );
    let current = accept(&current, &second.sign_document(true, &network(3, &[])));
    assert_eq!(current.version(DocumentKind::Network), 3);
    let again = current.accept_document(&first.sign_document(true, &network(u64::MAX, &[])));
    assert!(
        matches!(again, Ok(UpdateOutcome::Older(DocumentKind::Network))),
        "{again:?}"
    );
    let current = accept(
        &current,
        &first.sign_document(true, &revocations(u64::MAX, &[])),
    );
    let current = accept(&current, &second.sign_document(true, &revocations(1, &[])));
    assert!(matches!(
        current.accept_document(&second.sign_document(true, &revocations(1, &[]))),
        Ok(UpdateOutcome::Same)
    ));
}

#[test]
fn documents_of_a_revoked_ca_are_rejected_and_its_certificates_are_renewed() {
    let (root, first, second) = root_and_two_cas();
    let current = accept(
        &trusting(&[&root]),
        &first.sign_document(true, &network(5, &[])),
    );
    let (old, new) = (first.node_chain(), second.node_chain());
    assert!(!current.is_superseded(&old) && !current.is_superseded(&new));
    let with_second_ca = accept(&current, &second.sign_document(true, &network(6, &[])));
    assert!(with_second_ca.is_superseded(&old) && !with_second_ca.is_superseded(&new));
    // The revocation list of the second CA suffices: its network document may arrive later.
    let current = accept(
        &current,
        &second.sign_document(true, &revocations(2, &["100"])),
    );
    assert!(current.is_superseded(&old) && !current.is_superseded(&new));
    assert!(current.is_serial_revoked("0100") && !current.is_serial_revoked("0200"));
    assert_eq!(
        (
            current.revoked_serials().collect::<Vec<_>>(),
            current.revoked_ca_count()
        ),
        (vec!["100"], 1)
    );
    for document in [
        first.sign_document(true, &network(9, &[])),
        first.sign_document(true, &revocations(9, &[])),
    ] {
        let outcome = current.accept_document(&document);
        assert!(
            matches!(outcome, Err(DocumentRejected::RevokedCa)),
            "{outcome:?}"
        );
    }
    // The earlier CA cannot revoke the later one.
    let current = accept(
        &trusting(&[&root]),
        &second.sign_document(true, &revocations(1, &[])),
    );
    let outcome = current.accept_document(&first.sign_document(true, &revocations(9, &["200"])));
    assert!(
        matches!(outcome, Ok(UpdateOutcome::Older(_))),
        "{outcome:?}"
    );
}

#[test]
fn a_document_below_an_intermediate_ca_can_neither_add_a_ca_nor_remove_the_root() {
    let (root, first, _) = root_and_two_cas();
    let (thief, rival) = (Ca::self_signed("thief", 0), Ca::self_signed("root", 1));
    let check = |current: &CurrentDocuments, authorities: &[&Ca], is_accepted: bool| {
        let outcome = current.accept_document(&first.sign_document(true, &network(7, authorities)));
        let is_other_trust = matches!(outcome, Err(DocumentRejected::OtherTrust));
        assert_eq!(
            (outcome.is_ok(), is_other_trust),
            (is_accepted, !is_accepted),
            "{outcome:?}"
        );
    };
    let current = trusting(&[&root]);
    check(&current, &[], true);
    check(&current, &[&root], true);
    check(&current, &[&root, &thief], false);
    check(&current, &[&thief], false);
    check(&current, &[&rival], false);
    // A CA that was trusted before the root may be removed.
    check(&trusting(&[&thief, &root]), &[&root], true);
    check(&trusting(&[&thief, &root]), &[&thief], false);
}

#[test]
fn a_network_changes_from_a_trusted_ca_without_a_root_to_a_root() {
    let (root, first, _) = root_and_two_cas();
    let old = Ca::self_signed("old", 0);
    let current = accept(
        &trusting(&[&old]),
        &old.sign_document(false, &network(1, &[])),
    );
    let current = accept(
        &current,
        &old.sign_document(false, &network(2, &[&old, &root])),
    );
    assert_eq!(current.cas().len(), 2);
    let current = accept(
        &current,
        &first.sign_document(true, &network(3, &[&root, &old])),
    );
    let current = accept(&current, &first.sign_document(true, &network(4, &[&root])));
    assert_eq!(current.cas(), [root.der]);
    assert!(
        current
            .accept_document(&old.sign_document(false, &network(9, &[&old])))
            .is_err()
    );
}
