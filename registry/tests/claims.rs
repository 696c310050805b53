//! Tries to get more from a real registry than an invitation allows.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType,
};
use registry::http::admin::{self, RevokeRequest, RevokedNode};
use support::{LIFE_S, Registry, issued, key, request};
use wire::{
    invitation::token_text,
    registry::{Claimed, Problem, Renewal, Renewed, VERSION},
};
use x509_parser::{extensions::GeneralName, pem::parse_x509_pem};

/// Checks that a certificate contains exactly what the registry decided: prefix, address, key usage, and this key.
#[track_caller]
fn check(claimed: &Claimed, key: &KeyPair) {
    let (_, pem) = parse_x509_pem(claimed.certificate.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    assert_eq!(
        certificate.subject().to_string(),
        format!("CN={}", claimed.prefix)
    );
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let address: std::net::Ipv6Addr = format!("fd12:3456:789a:{:x}::1", claimed.prefix.number())
        .parse()
        .unwrap();
    assert_eq!(
        names.value.general_names,
        [GeneralName::IPAddress(&address.octets())]
    );
    assert!(!certificate.is_ca());
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
    let extended = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(
        extended.client_auth && extended.server_auth && !extended.code_signing && !extended.any
    );
    assert_eq!(certificate.public_key().raw, key.subject_public_key_info());
    let (_, ca) = parse_x509_pem(claimed.ca.as_bytes()).unwrap();
    certificate
        .verify_signature(Some(ca.parse_x509().unwrap().public_key()))
        .unwrap();
}

fn claim(registry: &Registry, requested_properties: &CertificateParams) -> (Claimed, KeyPair) {
    let key = key();
    let token = token_text(&registry.invite(60).token);
    let (status, body) = registry.claim(&token, &request(requested_properties, &key));
    assert_eq!(status, 200, "{body}");
    (serde_json::from_str(&body).unwrap(), key)
}

#[test]
fn of_fifty_simultaneous_claims_with_one_token_exactly_one_gets_a_certificate() {
    let registry = Registry::start();
    let token = token_text(&registry.invite(60).token);
    let requests: Vec<String> = (0..50)
        .map(|_| request(&CertificateParams::default(), &key()))
        .collect();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let claims: Vec<_> = requests
            .iter()
            .map(|csr| scope.spawn(|| registry.claim(&token, csr).0))
            .collect();
        claims
            .into_iter()
            .map(|claim| claim.join().unwrap())
            .collect()
    });
    assert_eq!(
        statuses.iter().filter(|status| **status == 200).count(),
        1,
        "{statuses:?}"
    );
    assert!(
        statuses
            .iter()
            .all(|status| [200, 403, 429].contains(status)),
        "{statuses:?}"
    );
    assert_eq!(issued(&registry.paths).len(), 1);
}

#[test]
fn names_and_extensions_in_a_request_are_ignored() {
    let registry = Registry::start();
    let mut requested_properties = CertificateParams::new(["registry.example".to_owned()]).unwrap();
    requested_properties.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    requested_properties.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    requested_properties
        .subject_alt_names
        .push(SanType::IpAddress("fd12:3456:789a:1::1".parse().unwrap()));
    requested_properties
        .distinguished_name
        .push(DnType::CommonName, "1/16");
    requested_properties
        .distinguished_name
        .push(DnType::CustomDnType(vec![2, 5, 4, 3]), "2/16");
    requested_properties
        .distinguished_name
        .push(DnType::OrganizationName, "warren-metadata");
    for _ in 0..2 {
        let (claimed, key) = claim(&registry, &requested_properties);
        check(&claimed, &key);
    }
}

#[test]
fn unknown_used_expired_and_malformed_tokens_get_the_same_answer() {
    let registry = Registry::start();
    let csr = || request(&CertificateParams::default(), &key());
    let used = token_text(&registry.invite(60).token);
    assert_eq!(registry.claim(&used, &csr()).0, 200);
    let expired = token_text(&registry.invite(60).token);
    registry.pass(60);
    let unknown = token_text(&[7; 16]);
    let answers: Vec<(u16, String)> = [used, expired, unknown, "?".into()]
        .iter()
        .map(|token| registry.claim(token, &csr()))
        .collect();
    assert!(
        answers.windows(2).all(|pair| pair[0] == pair[1]),
        "{answers:?}"
    );
    assert_eq!(answers[0].0, 403);
    let problem: Problem = serde_json::from_str(&answers[0].1).unwrap();
    assert_eq!(problem.field.as_deref(), Some("token"));
    assert_eq!(issued(&registry.paths).len(), 1);
}

#[test]
fn after_five_failed_claims_further_ones_are_rejected_for_a_minute() {
    let registry = Registry::start();
    let good = token_text(&registry.invite(3600).token);
    let csr = request(&CertificateParams::default(), &key());
    for _ in 0..5 {
        assert_eq!(registry.claim(&token_text(&[7; 16]), &csr).0, 403);
    }
    assert_eq!(registry.claim(&good, &csr).0, 429);
    registry.pass(60);
    assert_eq!(registry.claim(&good, &csr).0, 200);
}

#[test]
fn a_rejected_request_names_the_field_and_does_not_use_up_the_token() {
    let registry = Registry::start();
    let token = token_text(&registry.invite(60).token);
    let (status, body) = registry.claim(&token, "no request");
    let problem: Problem = serde_json::from_str(&body).unwrap();
    assert_eq!((status, problem.field.as_deref()), (422, Some("csr")));
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    assert_eq!(
        registry
            .claim(&token, &request(&CertificateParams::default(), &p384))
            .0,
        422
    );
    let (status, body) = registry.call(None, "POST", "/v1/claims", r#"{"version":1,"token":"x"}"#);
    let problem: Problem = serde_json::from_str(&body).unwrap();
    assert_eq!((status, problem.field.as_deref()), (400, Some("csr")));
    assert_eq!(
        registry
            .call(None, "POST", "/v1/claims", &"x".repeat(9000))
            .0,
        413
    );
    assert_eq!(registry.call(None, "GET", "/v1/claims", "").0, 405);
    assert_eq!(registry.call(None, "GET", "/v1/nothing", "").0, 404);
    let good = request(&CertificateParams::default(), &key());
    assert_eq!(registry.claim(&token, &good).0, 200);
}

#[test]
fn a_key_has_one_certificate_and_none_after_it_was_revoked() {
    let registry = Registry::start();
    let node = registry.member();
    let claim_with_same_key = || {
        let token = token_text(&registry.invite(60).token);
        registry
            .claim(&token, &request(&CertificateParams::default(), &node.key))
            .0
    };
    assert_eq!(claim_with_same_key(), 409);
    let ask = RevokeRequest {
        node: node.claimed.prefix.to_string(),
    };
    let done: RevokedNode = admin::ask(
        &registry.paths.admin_socket,
        "POST",
        "/v1/revocations",
        Some(&ask),
    )
    .unwrap();
    assert_eq!(done.certificates, 1);
    registry.pass(2 * LIFE_S);
    assert_eq!(claim_with_same_key(), 409);
}

#[test]
fn a_certificate_is_renewed_in_the_last_third_of_its_life_for_its_owner_only() {
    let registry = Registry::start();
    let (mut node, other) = (registry.member(), registry.member());
    let renew = |identity: &support::Identity, key: &KeyPair| {
        let renewal = Renewal {
            version: VERSION,
            csr: request(&CertificateParams::default(), key),
        };
        registry.call(
            Some(identity),
            "POST",
            "/v1/renewals",
            &serde_json::to_string(&renewal).unwrap(),
        )
    };
    assert_eq!(renew(&node, &node.key).0, 409, "too early");
    registry.pass(LIFE_S * 2 / 3 + 1);
    assert_eq!(renew(&node, &other.key).0, 409, "the key of another node");
    for new_key in [None, Some(key())] {
        let new_key =
            new_key.unwrap_or_else(|| KeyPair::from_pem(&node.key.serialize_pem()).unwrap());
        let (status, body) = renew(&node, &new_key);
        assert_eq!(status, 200, "{body}");
        let renewed: Renewed = serde_json::from_str(&body).unwrap();
        node.claimed.certificate = renewed.certificate;
        node.key = new_key;
        check(&node.claimed, &node.key);
        registry.pass(LIFE_S * 2 / 3 + 1);
    }
}
