//! Takes documents below a root: of CAs that replace each other, and of a thief who holds the key of one.

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

/// A CA at work.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn ca_params(name: &str, serial: u64, below: u8) -> CertificateParams {
    let mut params = named(name);
    params.serial_number = Some(serial.into());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

impl Ca {
    fn alone(name: &str, below: u8) -> Self {
        let (params, key) = (ca_params(name, 1, below), KeyPair::generate().unwrap());
        let made = params.self_signed(&key).unwrap();
        Self {
            der: made.der().clone(),
            pem: made.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    fn below(root: &Self, serial: u64) -> Self {
        let (params, key) = (ca_params("online", serial, 0), KeyPair::generate().unwrap());
        let made = params.signed_by(&key, &root.issuer).unwrap();
        Self {
            der: made.der().clone(),
            pem: made.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A document by a signer of this CA; `between`: a root stands above it.
    fn signs(&self, between: bool, document: &impl serde::Serialize) -> SignedDocument {
        let mut params = named(SIGNER_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let payload = serde_json::to_vec(document).unwrap();
        let signature = key.sign(&payload).unwrap();
        let chain = (&certificate.der()[..], between.then_some(&self.der[..]));
        seal(&payload, chain, &key.subject_public_key_info(), &signature)
    }

    /// The chain of a node's certificate.
    fn node(&self) -> Vec<CertificateDer<'static>> {
        let made = named("7/16")
            .signed_by(&KeyPair::generate().unwrap(), &self.issuer)
            .unwrap();
        vec![made.der().clone(), self.der.clone()]
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
    }
}

fn list(version: u64, revoked_ca: &[&str]) -> Revocations {
    let authorities = revoked_ca.iter().map(ToString::to_string).collect();
    Revocations {
        kind: DocumentKind::Revocations,
        version,
        revoked: Vec::new(),
        authorities,
    }
}

/// What is held after that document, which must be taken.
#[track_caller]
fn taken(held: &CurrentDocuments, document: &SignedDocument) -> CurrentDocuments {
    match held.take(document) {
        Ok(UpdateOutcome::New(_, next)) => *next,
        other => panic!("{other:?}"),
    }
}

fn holding(cas: &[&Ca]) -> CurrentDocuments {
    CurrentDocuments::new(cas.iter().map(|ca| ca.der.clone()).collect())
}

/// A root, and two CAs that it certified one after the other.
fn cast() -> (Ca, Ca, Ca) {
    let root = Ca::alone("root", 1);
    let (first, second) = (Ca::below(&root, 0x100), Ca::below(&root, 0x200));
    (root, first, second)
}

#[test]
fn a_later_ca_outruns_an_earlier_one_whatever_the_versions() {
    let (root, first, second) = cast();
    let held = taken(
        &holding(&[&root]),
        &first.signs(true, &network(u64::MAX, &[])),
    );
    let held = taken(&held, &second.signs(true, &network(3, &[])));
    assert_eq!(held.version(DocumentKind::Network), 3);
    let again = held.take(&first.signs(true, &network(u64::MAX, &[])));
    assert!(
        matches!(again, Ok(UpdateOutcome::Older(DocumentKind::Network))),
        "{again:?}"
    );
    let held = taken(&held, &first.signs(true, &list(u64::MAX, &[])));
    let held = taken(&held, &second.signs(true, &list(1, &[])));
    assert!(matches!(
        held.take(&second.signs(true, &list(1, &[]))),
        Ok(UpdateOutcome::Same)
    ));
}

#[test]
fn documents_of_a_revoked_ca_are_rejected_and_its_certificates_are_renewed() {
    let (root, first, second) = cast();
    let held = taken(&holding(&[&root]), &first.signs(true, &network(5, &[])));
    let (old, new) = (first.node(), second.node());
    assert!(!held.is_superseded(&old) && !held.is_superseded(&new));
    let signs = taken(&held, &second.signs(true, &network(6, &[])));
    assert!(signs.is_superseded(&old) && !signs.is_superseded(&new));
    // Revoked by a list alone, as if the network document had not come yet.
    let held = taken(&held, &second.signs(true, &list(2, &["100"])));
    assert!(held.is_superseded(&old) && !held.is_superseded(&new));
    assert!(held.is_ca_revoked("0100") && !held.is_ca_revoked("0200"));
    assert_eq!(
        (held.serials().collect::<Vec<_>>(), held.revoked_ca_count()),
        (vec!["100"], 1)
    );
    for document in [
        first.signs(true, &network(9, &[])),
        first.signs(true, &list(9, &[])),
    ] {
        let outcome = held.take(&document);
        assert!(
            matches!(outcome, Err(DocumentRejected::RevokedCa)),
            "{outcome:?}"
        );
    }
    // Nobody bars the later CA by the earlier one's word.
    let held = taken(&holding(&[&root]), &second.signs(true, &list(1, &[])));
    let outcome = held.take(&first.signs(true, &list(9, &["200"])));
    assert!(
        matches!(outcome, Ok(UpdateOutcome::Older(_))),
        "{outcome:?}"
    );
}

#[test]
fn a_ca_below_a_root_brings_in_no_other_ca_and_does_not_give_up_the_root() {
    let (root, first, _) = cast();
    let (thief, rival) = (Ca::alone("thief", 0), Ca::alone("root", 1));
    let check = |held: &CurrentDocuments, authorities: &[&Ca], good: bool| {
        let outcome = held.take(&first.signs(true, &network(7, authorities)));
        let refused = matches!(outcome, Err(DocumentRejected::OtherTrust));
        assert_eq!((outcome.is_ok(), refused), (good, !good), "{outcome:?}");
    };
    let held = holding(&[&root]);
    check(&held, &[], true);
    check(&held, &[&root], true);
    check(&held, &[&root, &thief], false);
    check(&held, &[&thief], false);
    check(&held, &[&rival], false);
    // A CA that stood for itself before there was a root is let go.
    check(&holding(&[&thief, &root]), &[&root], true);
    check(&holding(&[&thief, &root]), &[&thief], false);
}

#[test]
fn a_network_changes_from_a_ca_that_stands_for_itself_to_a_root() {
    let (root, first, _) = cast();
    let old = Ca::alone("old", 0);
    let held = taken(&holding(&[&old]), &old.signs(false, &network(1, &[])));
    let held = taken(&held, &old.signs(false, &network(2, &[&old, &root])));
    assert_eq!(held.cas().len(), 2);
    let held = taken(&held, &first.signs(true, &network(3, &[&root, &old])));
    let held = taken(&held, &first.signs(true, &network(4, &[&root])));
    assert_eq!(held.cas(), [root.der]);
    assert!(held.take(&old.signs(false, &network(9, &[&old]))).is_err());
}
