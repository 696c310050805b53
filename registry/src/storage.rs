//! What a registry must never forget, behind one trait; knows no SQL.
//!
//! Whatever returns `Ok` is on the disk. Times are seconds since 1970.

use crate::{authority::Issued, request::ProvenKey};
use policies::names::{Endpoint, Prefix};
use wire::registry::{Kind, Node, Revoked};

/// Why something could not be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The database refused.
    #[error("the registry's database: cannot {what}")]
    Database {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The database is broken, or not of this program.
    #[error("the registry's database at {path} is not sound: {why}")]
    NotSound {
        /// Where.
        path: String,
        /// In words.
        why: String,
    },
    /// A value of the database that cannot be.
    #[error("the registry's database holds {what} that cannot be")]
    Value {
        /// Which.
        what: &'static str,
    },
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Unknown, used or expired: nobody is told which.
    #[error("the token is not good")]
    Token,
    /// A live certificate has this key, or it was revoked.
    #[error("the key has a certificate, or was revoked")]
    KeyKnown,
    /// No prefix is left.
    #[error("no prefix is left")]
    Full,
    /// The certificate that is to be renewed is not live.
    #[error("the certificate is not live")]
    NotLive,
    /// Signing failed.
    #[error("cannot sign")]
    Sign(#[source] crate::authority::AuthorityError),
    /// Keeping failed; nothing was issued.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A certificate as the registry remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Whose.
    pub prefix: Prefix,
    /// Lower-case hex.
    pub serial: String,
    /// SHA-256 of the SPKI.
    pub key: [u8; 32],
    /// Begin of its life.
    pub not_before_s: i64,
    /// End of its life.
    pub not_after_s: i64,
    /// When it was revoked.
    pub revoked_s: Option<i64>,
}

/// Signs for the prefix that the storage chose.
pub type Sign<'a> = &'a dyn Fn(Prefix) -> Result<Issued, crate::authority::AuthorityError>;

/// A claim whose request was checked.
#[derive(Clone, Debug)]
pub struct CheckedClaim {
    /// SHA-256 of the token.
    pub token: [u8; 32],
    /// The key to be certified.
    pub key: ProvenKey,
    /// How long the prefix shall be.
    pub length: u8,
    /// Now.
    pub now_s: i64,
}

/// What a registry must never forget.
pub trait Storage: Send {
    /// Remembers an invitation by the hash of its token.
    ///
    /// # Errors
    /// It could not be kept.
    fn invite(&mut self, token: &[u8; 32], now_s: i64, expires_s: i64) -> Result<(), StorageError>;

    /// In one transaction: spends the token, takes a prefix, signs, and keeps the certificate.
    ///
    /// # Errors
    /// Then nothing has changed, and the token is not spent.
    fn claim(&mut self, claim: &CheckedClaim, sign: Sign<'_>) -> Result<(Prefix, Issued), IssueError>;

    /// In one transaction: signs and keeps a fresh certificate for a live one's prefix.
    ///
    /// # Errors
    /// Then nothing has changed.
    fn renew(
        &mut self,
        old: &Member,
        key: &ProvenKey,
        now_s: i64,
        sign: Sign<'_>,
    ) -> Result<Issued, IssueError>;

    /// The certificate with this serial number.
    ///
    /// # Errors
    /// The database refused.
    fn member(&self, serial: &str) -> Result<Option<Member>, StorageError>;

    /// All certificates that are live at `now_s`, revoked ones included, by prefix.
    ///
    /// # Errors
    /// The database refused.
    fn members(&self, now_s: i64) -> Result<Vec<Member>, StorageError>;

    /// Remembers where a node can be dialled until `until_s`; an empty list forgets it.
    ///
    /// # Errors
    /// It could not be kept.
    fn announce(&mut self, prefix: Prefix, endpoints: &[Endpoint], until_s: i64) -> Result<(), StorageError>;

    /// Up to `count` random nodes with live announcements, never `asker`.
    ///
    /// # Errors
    /// The database refused.
    fn bootstrap(&self, asker: Prefix, count: usize, now_s: i64) -> Result<Vec<Node>, StorageError>;

    /// Revokes all certificates of a prefix; how many were live.
    ///
    /// # Errors
    /// It could not be kept.
    fn revoke(&mut self, prefix: Prefix, now_s: i64) -> Result<usize, StorageError>;

    /// All certificates that are revoked and not yet expired.
    ///
    /// # Errors
    /// The database refused.
    fn revoked(&self, now_s: i64) -> Result<Vec<Revoked>, StorageError>;

    /// A signed document (JSON) with its version.
    ///
    /// # Errors
    /// The database refused.
    fn document(&self, kind: Kind) -> Result<Option<(u64, String)>, StorageError>;

    /// Keeps a signed document (JSON); an older version never replaces a newer.
    ///
    /// # Errors
    /// It could not be kept.
    fn keep_document(&mut self, kind: Kind, version: u64, json: &str) -> Result<(), StorageError>;
}
