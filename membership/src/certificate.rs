//! Reads what matters of a node's certificate, and judges a fresh one; knows no clock.

use policies::names::Prefix;
use rustls::pki_types::CertificateDer;
use std::{fs, path::Path, time::Duration};
use wire::chain::{self, ChainError};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The parts of a node's certificate that the daemon uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The prefix of the node.
    pub prefix: Prefix,
    /// Serial number, lower-case hex without leading zeros.
    pub serial: String,
    /// Begin of its life, seconds since 1970.
    pub not_before_s: i64,
    /// End of its life, seconds since 1970.
    pub not_after_s: i64,
    /// Its key (SPKI, DER).
    key: Vec<u8>,
}

/// The reason why a fresh certificate is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCertificate {
    /// The certificate is not that of a node.
    #[error("it is no certificate of a node")]
    Malformed,
    /// None of the CAs that we trust stands behind it.
    #[error("the chain of CAs is not good: {0}")]
    Foreign(ChainError),
    /// For somebody else.
    #[error("it is for another node or another key")]
    NotOurs,
    /// The certificate does not live longer than the old one.
    #[error("it does not live longer than the old one")]
    Older,
}

impl Certificate {
    /// The certificate of a file, with the chain (DER) of which it is the first; `None` where the file cannot
    /// be read.
    pub fn of_file(path: &Path) -> Option<(Vec<Vec<u8>>, Self)> {
        let chain = chain::read_pem(&fs::read(path).ok()?).ok()?;
        let read = Self::read(&chain)?;
        Some((chain, read))
    }

    /// Reads the first certificate of a chain (DER); `None` where it is none of a node.
    pub fn read<C: AsRef<[u8]>>(chain: &[C]) -> Option<Self> {
        let der = chain.first()?.as_ref();
        let named = crate::credentials::named(der)?;
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        Some(Self {
            prefix: named.prefix,
            serial: named.serial,
            not_before_s: parsed.validity().not_before.timestamp(),
            not_after_s: parsed.validity().not_after.timestamp(),
            key: parsed.public_key().raw.to_vec(),
        })
    }

    /// When the last third of its life begins, seconds since 1970.
    pub fn last_third_s(&self) -> i64 {
        self.not_after_s
            .saturating_sub(self.not_after_s.saturating_sub(self.not_before_s) / 3)
    }

    /// Returns the remaining lifetime.
    pub fn remaining(&self, now_s: i64) -> Duration {
        Duration::from_secs(u64::try_from(self.not_after_s.saturating_sub(now_s)).unwrap_or(0))
    }

    /// Whether `fresh`, the first certificate of a chain (PEM), may take the place of this one.
    ///
    /// # Errors
    /// Why not.
    pub fn follows(&self, fresh: &str, cas: &[CertificateDer<'_>]) -> Result<Self, BadCertificate> {
        let chain = chain::read_pem(fresh.as_bytes()).map_err(|_| BadCertificate::Malformed)?;
        let read = Self::read(&chain).ok_or(BadCertificate::Malformed)?;
        // What ends when is asked below, and by TLS.
        chain::verify(&chain, cas, None).map_err(BadCertificate::Foreign)?;
        if read.prefix != self.prefix || read.key != self.key {
            return Err(BadCertificate::NotOurs);
        }
        if read.serial == self.serial || read.not_after_s < self.not_after_s {
            return Err(BadCertificate::Older);
        }
        Ok(read)
    }
}

/// A CA's name in metrics, the first 16 hex digits of its key's SHA-256, and its end, seconds since 1970.
pub fn ca_end(ca: &CertificateDer<'_>) -> Option<(String, i64)> {
    let (_, ca) = X509Certificate::from_der(ca).ok()?;
    let name = wire::signed::sha256_hex(ca.public_key().raw)
        .chars()
        .take(16)
        .collect();
    Some((name, ca.validity().not_after.timestamp()))
}
