//! Has a root above the CA of a real registry: what nodes get, and who is believed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use rcgen::CertificateParams;
use registry::{offline_root::OfflineRoot, request, settings::SettingsError};
use std::fs;
use support::{LIFE_S, Registry, START_S, key, read, request};
use wire::{
    chain::{self, Between},
    registry::{NetworkDocument, Renewal, Renewed, Revocations, VERSION},
    signed::{self, SignedDocument},
};

/// The certificates of a text in PEM.
fn ders(pem: &str) -> Vec<Vec<u8>> {
    chain::read_pem(pem.as_bytes()).unwrap()
}

/// The CA between that stands behind a chain in PEM; `None`: nobody does.
fn between(chain: &str, trusted: &str) -> Option<Between> {
    chain::verify(&ders(chain), &ders(trusted), None).ok()?.between
}

#[test]
fn a_node_trusts_the_root_alone_and_its_certificate_and_documents_bring_the_ca_between() {
    let registry = Registry::with_offline_root();
    let root = read(&registry.offline_root().join("root.crt"));
    let invitation = registry.invite(60);
    let pinned = ders(&root).concat();
    let (_, parsed) = x509_parser::parse_x509_certificate(&pinned).unwrap();
    assert_eq!(invitation.pin, request::sha256(parsed.public_key().raw));
    let node = registry.member();
    assert_eq!(node.claimed.ca, root);
    let ca = between(&node.claimed.certificate, &root).unwrap();
    assert_eq!(ders(&node.claimed.certificate)[1], ders(&read(&registry.places.etc.join("ca.crt")))[0]);
    let network: SignedDocument = registry.ask(&node, "GET", "/v1/network", &());
    let opened = signed::open(&network, &ders(&root)).unwrap();
    assert_eq!(opened.by.between.as_ref(), Some(&ca));
    assert!(NetworkDocument::read(&opened.payload).unwrap().authorities.is_empty());
    let list: SignedDocument = registry.ask(&node, "GET", "/v1/revocations", &());
    let opened = signed::open(&list, &ders(&root)).unwrap();
    assert_eq!(Revocations::read(&opened.payload).unwrap().version, 1);
    // The CA between is trusted for the root's sake, and for nothing of its own.
    assert!(signed::open(&list, &ders(&read(&registry.places.etc.join("ca.crt")))).is_err());
}

#[test]
fn a_certificate_below_a_root_is_renewed_with_its_chain() {
    let registry = Registry::with_offline_root();
    let node = registry.member();
    registry.pass(LIFE_S * 3 / 4);
    let renewal = Renewal { version: VERSION, csr: request(&CertificateParams::default(), &node.key) };
    let renewed: Renewed = registry.ask(&node, "POST", "/v1/renewals", &renewal);
    assert!(between(&renewed.certificate, &node.claimed.ca).is_some());
    assert_eq!(ders(&renewed.certificate).len(), 2);
}

#[test]
fn the_root_s_key_is_in_its_folder_only_and_the_registry_runs_without_it() {
    let mut registry = Registry::with_offline_root();
    let secret = read(&registry.offline_root().join("root.key"));
    fs::remove_dir_all(registry.offline_root()).unwrap();
    for entry in fs::read_dir(&registry.places.etc).unwrap() {
        let path = entry.unwrap().path();
        assert!(!read(&path).contains(secret.trim()), "{}", path.display());
    }
    registry.restart();
    assert_eq!(registry.member().claimed.ca, read(&registry.places.etc.join("root.crt")));
}

#[test]
fn a_root_is_made_once_and_numbers_what_it_certifies_by_time() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("root");
    let root = OfflineRoot::make(&folder, "fd00:1::/48".parse().unwrap(), START_S).unwrap();
    let again = OfflineRoot::make(&folder, "fd00:1::/48".parse().unwrap(), START_S);
    assert!(matches!(again, Err(SettingsError::Exists { .. })));
    let proven = request::read(&request(&CertificateParams::default(), &key())).unwrap();
    let certify = |now_s| root.certify(&proven, now_s).map(|pem| ders(&pem).concat());
    let number = |der: Vec<u8>| chain::verify_between(&der, &ders(root.pem()), START_S + 10).unwrap();
    let (first, second) = (number(certify(START_S).unwrap()), number(certify(START_S + 1).unwrap()));
    assert!(first < second, "{first:?} {second:?}");
    assert!(matches!(certify(START_S - 1), Err(SettingsError::Clock { .. })));
    assert_eq!(OfflineRoot::open(&folder).unwrap().pem(), root.pem());
    fs::remove_file(folder.join("root.key")).unwrap();
    assert!(matches!(OfflineRoot::open(&folder), Err(SettingsError::Missing { .. })));
}
