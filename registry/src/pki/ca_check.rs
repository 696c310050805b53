//! Checks a CA before it is used: its properties, and a certificate that it signed for the purpose.
//!
//! The rules are those of RFC 5280 as far as OpenSSL, rustls or a node's own check of chains enforce them: a certificate
//! of a CA that passes here is accepted by all three.

use super::{
    PkiError,
    certificates::{new_key, params, random_serial, to_pem},
    issuer::{CertificateIssuer, parse_ca},
};
use crate::clock::UnixSeconds;
use rcgen::{ExtendedKeyUsagePurpose, SerialNumber};
use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, UnixTime},
    server::WebPkiClientVerifier,
};
use std::{sync::Arc, time::Duration};
use wire::{chain, serial};
use x509_parser::{
    extensions::ParsedExtension,
    objects::{oid_registry, oid2sn},
    prelude::{X509Certificate, X509Version},
};

/// Lifetime of the certificate that the CA signs for the check, in seconds.
const PROBE_LIFE_S: i64 = 86_400;

/// A CA, and the root above it.
#[derive(Clone, Copy)]
pub(crate) struct CaToCheck<'a> {
    /// The certificate of the CA in DER.
    pub(crate) ca: &'a [u8],
    /// The certificate of the root in DER; `None` if nodes trust the CA itself.
    pub(crate) root: Option<&'a [u8]>,
    /// The CA with its key.
    pub(crate) issuer: &'a CertificateIssuer,
}

/// Checks that the certificates of a CA are accepted at `now`.
///
/// # Errors
/// [`PkiError::UnusableCa`] names the property that the CA lacks.
pub(crate) fn check(ca: CaToCheck<'_>, now: UnixSeconds) -> Result<(), PkiError> {
    let why = |why: String| PkiError::UnusableCa { why };
    let certificate = parse_ca(ca.ca).map_err(why)?;
    check_fields(&certificate, "its", now).map_err(why)?;
    check_purposes(&certificate).map_err(why)?;
    match ca.root {
        Some(root) => {
            check_fields(&parse_ca(root).map_err(why)?, "its root's", now).map_err(why)?
        }
        None => check_is_root(&certificate).map_err(why)?,
    }
    if ca.issuer.spki() != certificate.public_key().raw {
        return Err(why(
            "its key is not that of its certificate: give the key that belongs to it".into(),
        ));
    }
    check_probe(ca, &certificate, now)
}

/// Checks what every CA must have; `whose` begins the sentence about a fault.
fn check_fields(ca: &X509Certificate<'_>, whose: &str, now: UnixSeconds) -> Result<(), String> {
    if ca.version() != X509Version::V3 {
        let version = ca.version().0.saturating_add(1);
        return Err(format!("{whose} certificate has version {version}, not 3"));
    }
    check_serial(ca.raw_serial()).map_err(|why| format!("{whose} serial number {why}"))?;
    if ca.subject().iter_rdn().next().is_none() {
        return Err(format!("{whose} subject is empty"));
    }
    if ca
        .subject()
        .iter_rdn()
        .any(|rdn| rdn.iter().next().is_none())
    {
        return Err(format!("{whose} subject has an empty part"));
    }
    match ca.basic_constraints() {
        Ok(Some(found)) if found.value.ca => {}
        Ok(Some(_)) => return Err(format!("{whose} basic constraints say CA:FALSE")),
        Ok(None) | Err(_) => {
            return Err(format!(
                "{whose} certificate has no basic constraints with CA:TRUE"
            ));
        }
    }
    match ca.key_usage() {
        Ok(Some(usage)) if !usage.value.key_cert_sign() => {
            return Err(format!("{whose} key usage lacks keyCertSign"));
        }
        Ok(_) => {}
        Err(_) => {
            return Err(format!(
                "{whose} key usage is given twice or cannot be read"
            ));
        }
    }
    check_extensions(ca).map_err(|why| format!("{whose} certificate {why}"))?;
    let not_before = UnixSeconds(ca.validity().not_before.timestamp());
    let not_after = UnixSeconds(ca.validity().not_after.timestamp());
    if now < not_before {
        return Err(format!(
            "{whose} certificate is not valid before {not_before}"
        ));
    }
    if now > not_after {
        return Err(format!("{whose} certificate expired on {not_after}"));
    }
    Ok(())
}

/// Checks the other extensions: nodes' own check of chains accepts only critical extensions that it knows, and name constraints
/// can exclude the names and addresses that the registry writes into certificates later.
fn check_extensions(ca: &X509Certificate<'_>) -> Result<(), String> {
    for extension in ca.extensions() {
        let parsed = extension.parsed_extension();
        if matches!(parsed, ParsedExtension::NameConstraints(_)) {
            return Err(
                "has name constraints, which can exclude nodes' addresses and names: give one without".into(),
            );
        }
        if extension.critical && !chain::is_known_if_critical(parsed) {
            let oid = &extension.oid;
            let name =
                oid2sn(oid, oid_registry()).map_or_else(|_| oid.to_id_string(), str::to_owned);
            return Err(format!(
                "has the critical extension {name}, which nodes do not know: give one without"
            ));
        }
    }
    Ok(())
}

/// Checks the octets of a serial number (RFC 5280, section 4.1.2.2).
fn check_serial(octets: &[u8]) -> Result<(), String> {
    match octets {
        [first, ..] if first & 0x80 != 0 => Err("is negative".into()),
        all if all.iter().all(|octet| *octet == 0) => Err("is 0".into()),
        all if all.len() > serial::MAX_OCTETS => {
            let (max, count) = (serial::MAX_OCTETS, all.len());
            Err(format!("has {count} octets, and at most {max} are allowed"))
        }
        _ => Ok(()),
    }
}

/// Checks the extended key usage of a CA, which OpenSSL and rustls apply to the certificates below it.
fn check_purposes(ca: &X509Certificate<'_>) -> Result<(), String> {
    match ca.extended_key_usage() {
        Ok(Some(usage)) if !(usage.value.server_auth && usage.value.client_auth) => {
            Err("its extended key usage lacks serverAuth or clientAuth".into())
        }
        Ok(_) => Ok(()),
        Err(_) => Err("its extended key usage is given twice or cannot be read".into()),
    }
}

/// Checks that a CA has no other one above it, as OpenSSL requires of a trusted CA.
fn check_is_root(ca: &X509Certificate<'_>) -> Result<(), String> {
    if ca.issuer().as_raw() != ca.subject().as_raw() {
        return Err("another CA issued it: give the certificate of its root after its own".into());
    }
    ca.verify_signature(None)
        .map_err(|_| "its certificate is not signed with its own key".into())
}

/// Lets the CA sign a certificate like that of a node, and verifies it in each way in which nodes do.
fn check_probe(
    ca: CaToCheck<'_>,
    certificate: &X509Certificate<'_>,
    now: UnixSeconds,
) -> Result<(), PkiError> {
    let rejected = |why: String| PkiError::UnusableCa {
        why: format!("a certificate that it signed is rejected: {why}"),
    };
    let ca_not_after = UnixSeconds(certificate.validity().not_after.timestamp());
    let not_after = now.saturating_add_s(PROBE_LIFE_S).min(ca_not_after);
    let mut probe = params("probe", now, not_after)?;
    probe.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
    probe.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let signed = ca
        .issuer
        .sign(&probe, &new_key()?, "a certificate of the CA")?;
    let all = ca
        .root
        .map_or_else(|| signed.clone(), |_| signed.clone() + &to_pem(ca.ca));
    let chain = chain::read_pem(all.as_bytes()).map_err(|error| rejected(error.to_string()))?;
    let trusted = ca.root.unwrap_or(ca.ca);
    chain::verify(&chain, &[trusted], Some(now.0)).map_err(|error| rejected(error.to_string()))?;
    let leaf = chain.first().map_or(&[][..], Vec::as_slice);
    if parse_ca(leaf).map_err(rejected)?.issuer().as_raw() != certificate.subject().as_raw() {
        return Err(rejected(
            "its issuer is not the CA's subject octet by octet".into(),
        ));
    }
    check_with_rustls(&chain, trusted, now).map_err(|error| rejected(error.to_string()))
}

/// Verifies a chain of certificates (DER) like a TLS server.
fn check_with_rustls(
    chain: &[Vec<u8>],
    trusted: &[u8],
    now: UnixSeconds,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(trusted))?;
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
    let certificates: Vec<CertificateDer<'_>> = chain
        .iter()
        .map(|der| CertificateDer::from(der.as_slice()))
        .collect();
    let Some((leaf, intermediates)) = certificates.split_first() else {
        return Err("there is none".into());
    };
    let seconds = u64::try_from(now.0)?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    verifier.verify_client_cert(leaf, intermediates, now)?;
    Ok(())
}
