//! Builds CAs and certificates for the tests of chains.

#![allow(clippy::unwrap_used, reason = "a helper of tests")]

use super::*;

/// A CA at work.
pub(crate) struct Ca {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) der: Vec<u8>,
}

pub(crate) fn named(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(serial.into());
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2030, 1, 1));
    params
}

pub(crate) fn ca_params(name: &str, serial: u64, below: u8) -> CertificateParams {
    let mut params = named(name, serial);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

impl Ca {
    pub(crate) fn root(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self {
            issuer: Issuer::new(params, key),
            der,
        }
    }

    pub(crate) fn below(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let der = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        Self {
            issuer: Issuer::new(params, key),
            der,
        }
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> Vec<u8> {
        params
            .signed_by(&KeyPair::generate().unwrap(), &self.issuer)
            .unwrap()
            .der()
            .to_vec()
    }
}

pub(crate) fn root() -> Ca {
    Ca::root(ca_params("root", 1, 1))
}

pub(crate) fn intermediate(root: &Ca) -> Ca {
    root.below(ca_params("intermediate", 0x100, 0))
}

pub(crate) fn leaf() -> CertificateParams {
    named("7/16", 7)
}

/// The date 2025-01-01, in seconds since 1970.
pub(crate) const NOW_S: i64 = 1_735_689_600;
/// The date 2030-01-02, in seconds since 1970.
pub(crate) const OVER_S: i64 = 1_893_542_400;

/// Verifies a chain through an intermediate CA, and compares the result. The closures may change each certificate before it
/// is signed.
#[track_caller]
pub(crate) fn check(
    at_s: Option<i64>,
    make_root: impl FnOnce(&mut CertificateParams),
    make_intermediate: impl FnOnce(&mut CertificateParams),
    make_leaf: impl FnOnce(&mut CertificateParams),
    expected: Result<(), (&str, &str)>,
) {
    let (mut root, mut ca, mut leaf) = (
        ca_params("root", 1, 1),
        ca_params("intermediate", 0x100, 0),
        self::leaf(),
    );
    make_root(&mut root);
    make_intermediate(&mut ca);
    make_leaf(&mut leaf);
    let root = Ca::root(root);
    let ca = root.below(ca);
    let result = verify(&[&ca.sign(&leaf), &ca.der], &[&root.der], at_s);
    let expected = expected.map_err(|(which, why)| (which.to_owned(), why.to_owned()));
    let result = result.map(|found| {
        assert_eq!(
            found.intermediate,
            Some(IntermediateCa {
                serial: "100".into()
            })
        )
    });
    let result = result.map_err(|error| {
        if let ChainError::Bad { which, why } = error {
            (which.to_owned(), why.to_owned())
        } else {
            (String::new(), error.to_string())
        }
    });
    assert_eq!(result, expected);
}

pub(crate) fn as_it_is(_: &mut CertificateParams) {}
