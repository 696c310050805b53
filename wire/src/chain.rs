//! Verifies chains of certificates: a certificate, at most one intermediate CA, and a trusted CA.
//!
//! Every decision to believe a certificate is made here; only TLS itself, in OpenVPN and rustls,
//! verifies again. Chains come from strangers: they are bounded, and taken in the order in which
//! they were sent, without a search for another path.

use crate::serial;
use std::cmp::Ordering;
use x509_parser::{
    extensions::ParsedExtension,
    pem::Pem,
    prelude::{FromDer, X509Certificate},
};

/// Most certificates of a chain, without the one that is trusted.
pub const MAX_CERTIFICATES: usize = 2;

/// Most bytes of a certificate in DER.
pub const CERTIFICATE_LIMIT: usize = 4096;

/// Most bytes of a chain in PEM.
const PEM_LIMIT: usize = 16 * 1024;

/// An intermediate CA: one that a trusted root certified. A root numbers its intermediate CAs by time, so that
/// of two CAs the later one is the greater.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntermediateCa {
    /// Its certificate's serial number, as [`serial::normal`] spells it.
    pub serial: String,
}

impl Ord for IntermediateCa {
    /// Compares hex numbers without leading zeros: the longer one is the greater.
    fn cmp(&self, other: &Self) -> Ordering {
        self.serial
            .len()
            .cmp(&other.serial.len())
            .then_with(|| self.serial.cmp(&other.serial))
    }
}

impl PartialOrd for IntermediateCa {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The issuer that vouches for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The index of the trusted CA among those that were passed.
    pub trusted: usize,
    /// The intermediate CA; `None` if the trusted CA signed the certificate itself.
    pub intermediate: Option<IntermediateCa>,
}

/// The reason why a chain is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The text is not PEM, or holds something other than certificates.
    #[error("it is not a PEM file with certificates only, of at most {PEM_LIMIT} bytes")]
    Pem,
    /// None, or more than a chain may have.
    #[error("it has {count} certificates, not 1 to {MAX_CERTIFICATES}")]
    Count {
        /// The number of certificates in the chain.
        count: usize,
    },
    /// The certificate cannot be parsed, or is too long.
    #[error("{which} is not an X.509 certificate of at most {CERTIFICATE_LIMIT} bytes")]
    Malformed {
        /// The place of the certificate in the chain.
        which: &'static str,
    },
    /// No trusted CA signed the last certificate of the chain.
    #[error("no trusted CA signed it")]
    Untrusted,
    /// Well-formed and signed, but not good.
    #[error("{which} {why}")]
    Bad {
        /// The place of the certificate in the chain.
        which: &'static str,
        /// The violated rule, in words.
        why: &'static str,
    },
}

const LEAF: &str = "the certificate";
const INTERMEDIATE: &str = "the intermediate CA";
const TRUSTED: &str = "the trusted CA";

/// The certificates (DER) of a chain in PEM, in their order.
///
/// # Errors
/// It is too long, no PEM, or holds something else.
pub fn read_pem(text: &[u8]) -> Result<Vec<Vec<u8>>, ChainError> {
    if text.len() > PEM_LIMIT {
        return Err(ChainError::Pem);
    }
    let mut chain = Vec::new();
    for block in Pem::iter_from_buffer(text) {
        let block = block
            .ok()
            .filter(|block| block.label == "CERTIFICATE")
            .ok_or(ChainError::Pem)?;
        chain.push(block.contents);
    }
    if chain.is_empty() {
        Err(ChainError::Pem)
    } else {
        Ok(chain)
    }
}

/// Verifies the first certificate of a chain (DER) and returns its issuer. Names, signatures and
/// path lengths must fit, each signer must be a CA that may sign, and no certificate may outlive
/// its CA. The first certificate must not be a CA.
///
/// `at_s` is the moment, in seconds since 1970, at which all certificates must be valid. Pass
/// `None` if the clock shall not decide: TLS checks the time itself, and a document does not
/// expire with the certificate of its signer.
///
/// # Errors
/// Names the certificate that is rejected.
pub fn verify<C: AsRef<[u8]>, T: AsRef<[u8]>>(
    chain: &[C],
    trusted: &[T],
    at_s: Option<i64>,
) -> Result<Issuer, ChainError> {
    let (leaf, intermediate) = match chain {
        [leaf] => (parse(leaf.as_ref(), LEAF)?, None),
        [leaf, intermediate] => (
            parse(leaf.as_ref(), LEAF)?,
            Some(parse(intermediate.as_ref(), INTERMEDIATE)?),
        ),
        _ => return Err(ChainError::Count { count: chain.len() }),
    };
    if let Some(ca) = &intermediate {
        signs((ca, INTERMEDIATE), (&leaf, LEAF), 0, at_s)?;
    }
    if leaf
        .basic_constraints()
        .map_or(true, |found| found.is_some_and(|found| found.value.ca))
    {
        return Err(ChainError::Bad {
            which: LEAF,
            why: "is a CA certificate",
        });
    }
    good(&leaf, LEAF, at_s)?;
    let top = intermediate
        .as_ref()
        .map_or((&leaf, LEAF), |ca| (ca, INTERMEDIATE));
    let mut why = None;
    for (place, root) in trusted.iter().enumerate() {
        match below(top, root.as_ref(), u32::from(intermediate.is_some()), at_s) {
            Ok(()) => {
                return Ok(Issuer {
                    trusted: place,
                    intermediate: intermediate.as_ref().map(number).transpose()?,
                });
            }
            // The error of the CA that did sign it says more than `Untrusted`.
            Err(ChainError::Untrusted) => {}
            Err(error) => why = why.or(Some(error)),
        }
    }
    Err(why.unwrap_or(ChainError::Untrusted))
}

/// Verifies that one of these roots (DER) certified an intermediate CA (DER), and that both are valid at `at_s`, in
/// seconds since 1970.
///
/// # Errors
/// See [`verify`].
pub fn verify_intermediate<T: AsRef<[u8]>>(
    ca: &[u8],
    roots: &[T],
    at_s: i64,
) -> Result<IntermediateCa, ChainError> {
    let ca = parse(ca, INTERMEDIATE)?;
    may_sign(&ca, INTERMEDIATE, 0)?;
    let found = roots
        .iter()
        .map(|root| below((&ca, INTERMEDIATE), root.as_ref(), 1, Some(at_s)));
    let found = found.reduce(|first, next| if first.is_ok() { first } else { next });
    found.unwrap_or(Err(ChainError::Untrusted))?;
    number(&ca)
}

fn parse<'a>(der: &'a [u8], which: &'static str) -> Result<X509Certificate<'a>, ChainError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) if der.len() <= CERTIFICATE_LIMIT => Ok(certificate),
        Ok(_) | Err(_) => Err(ChainError::Malformed { which }),
    }
}

/// Returns the serial number of an intermediate CA (DER), whoever certified it.
///
/// # Errors
/// The certificate cannot be parsed, or has no such serial number.
pub fn number_of(ca: &[u8]) -> Result<IntermediateCa, ChainError> {
    number(&parse(ca, INTERMEDIATE)?)
}

fn number(ca: &X509Certificate<'_>) -> Result<IntermediateCa, ChainError> {
    let bad = ChainError::Bad {
        which: INTERMEDIATE,
        why: "has a serial number that is too long",
    };
    Ok(IntermediateCa {
        serial: serial::of_octets(ca.raw_serial()).ok_or(bad)?,
    })
}

/// Checks that this trusted CA certified `top`, with this number of intermediate CAs below the trusted one.
fn below(
    top: (&X509Certificate<'_>, &'static str),
    root: &[u8],
    intermediates: u32,
    at_s: Option<i64>,
) -> Result<(), ChainError> {
    let root = parse(root, TRUSTED)?;
    if intermediates > 0 && top.0.subject().as_raw() == root.subject().as_raw() {
        return Err(ChainError::Bad {
            which: INTERMEDIATE,
            why: "has the name of a trusted CA",
        });
    }
    match signs((&root, TRUSTED), top, intermediates, at_s) {
        Err(ChainError::Bad { why: FOREIGN, .. }) => Err(ChainError::Untrusted),
        outcome => outcome,
    }
}

/// The error about a certificate that the CA at hand did not sign.
const FOREIGN: &str = "is not signed by its CA";

/// Whether `ca`, below which are so many CAs, may have signed `of`, and did.
fn signs(
    ca: (&X509Certificate<'_>, &'static str),
    of: (&X509Certificate<'_>, &'static str),
    cas_below: u32,
    at_s: Option<i64>,
) -> Result<(), ChainError> {
    let ((ca, ca_which), (of, which)) = (ca, of);
    let bad = |why| Err(ChainError::Bad { which, why });
    if of.issuer().as_raw() != ca.subject().as_raw()
        || of.verify_signature(Some(ca.public_key())).is_err()
    {
        return bad(FOREIGN);
    }
    if of.validity().not_after.timestamp() > ca.validity().not_after.timestamp() {
        return bad("ends after its CA");
    }
    may_sign(ca, ca_which, cas_below)?;
    good(ca, ca_which, at_s)
}

/// Whether that is a CA below which there may be so many more.
fn may_sign(
    ca: &X509Certificate<'_>,
    which: &'static str,
    cas_below: u32,
) -> Result<(), ChainError> {
    let bad = |why| Err(ChainError::Bad { which, why });
    match ca.basic_constraints() {
        Ok(Some(found)) if !found.value.ca => return bad("is none of a CA"),
        Ok(Some(found))
            if found
                .value
                .path_len_constraint
                .is_some_and(|limit| limit < cas_below) =>
        {
            return bad("allows no CA below it");
        }
        Ok(Some(_)) => {}
        Ok(None) | Err(_) => return bad("is none of a CA"),
    }
    match ca.key_usage() {
        Ok(Some(usage)) if usage.value.key_cert_sign() => Ok(()),
        // RFC 5280 asks it of all CAs; what the operator put there by hand is trusted as it is.
        Ok(None) if which == TRUSTED => Ok(()),
        Ok(_) | Err(_) => bad("is not for signing certificates"),
    }
}

/// Returns whether a certificate is accepted in which this extension is critical.
pub fn is_known_if_critical(extension: &ParsedExtension<'_>) -> bool {
    matches!(
        extension,
        ParsedExtension::BasicConstraints(_)
            | ParsedExtension::KeyUsage(_)
            | ParsedExtension::ExtendedKeyUsage(_)
            | ParsedExtension::SubjectAlternativeName(_)
    )
}

/// Checks all other properties of a certificate.
fn good(
    certificate: &X509Certificate<'_>,
    which: &'static str,
    at_s: Option<i64>,
) -> Result<(), ChainError> {
    let bad = |why| Err(ChainError::Bad { which, why });
    let validity = certificate.validity();
    let (begin, end) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    if at_s.is_some_and(|at_s| at_s < begin) {
        return bad("is not good yet");
    }
    if at_s.is_some_and(|at_s| at_s > end) {
        return bad("has expired");
    }
    let mut critical = certificate
        .extensions()
        .iter()
        .filter(|extension| extension.critical);
    if critical.any(|extension| !is_known_if_critical(extension.parsed_extension())) {
        return bad("has a critical extension that is not known here");
    }
    Ok(())
}
