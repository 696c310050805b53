//! Runs a real registry whose CA has an offline root: what nodes get, which documents and certificates are accepted, and
//! how the CA is replaced.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use rcgen::{CertificateParams, Issuer};
use registry::{
    http::admin::{
        AdminError, BackupRequest, CaSigningRequest, ChangeResult, NextCaRequest, RotateCaRequest,
    },
    init::restore::restore,
    pki::{
        offline_root::{OfflineRoot, RootError},
        request,
    },
    service::RotationStep,
};
use std::{fs, path::Path};
use support::{Identity, LIFE_S, Registry, START, apply, ask, check, key, read, request};
use wire::{
    chain::{self, IntermediateCa},
    invitation::token_text,
    registry::{NetworkDocument, Renewal, Renewed, Revocations, VERSION},
    signed::{self, SignedDocument},
};

/// Returns the certificates of a text in PEM, as DER.
fn ders(pem: &str) -> Vec<Vec<u8>> {
    chain::read_pem(pem.as_bytes()).unwrap()
}

/// Verifies a chain in PEM, and returns the CA below the root that issued it; `None` if there is none.
fn intermediate_ca(chain: &str, trusted: &str) -> Option<IntermediateCa> {
    chain::verify(&ders(chain), &ders(trusted), None)
        .ok()?
        .intermediate
}

#[test]
fn a_node_trusts_the_root_alone_and_its_certificate_and_documents_include_the_ca_below() {
    let registry = Registry::with_offline_root();
    let root = read(&registry.offline_root().join("root.crt"));
    let invitation = registry.invite(60);
    let pinned = ders(&root).concat();
    let (_, parsed) = x509_parser::parse_x509_certificate(&pinned).unwrap();
    assert_eq!(invitation.pin, request::sha256(parsed.public_key().raw));
    let node = registry.member();
    assert_eq!(node.claimed.ca, root);
    let ca = intermediate_ca(&node.claimed.certificate, &root).unwrap();
    assert_eq!(
        ders(&node.claimed.certificate)[1],
        ders(&read(&registry.paths.config_dir.join("ca.crt")))[0]
    );
    let network: SignedDocument = registry.ask(&node, "GET", "/v1/network", &());
    let opened = signed::open(&network, &ders(&root)).unwrap();
    assert_eq!(opened.by.intermediate.as_ref(), Some(&ca));
    assert!(
        NetworkDocument::read(&opened.payload)
            .unwrap()
            .authorities
            .is_empty()
    );
    let list: SignedDocument = registry.ask(&node, "GET", "/v1/revocations", &());
    let opened = signed::open(&list, &ders(&root)).unwrap();
    assert_eq!(Revocations::read(&opened.payload).unwrap().version, 1);
    // The CA below the root is no trust anchor itself.
    assert!(
        signed::open(
            &list,
            &ders(&read(&registry.paths.config_dir.join("ca.crt")))
        )
        .is_err()
    );
}

#[test]
fn a_certificate_below_a_root_is_renewed_with_its_chain() {
    let registry = Registry::with_offline_root();
    let node = registry.member();
    registry.pass(LIFE_S * 3 / 4);
    let renewal = Renewal {
        version: VERSION,
        csr: request(&CertificateParams::default(), &node.key),
    };
    let renewed: Renewed = registry.ask(&node, "POST", "/v1/renewals", &renewal);
    assert!(intermediate_ca(&renewed.certificate, &node.claimed.ca).is_some());
    assert_eq!(ders(&renewed.certificate).len(), 2);
}

#[test]
fn the_key_of_the_root_is_in_its_folder_only_and_the_registry_runs_without_it() {
    let mut registry = Registry::with_offline_root();
    let secret = read(&registry.offline_root().join("root.key"));
    fs::remove_dir_all(registry.offline_root()).unwrap();
    for entry in fs::read_dir(&registry.paths.config_dir).unwrap() {
        let path = entry.unwrap().path();
        assert!(!read(&path).contains(secret.trim()), "{}", path.display());
    }
    registry.restart();
    assert_eq!(
        registry.member().claimed.ca,
        read(&registry.paths.config_dir.join("root.crt"))
    );
}

#[test]
fn a_root_is_created_once_and_assigns_serial_numbers_by_time() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("root");
    let root = OfflineRoot::make(&folder, "fd00:1::/48".parse().unwrap(), START).unwrap();
    let second = OfflineRoot::make(&folder, "fd00:1::/48".parse().unwrap(), START);
    assert!(matches!(second, Err(RootError::Exists { .. })));
    let proven = request::read(&request(&CertificateParams::default(), &key())).unwrap();
    let certify = |now| root.certify(&proven, now).map(|pem| ders(&pem).concat());
    let number =
        |der: Vec<u8>| chain::verify_intermediate(&der, &ders(root.pem()), START.0 + 10).unwrap();
    let numbers =
        [0, 0, 0, 1].map(|later_s| number(certify(START.saturating_add_s(later_s)).unwrap()));
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    assert!(matches!(
        certify(START.saturating_sub_s(1)),
        Err(RootError::Clock { .. })
    ));
    assert_eq!(OfflineRoot::open(&folder).unwrap().pem(), root.pem());
    fs::remove_file(folder.join("root.key")).unwrap();
    assert!(matches!(
        OfflineRoot::open(&folder),
        Err(RootError::Missing { .. })
    ));
}

/// Lets the root in a folder, which is created if it is missing, certify the next CA of the registry.
fn certify_next_ca(registry: &Registry, folder: &Path) -> String {
    let asked: CaSigningRequest =
        registry.order("POST", "/v1/authority/requests", &NextCaRequest {});
    let now = registry.now();
    let root = if OfflineRoot::exists(folder) {
        OfflineRoot::open(folder).unwrap()
    } else {
        OfflineRoot::make(folder, asked.network, now).unwrap()
    };
    root.certify(&request::read(&asked.csr).unwrap(), now)
        .unwrap()
        + root.pem()
}

fn rotate(
    registry: &Registry,
    step: RotationStep,
    certificates: Option<String>,
    force: bool,
) -> Result<ChangeResult, AdminError> {
    ask(
        registry,
        "POST",
        "/v1/authority",
        &RotateCaRequest {
            step,
            force,
            certificate: certificates,
        },
    )
}

fn renew(registry: &Registry, node: &mut Identity) {
    let renewal = Renewal {
        version: VERSION,
        csr: request(&CertificateParams::default(), &node.key),
    };
    let renewed: Renewed = registry.ask(node, "POST", "/v1/renewals", &renewal);
    node.claimed.certificate = renewed.certificate;
}

fn opened(registry: &Registry, identity: &Identity, call: &str) -> signed::Opened {
    let document: SignedDocument = registry.ask(identity, "GET", call, &());
    signed::open(&document, &ders(&identity.claimed.ca)).unwrap()
}

/// Issues what a thief of a CA's key can issue: a certificate with a member's serial number and another key.
fn forge_identity(node: &Identity, stolen: &str, stolen_ca: &str) -> Identity {
    let chain = ders(&node.claimed.certificate);
    let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let (mut forged, theirs) = (CertificateParams::default(), key());
    forged.serial_number = Some(parsed.raw_serial().to_vec().into());
    forged.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let issuer =
        Issuer::from_ca_cert_pem(stolen_ca, rcgen::KeyPair::from_pem(stolen).unwrap()).unwrap();
    let forged = forged.signed_by(&theirs, &issuer).unwrap().pem() + stolen_ca;
    let mut thief = Identity {
        claimed: node.claimed.clone(),
        key: theirs,
    };
    thief.claimed.certificate = forged;
    thief
}

#[test]
fn below_a_root_the_ca_is_replaced_without_new_trust_and_the_old_one_is_revoked() {
    let mut registry = Registry::with_offline_root();
    let (mut node, mut away) = (registry.member(), registry.member());
    let first = intermediate_ca(&node.claimed.certificate, &node.claimed.ca).unwrap();
    let stolen = read(&registry.paths.config_dir.join("ca.key"));
    let stolen_ca = read(&registry.paths.config_dir.join("ca.crt"));
    let invitation = registry.invite(600);
    registry.pass(60);

    check(
        rotate(&registry, RotationStep::Stage, None, true),
        "step out of order",
    );
    let certificates = certify_next_ca(&registry, &registry.offline_root());
    rotate(&registry, RotationStep::Stage, Some(certificates), false).unwrap();
    registry.restart();
    assert!(!registry.paths.config_dir.join("next-ca.key").exists());
    // No node has to apply a document first, since none has to trust anything new.
    rotate(&registry, RotationStep::Activate, None, false).unwrap();
    registry.restart();
    let network = opened(&registry, &node, "/v1/network");
    let second = network.by.intermediate.unwrap();
    assert!(first < second, "{first:?} {second:?}");
    let authorities = NetworkDocument::read(&network.payload).unwrap().authorities;
    assert_eq!(authorities, std::slice::from_ref(&node.claimed.ca));
    let csr = request(&CertificateParams::default(), &key());
    let (status, body) = registry.claim(&token_text(&invitation.token), &csr);
    assert_eq!(status, 200, "the invitation names the root: {body}");

    renew(&registry, &mut node);
    assert_eq!(
        intermediate_ca(&node.claimed.certificate, &node.claimed.ca),
        Some(second.clone())
    );
    apply(&registry, &node);
    check(
        rotate(&registry, RotationStep::Retire, None, false),
        "nodes not ready",
    );
    let copy = registry.paths.state_dir.join("copy.sqlite");
    let _: ChangeResult = registry.order("POST", "/v1/backups", &BackupRequest::to(copy.clone()));
    rotate(&registry, RotationStep::Retire, None, true).unwrap();
    registry.restart();
    let list = opened(&registry, &node, "/v1/revocations");
    assert_eq!(list.by.intermediate, Some(second.clone()));
    assert_eq!(
        Revocations::read(&list.payload).unwrap().authorities,
        std::slice::from_ref(&first.serial)
    );
    assert!(!registry.paths.config_dir.join("ca.key").exists());

    // After the restore of an earlier copy, the CA is still revoked.
    registry.stop();
    restore(&registry.paths, &copy, registry.now()).unwrap();
    registry.restart();
    let list = Revocations::read(&opened(&registry, &node, "/v1/revocations").payload).unwrap();
    assert_eq!(list.authorities, std::slice::from_ref(&first.serial));

    // A node that was away all the while can renew its certificate of the revoked CA.
    renew(&registry, &mut away);
    assert_eq!(
        intermediate_ca(&away.claimed.certificate, &away.claimed.ca),
        Some(second)
    );
    let thief = forge_identity(&node, &stolen, &stolen_ca);
    assert_eq!(registry.call(Some(&thief), "GET", "/v1/network", "").0, 403);
}

#[test]
fn only_a_certificate_of_the_root_for_the_requested_key_can_be_staged() {
    let registry = Registry::with_offline_root();
    let folder = tempfile::tempdir().unwrap();
    registry.pass(60);
    let ours = registry.offline_root();
    let stage = |certificates: &str| {
        rotate(
            &registry,
            RotationStep::Stage,
            Some(certificates.to_owned()),
            true,
        )
    };
    check(stage("x"), "CA certificate rejected");
    let foreign = certify_next_ca(&registry, &folder.path().join("other"));
    check(stage(&foreign), "CA certificate rejected");
    registry.pass(1);
    let good = certify_next_ca(&registry, &ours);
    let (ca, root) = good.split_at(good.rfind("-----BEGIN").unwrap());
    check(stage(ca), "CA certificate rejected");
    check(stage(&format!("{root}{ca}")), "CA certificate rejected");
    check(stage(&format!("{good}{root}")), "CA certificate rejected");
    let (_, foreign_root) = foreign.split_at(foreign.rfind("-----BEGIN").unwrap());
    check(
        stage(&format!("{ca}{foreign_root}")),
        "CA certificate rejected",
    );
    // This certificate is for another key than that of the request.
    registry.pass(1);
    let now = registry.now();
    let stranger = request::read(&request(&CertificateParams::default(), &key())).unwrap();
    let stranger = OfflineRoot::open(&ours)
        .unwrap()
        .certify(&stranger, now)
        .unwrap();
    check(
        stage(&format!("{stranger}{root}")),
        "CA certificate rejected",
    );
    stage(&good).unwrap();
    check(stage(&good), "step out of order");
}

#[test]
fn a_network_with_a_self_signed_ca_gets_a_root_in_three_steps() {
    let mut registry = Registry::start();
    let mut node = registry.member();
    let old = node.claimed.ca.clone();
    let folder = registry.offline_root();
    let certificates = certify_next_ca(&registry, &folder);
    rotate(&registry, RotationStep::Stage, Some(certificates), false).unwrap();
    registry.restart();
    let root = read(&folder.join("root.crt"));
    let staged = NetworkDocument::read(&opened(&registry, &node, "/v1/network").payload).unwrap();
    assert_eq!(staged.authorities, [old.clone(), root.clone()]);
    check(
        rotate(&registry, RotationStep::Activate, None, false),
        "nodes not ready",
    );
    apply(&registry, &node);
    rotate(&registry, RotationStep::Activate, None, false).unwrap();
    registry.restart();
    // Nodes that know only one of the two CAs can read the documents and reach the registry.
    assert!(
        opened(&registry, &node, "/v1/network")
            .by
            .intermediate
            .is_none()
    );
    renew(&registry, &mut node);
    node.claimed.ca = root.clone();
    assert!(
        opened(&registry, &node, "/v1/network")
            .by
            .intermediate
            .is_some()
    );
    assert!(intermediate_ca(&node.claimed.certificate, &root).is_some());
    apply(&registry, &node);
    rotate(&registry, RotationStep::Retire, None, false).unwrap();
    registry.restart();
    let list = opened(&registry, &node, "/v1/revocations");
    assert!(
        Revocations::read(&list.payload)
            .unwrap()
            .authorities
            .is_empty()
    );
    assert_eq!(registry.member().claimed.ca, root);
    check(
        rotate(&registry, RotationStep::Stage, None, true),
        "step out of order",
    );
}
