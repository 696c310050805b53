//! Tests which certificates of a registry may replace the present one.

#![allow(clippy::unwrap_used, reason = "a test")]

use base64::{Engine, engine::general_purpose::STANDARD};
use membership::certificate::{BadCertificate, Certificate};
use policies::names::Prefix;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use std::time::Duration;
use wire::chain::ChainError;

type Ca = (Issuer<'static, KeyPair>, CertificateDer<'static>);

fn ca() -> Ca {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate().unwrap();
    let der = params.self_signed(&key).unwrap().der().clone();
    (Issuer::new(params, key), der)
}

/// A certificate of node `number` that is valid for three years and expires on 1 January of `year`.
fn certificate(
    ca: &Ca,
    key: &KeyPair,
    number: u32,
    serial: u64,
    year: i32,
) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(
        DnType::CommonName,
        Prefix::new(number, 16).unwrap().to_string(),
    );
    params.serial_number = Some(serial.into());
    (params.not_before, params.not_after) =
        (date_time_ymd(year - 3, 1, 1), date_time_ymd(year, 1, 1));
    params.signed_by(key, &ca.0).unwrap().der().clone()
}

fn pem(der: &CertificateDer<'_>) -> String {
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        STANDARD.encode(der)
    )
}

#[track_caller]
fn check(
    make_new: impl FnOnce(&Ca, &KeyPair) -> CertificateDer<'static>,
    expected: Result<i64, BadCertificate>,
) {
    let (ca, key) = (ca(), KeyPair::generate().unwrap());
    let old = Certificate::read(&[certificate(&ca, &key, 7, 1, 2030)]).unwrap();
    let result = old.check_successor(&pem(&make_new(&ca, &key)), std::slice::from_ref(&ca.1));
    assert_eq!(result.map(|new| new.not_after_s), expected);
}

#[test]
fn a_certificate_is_replaced_only_by_one_for_the_same_node_and_key_that_expires_later() {
    check(
        |ca, key| certificate(ca, key, 7, 2, 2031),
        Ok(1_924_992_000),
    );
    check(
        |ca, key| certificate(ca, key, 7, 2, 2029),
        Err(BadCertificate::NotNewer),
    );
    check(
        |ca, key| certificate(ca, key, 7, 1, 2030),
        Err(BadCertificate::NotNewer),
    );
    check(
        |ca, key| certificate(ca, key, 8, 2, 2031),
        Err(BadCertificate::OtherHolder),
    );
    check(
        |ca, _| certificate(ca, &KeyPair::generate().unwrap(), 7, 2, 2031),
        Err(BadCertificate::OtherHolder),
    );
    check(
        |_, key| certificate(&self::ca(), key, 7, 2, 2031),
        Err(BadCertificate::Chain(ChainError::Untrusted)),
    );
    check(
        |_, _| CertificateDer::from(vec![0x30, 0]),
        Err(BadCertificate::Malformed),
    );
}

#[test]
fn the_last_third_of_three_years_is_the_last_year() {
    let (ca, key) = (ca(), KeyPair::generate().unwrap());
    let certificate = Certificate::read(&[certificate(&ca, &key, 7, 1, 2030)]).unwrap();
    let last_year_start_s = 1_861_920_000;
    assert!(
        certificate.last_third_start_s().abs_diff(last_year_start_s) < 86_400,
        "{}",
        certificate.last_third_start_s()
    );
    assert_eq!(
        certificate.remaining_lifetime(certificate.not_after_s - 60),
        Duration::from_secs(60)
    );
    assert_eq!(
        certificate.remaining_lifetime(certificate.not_after_s + 60),
        Duration::ZERO
    );
}
