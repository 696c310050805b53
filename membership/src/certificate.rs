//! Reads the prefix, serial number, validity and key of a node's certificate, and checks whether a new certificate may
//! replace it. Reads no clock.

use policies::{names::Prefix, node_name::NodeName};
use rustls::pki_types::CertificateDer;
use std::{path::Path, time::Duration};
use wire::chain::{self, ChainError};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Maximum size of a key, certificate or bundle of CAs that is read, in bytes.
pub const MAX_CREDENTIAL_BYTES: u64 = 1 << 20;

/// The parts of a node's certificate that the daemon uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The prefix of the node.
    pub prefix: Prefix,
    /// The name of the node, if the certificate states one.
    pub name: Option<NodeName>,
    /// Serial number, lower-case hex without leading zeros.
    pub serial: String,
    /// notBefore, in seconds since 1970.
    pub not_before_s: i64,
    /// notAfter, in seconds since 1970.
    pub not_after_s: i64,
    /// The public key (SPKI, DER).
    key: Vec<u8>,
}

/// The reason why a new certificate is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCertificate {
    /// The text is not a chain that starts with a node's certificate.
    #[error("it is not a node's certificate")]
    Malformed,
    /// The chain does not lead to a trusted CA, or violates a rule.
    #[error("its chain of CAs is rejected: {0}")]
    Chain(ChainError),
    /// The prefix or the key is not that of the old certificate.
    #[error("it is for another node or another key")]
    OtherHolder,
    /// The certificate is the old one, or expires before it.
    #[error("it is the old certificate again, or expires before it")]
    NotNewer,
}

impl Certificate {
    /// Reads the chain in a file (PEM), and its first certificate; `None` if the file cannot be read, or the certificate is
    /// not a node's. The chain is returned in DER.
    pub fn read_file(path: &Path) -> Option<(Vec<Vec<u8>>, Self)> {
        let chain = chain::read_pem(&files::read(path, MAX_CREDENTIAL_BYTES).ok()?).ok()?;
        let certificate = Self::read(&chain)?;
        Some((chain, certificate))
    }

    /// Reads the first certificate of a chain (DER); `None` if it is not a node's.
    pub fn read<C: AsRef<[u8]>>(chain: &[C]) -> Option<Self> {
        let der = chain.first()?.as_ref();
        let identity = crate::credentials::read_identity(der)?;
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        Some(Self {
            prefix: identity.prefix,
            name: identity.name,
            serial: identity.serial,
            not_before_s: parsed.validity().not_before.timestamp(),
            not_after_s: parsed.validity().not_after.timestamp(),
            key: parsed.public_key().raw.to_vec(),
        })
    }

    /// Returns the start of the last third of the certificate's validity, in seconds since 1970.
    ///
    /// The validity counts from notBefore, which the registry sets an hour before it issues the certificate.
    pub fn last_third_start_s(&self) -> i64 {
        self.not_after_s
            .saturating_sub(self.not_after_s.saturating_sub(self.not_before_s) / 3)
    }

    /// Returns the time until notAfter; zero once the certificate has expired.
    pub fn remaining_lifetime(&self, now_s: i64) -> Duration {
        Duration::from_secs(u64::try_from(self.not_after_s.saturating_sub(now_s)).unwrap_or(0))
    }

    /// Checks that the first certificate of the chain `new_pem` may replace this one, and returns it. It must be for the
    /// same node and key, lead to one of `cas`, and not expire earlier.
    ///
    /// # Errors
    /// The new certificate violates one of these rules.
    pub fn check_successor(
        &self,
        new_pem: &str,
        cas: &[CertificateDer<'_>],
    ) -> Result<Self, BadCertificate> {
        let chain = chain::read_pem(new_pem.as_bytes()).map_err(|_| BadCertificate::Malformed)?;
        let new = Self::read(&chain).ok_or(BadCertificate::Malformed)?;
        // The validity of the certificate is compared below; TLS checks that of the whole chain.
        chain::verify(&chain, cas, None).map_err(BadCertificate::Chain)?;
        if new.prefix != self.prefix || new.key != self.key {
            return Err(BadCertificate::OtherHolder);
        }
        if new.serial == self.serial || new.not_after_s < self.not_after_s {
            return Err(BadCertificate::NotNewer);
        }
        Ok(new)
    }
}

/// Returns the name of a CA in metrics and its notAfter, in seconds since 1970. The name is the first 16 hex digits of the
/// SHA-256 of the CA's key (SPKI).
pub fn ca_name_and_expiry(ca: &CertificateDer<'_>) -> Option<(String, i64)> {
    let (_, ca) = X509Certificate::from_der(ca).ok()?;
    let name = wire::signed::sha256_hex(ca.public_key().raw)
        .chars()
        .take(16)
        .collect();
    Some((name, ca.validity().not_after.timestamp()))
}
