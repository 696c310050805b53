//! Judges chains of certificates: good ones, and each thing that can be wrong with one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod certificates;

use base64::{Engine, engine::general_purpose::STANDARD};
use certificates::*;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use wire::chain::{ChainError, IntermediateCa, read_pem, verify, verify_intermediate};
use x509_parser::prelude::{FromDer, X509Certificate};

#[test]
fn a_chain_is_good_with_and_without_an_intermediate_ca() {
    check(Some(NOW_S), as_it_is, as_it_is, as_it_is, Ok(()));
    check(None, as_it_is, as_it_is, as_it_is, Ok(()));
    check(
        None,
        |root| root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        as_it_is,
        as_it_is,
        Ok(()),
    );
    check(
        None,
        |root| root.key_usages = Vec::new(),
        as_it_is,
        as_it_is,
        Ok(()),
    );
    check(
        None,
        as_it_is,
        as_it_is,
        |leaf| leaf.subject_alt_names = vec![SanType::IpAddress("2001:db8::1".parse().unwrap())],
        Ok(()),
    );
    let (other, alone) = (root(), Ca::root(ca_params("alone", 1, 0)));
    let found = verify(
        &[alone.sign(&leaf())],
        &[&other.der, &alone.der],
        Some(NOW_S),
    )
    .unwrap();
    assert_eq!((found.trusted, found.intermediate), (1, None));
}

#[test]
fn a_clock_decides_only_where_it_is_asked() {
    check(
        None,
        as_it_is,
        |ca| ca.not_before = date_time_ymd(2029, 1, 1),
        as_it_is,
        Ok(()),
    );
    check(
        Some(OVER_S),
        as_it_is,
        as_it_is,
        as_it_is,
        Err(("the intermediate CA", "has expired")),
    );
    check(
        Some(NOW_S),
        as_it_is,
        |ca| ca.not_before = date_time_ymd(2029, 1, 1),
        as_it_is,
        Err(("the intermediate CA", "is not good yet")),
    );
    check(
        Some(NOW_S),
        as_it_is,
        as_it_is,
        |leaf| leaf.not_after = date_time_ymd(2024, 1, 1),
        Err(("the certificate", "has expired")),
    );
    check(
        Some(NOW_S),
        |root| root.not_before = date_time_ymd(2029, 1, 1),
        as_it_is,
        as_it_is,
        Err(("the trusted CA", "is not good yet")),
    );
}

#[test]
fn nothing_outlives_its_ca() {
    let not_after = |params: &mut CertificateParams| params.not_after = date_time_ymd(2031, 1, 1);
    check(
        None,
        as_it_is,
        as_it_is,
        not_after,
        Err(("the certificate", "ends after its CA")),
    );
    check(
        None,
        as_it_is,
        not_after,
        as_it_is,
        Err(("the intermediate CA", "ends after its CA")),
    );
}

#[test]
fn who_signs_is_a_ca_that_may() {
    let none = |params: &mut CertificateParams| params.is_ca = IsCa::NoCa;
    let explicit = |params: &mut CertificateParams| params.is_ca = IsCa::ExplicitNoCa;
    let unfit = |params: &mut CertificateParams| {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature]
    };
    type Change = fn(&mut CertificateParams);
    let no_ca = "is none of a CA";
    let no_signer = "is not for signing certificates";
    let cases: [(Change, Change, Change, (&'static str, &'static str)); 8] = [
        (as_it_is, none, as_it_is, ("the intermediate CA", no_ca)),
        (as_it_is, explicit, as_it_is, ("the intermediate CA", no_ca)),
        (none, as_it_is, as_it_is, ("the trusted CA", no_ca)),
        (
            as_it_is,
            unfit,
            as_it_is,
            ("the intermediate CA", no_signer),
        ),
        (unfit, as_it_is, as_it_is, ("the trusted CA", no_signer)),
        (
            as_it_is,
            |ca| ca.key_usages = Vec::new(),
            as_it_is,
            ("the intermediate CA", no_signer),
        ),
        (
            |root| root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)),
            as_it_is,
            as_it_is,
            ("the trusted CA", "allows no CA below it"),
        ),
        (
            as_it_is,
            as_it_is,
            |leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)),
            ("the certificate", "is a CA certificate"),
        ),
    ];
    for (root, ca, leaf, complaint) in cases {
        check(None, root, ca, leaf, Err(complaint));
    }
}

#[test]
fn what_is_critical_must_be_known() {
    let odd = |params: &mut CertificateParams| {
        let mut extension =
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions = vec![extension];
    };
    let why = "has a critical extension that is not known here";
    check(None, as_it_is, as_it_is, odd, Err(("the certificate", why)));
    check(
        None,
        as_it_is,
        odd,
        as_it_is,
        Err(("the intermediate CA", why)),
    );
}

/// A chain that others made.
#[track_caller]
fn refused(chain: &[&[u8]], trusted: &[&Ca], expected: &ChainError) {
    let trusted: Vec<&[u8]> = trusted.iter().map(|ca| &ca.der[..]).collect();
    assert_eq!(verify(chain, &trusted, Some(NOW_S)).as_ref(), Err(expected));
}

#[test]
fn strangers_stand_for_nobody() {
    let (root, stranger) = (root(), self::root());
    let (ca, theirs) = (intermediate(&root), intermediate(&stranger));
    let (ours, foreign) = (ca.sign(&leaf()), theirs.sign(&leaf()));
    refused(&[&foreign, &theirs.der], &[&root], &ChainError::Untrusted);
    refused(&[&ours, &ca.der], &[&stranger], &ChainError::Untrusted);
    refused(&[&ours, &ca.der], &[], &ChainError::Untrusted);
    refused(&[&ours], &[&root], &ChainError::Untrusted);
    let unsigned = ChainError::Bad {
        which: "the certificate",
        why: "is not signed by its CA",
    };
    // The same name, another key; and another name.
    refused(&[&foreign, &ca.der], &[&root], &unsigned);
    refused(&[&ours, &root.der], &[&root], &unsigned);
    // A node is no CA, whoever it signs for.
    let node = ca.below(leaf());
    let unfit = ChainError::Bad {
        which: "the intermediate CA",
        why: "is none of a CA",
    };
    refused(&[&node.sign(&named("8/16", 8)), &node.der], &[&ca], &unfit);
}

#[test]
fn a_chain_is_neither_longer_nor_in_another_order_than_it_must_be() {
    let root = root();
    let ca = intermediate(&root);
    let signed = ca.sign(&leaf());
    refused(&[], &[&root], &ChainError::Count { count: 0 });
    refused(
        &[&signed, &ca.der, &root.der],
        &[&root],
        &ChainError::Count { count: 3 },
    );
    let unsigned = ChainError::Bad {
        which: "the certificate",
        why: "is not signed by its CA",
    };
    refused(&[&ca.der, &signed], &[&root], &unsigned);
    // What the root signed itself needs no root beside it.
    let trusted = ChainError::Bad {
        which: "the intermediate CA",
        why: "has the name of a trusted CA",
    };
    refused(&[&root.sign(&leaf()), &root.der], &[&root], &trusted);
}

#[test]
fn what_is_malformed_or_too_long_is_no_certificate() {
    let root = root();
    let ca = intermediate(&root);
    let signed = ca.sign(&leaf());
    let no = |which| ChainError::Malformed { which };
    refused(&[&[], &ca.der], &[&root], &no("the certificate"));
    refused(&[&signed, &[0x30, 0]], &[&root], &no("the intermediate CA"));
    refused(
        &[&[&signed[..], &[0]].concat(), &ca.der],
        &[&root],
        &no("the certificate"),
    );
    let mut long = ca_params("intermediate", 0x100, 0);
    long.distinguished_name
        .push(DnType::OrganizationName, "x".repeat(4096));
    let long = root.below(long);
    refused(&[&signed, &long.der], &[&root], &no("the intermediate CA"));
    // What is signed begins after the head of the whole.
    let (_, parsed) = X509Certificate::from_der(&signed).unwrap();
    let part: &[u8] = parsed.tbs_certificate.as_ref();
    for at in 4..4 + part.len() {
        let mut changed = signed.clone();
        changed[at] ^= 1;
        assert!(
            verify(&[&changed, &ca.der], &[&root.der], Some(NOW_S)).is_err(),
            "byte {at}"
        );
        assert!(
            verify(&[&signed[..at], &ca.der], &[&root.der], Some(NOW_S)).is_err(),
            "cut at {at}"
        );
    }
}

#[test]
fn an_intermediate_ca_is_one_that_a_root_certified() {
    let (root, stranger) = (root(), self::root());
    let ca = intermediate(&root);
    let check = |der: &[u8], trusted: &[&Ca], at_s| {
        let trusted: Vec<&[u8]> = trusted.iter().map(|ca| &ca.der[..]).collect();
        verify_intermediate(der, &trusted, at_s).map(|found| found.serial)
    };
    assert_eq!(check(&ca.der, &[&stranger, &root], NOW_S), Ok("100".into()));
    assert_eq!(
        check(&ca.der, &[&stranger], NOW_S),
        Err(ChainError::Untrusted)
    );
    assert_eq!(check(&ca.der, &[], NOW_S), Err(ChainError::Untrusted));
    assert!(check(&ca.der, &[&root], OVER_S).is_err());
    assert!(check(&root.der, &[&root], NOW_S).is_err());
    assert!(check(&root.sign(&leaf()), &[&root], NOW_S).is_err());
}

#[test]
fn of_two_cas_below_a_root_the_one_with_the_greater_number_is_the_later() {
    let numbered = |serial: &str| IntermediateCa {
        serial: serial.into(),
    };
    assert!(numbered("ff") < numbered("100") && numbered("100") < numbered("101"));
}

#[test]
fn only_certificates_are_read_from_pem() {
    let root = root();
    let text = |der: &[u8], label: &str| {
        format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
            STANDARD.encode(der)
        )
    };
    let one = text(&root.der, "CERTIFICATE");
    assert_eq!(read_pem(one.as_bytes()), Ok(vec![root.der.clone()]));
    assert_eq!(read_pem(format!("{one}{one}").as_bytes()).unwrap().len(), 2);
    for bad in [
        String::new(),
        "x".into(),
        text(&root.der, "PRIVATE KEY"),
        format!("{one}{}", text(&root.der, "X509 CRL")),
        one.replace("-----END", ""),
        format!("{one}{}", " ".repeat(16 * 1024)),
    ] {
        assert_eq!(read_pem(bad.as_bytes()), Err(ChainError::Pem), "{bad}");
    }
}
