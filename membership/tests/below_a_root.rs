//! Tests which documents are accepted below a root: from intermediate CAs that replace each other, and from a thief with the
//! key of one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use membership::documents::{CurrentDocuments, DocumentRejected, UpdateOutcome};
use policies::parameters::Parameters;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SigningKey,
};
use rustls::pki_types::CertificateDer;
use wire::{
    registry::{DocumentKind, NetworkDocument, Revocations, static_key_text},
    signed::{SIGNER_NAME, SignedDocument, seal},
};

/// A CA with its key.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

fn params_named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn ca_params(name: &str, serial: u64, path_length: u8) -> CertificateParams {
    let mut params = params_named(name);
    params.serial_number = Some(serial.into());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

impl Ca {
    fn self_signed(name: &str, path_length: u8) -> Self {
        let (params, key) = (
            ca_params(name, 1, path_length),
            KeyPair::generate().unwrap(),
        );
        let certificate = params.self_signed(&key).unwrap();
        Self {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    fn intermediate(root: &Self, serial: u64) -> Self {
        let (params, key) = (ca_params("online", serial, 0), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &root.issuer).unwrap();
        Self {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Signs a document with a new signer's certificate of this CA. The envelope contains the CA too if `is_intermediate`.
    fn sign_document(
        &self,
        is_intermediate: bool,
        document: &impl serde::Serialize,
    ) -> SignedDocument {
        let mut params = params_named(SIGNER_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let payload = serde_json::to_vec(document).unwrap();
        let signature = key.sign(&payload).unwrap();
        let chain = (
            &certificate.der()[..],
            is_intermediate.then_some(&self.der[..]),
        );
        seal(&payload, chain, &key.subject_public_key_info(), &signature)
    }

    /// Issues a node's certificate; returns its chain.
    fn node_chain(&self) -> Vec<CertificateDer<'static>> {
        let certificate = params_named("7/16")
            .signed_by(&KeyPair::generate().unwrap(), &self.issuer)
            .unwrap();
        vec![certificate.der().clone(), self.der.clone()]
    }
}

fn network(version: u64, authorities: &[&Ca]) -> NetworkDocument {
    NetworkDocument {
        kind: DocumentKind::Network,
        version,
        network: "fd12:3456:789a::/48".parse().unwrap(),
        parameters: Parameters::default().into(),
        babel_key: "0f".repeat(32),
        tls_crypt: static_key_text(&[0xa5; 256]),
        private_endpoints: false,
        authorities: authorities.iter().map(|ca| ca.pem.clone()).collect(),
        babel_lenient: false,
        tls_crypt_other: None,
        gateways: Vec::new(),
        ipv4: None,
        min_version: None,
        prefix_lengths: Vec::new(),
    }
}

fn revocations(version: u64, revoked_cas: &[&str]) -> Revocations {
    let authorities = revoked_cas.iter().map(ToString::to_string).collect();
    Revocations {
        kind: DocumentKind::Revocations,
        version,
        revoked: Vec::new(),
        authorities,
    }
}

/// Returns the current documents after `document`, which must be accepted as a newer one.
#[track_caller]
fn accept(current: &CurrentDocuments, document: &SignedDocument) -> CurrentDocuments {
    match current.accept_document(document) {
        Ok(UpdateOutcome::New(_, next)) => *next,
        outcome => panic!("{outcome:?}"),
    }
}

/// The documents of a node that trusts these CAs and has none yet.
fn trusting(cas: &[&Ca]) -> CurrentDocuments {
    CurrentDocuments::new(cas.iter().map(|ca| ca.der.clone()).collect())
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
