//! The persistent state of a registry, behind one trait; knows no SQL.
//!
//! When an operation returns `Ok`, its change is on disk. Times are seconds since 1970.

pub mod allocator;
pub mod sqlite;

use crate::clock::UnixSeconds;
use crate::pki::{authority::IssuedCertificate, request::ProvenKey};
use policies::names::{Endpoint, Prefix};
use wire::registry::{DocumentKind, Revoked};

/// The reason why something could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The database refused.
    #[error("the registry's database: cannot {what}")]
    Database {
        /// The operation that failed.
        what: &'static str,
        /// The underlying error.
        #[source]
        source: rusqlite::Error,
    },
    /// The database is broken, or not of this program.
    #[error("the registry's database at {path} is not sound: {why}")]
    NotSound {
        /// The path of the file.
        path: String,
        /// The fault, in words.
        why: String,
    },
    /// A value of the database that cannot be.
    #[error("the registry's database holds {what} that cannot be")]
    Value {
        /// The value that is wrong.
        what: &'static str,
    },
}

/// The reason why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The token is unknown, used or expired; the answer does not reveal which.
    #[error("the token is not good")]
    Token,
    /// A live certificate has this key, or it was revoked.
    #[error("the key has a certificate, or was revoked")]
    KeyKnown,
    /// All prefixes are in use.
    #[error("no prefix is left")]
    Full,
    /// The prefix that the invitation names is somebody's.
    #[error("the prefix has a live certificate, or overlaps another")]
    PrefixTaken,
    /// The name that the invitation gives is another's.
    #[error("the name is another node's")]
    NameTaken,
    /// The certificate that is to be renewed is not live.
    #[error("the certificate is not live")]
    NotLive,
    /// The certificate could not be signed.
    #[error("cannot sign")]
    Sign(#[source] crate::pki::PkiError),
    /// Keeping failed; nothing was issued.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A certificate as the registry remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The prefix of the node.
    pub prefix: Prefix,
    /// The serial number, in lower-case hex.
    pub serial: String,
    /// SHA-256 of the SPKI.
    pub key: [u8; 32],
    /// Begin of its life.
    pub not_before: UnixSeconds,
    /// End of its life.
    pub not_after: UnixSeconds,
    /// The time of the revocation.
    pub revoked_at: Option<UnixSeconds>,
    /// The version of the CA that signed it.
    pub authority: u32,
}

/// Signs for the prefix that the storage chose.
pub type Sign<'a> = &'a dyn Fn(Prefix) -> Result<IssuedCertificate, crate::pki::PkiError>;

/// What a certificate is issued for, beside the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeProperties {
    /// A name that people use; unique among live nodes.
    pub name: Option<String>,
    /// How long the prefix shall be, in bits; `None`: as the registry hands them out.
    pub length: Option<u8>,
    /// Exactly this prefix.
    pub prefix: Option<Prefix>,
}

/// An invitation as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewInvitation {
    /// SHA-256 of the token.
    pub token: [u8; 32],
    /// The number of certificates that it allows.
    pub uses: u32,
    /// The end of its life.
    pub expires_at: UnixSeconds,
    /// The properties of the nodes that it lets in.
    pub wanted: NodeProperties,
    /// Its line may be published: nobody knows who uses it.
    pub anonymous: bool,
}

/// A claim whose request was checked.
#[derive(Clone, Debug)]
pub struct CheckedClaim {
    /// SHA-256 of the token; `None`: the operator signs, and needs none.
    pub token: Option<[u8; 32]>,
    /// The key to be certified.
    pub key: ProvenKey,
    /// The properties of the node, if there is no token.
    pub wanted: NodeProperties,
    /// The length of a prefix if none is asked for, in bits.
    pub length: u8,
    /// The present time.
    pub now: UnixSeconds,
}

/// The announcement of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredAnnouncement {
    /// The endpoints; empty if the node cannot be dialled.
    pub endpoints: Vec<Endpoint>,
    /// The software that the node runs.
    pub software: String,
    /// Version of the network document that it holds.
    pub network_version: u64,
    /// Version of the network document that all its processes run with.
    pub network_applied: u64,
    /// Version of the revocations that it holds.
    pub revocations_version: u64,
    /// Until when this counts.
    pub valid_until: UnixSeconds,
}

/// A line of the log that only grows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// The time of the entry.
    pub at: UnixSeconds,
    /// Who did it: `uid 0`, or `a stranger` who joined by a public invitation.
    pub actor: String,
    /// What was done, in words; never a token or a key.
    pub action: String,
}

/// The persistent state of a registry.
pub trait Storage: Send {
    /// Begins to gather changes; they are on the disk when [`Self::commit`] returns.
    ///
    /// Without it, each change is on the disk when its call returns.
    ///
    /// # Errors
    /// The database refused.
    fn begin(&mut self) -> Result<(), StorageError>;

    /// Writes what was gathered down to the disk.
    ///
    /// # Errors
    /// Then nothing of it was kept.
    fn commit(&mut self) -> Result<(), StorageError>;

    /// Drops what was gathered, and what is remembered beside the database.
    ///
    /// # Errors
    /// The database cannot be read.
    fn roll_back(&mut self) -> Result<(), StorageError>;

    /// Remembers an invitation by the hash of its token.
    ///
    /// # Errors
    /// Its name or prefix is somebody's already, or it could not be kept.
    fn invite(&mut self, invitation: &NewInvitation, now: UnixSeconds) -> Result<(), IssueError>;

    /// Whether the invitation with this hash of a token is one that may be published.
    ///
    /// # Errors
    /// The database refused.
    fn is_anonymous(&self, token: &[u8; 32]) -> Result<bool, StorageError>;

    /// Deletes all invitations that could still be used; returns their number.
    ///
    /// # Errors
    /// The change could not be stored.
    fn delete_open_invitations(&mut self, now: UnixSeconds) -> Result<usize, StorageError>;

    /// All or nothing: spends the token, takes a prefix, signs, and keeps the certificate.
    ///
    /// # Errors
    /// Then nothing has changed, and the token is not spent.
    fn claim(
        &mut self,
        claim: &CheckedClaim,
        sign: Sign<'_>,
    ) -> Result<(Prefix, IssuedCertificate), IssueError>;

    /// All or nothing: signs and keeps a fresh certificate for the prefix of an old one.
    ///
    /// # Errors
    /// Then nothing has changed.
    fn renew(
        &mut self,
        old: &Member,
        key: &ProvenKey,
        now: UnixSeconds,
        sign: Sign<'_>,
    ) -> Result<IssuedCertificate, IssueError>;

    /// The certificate with this serial number.
    ///
    /// # Errors
    /// The database refused.
    fn member(&self, serial: &str) -> Result<Option<Member>, StorageError>;

    /// All certificates of a prefix that expire at `expiring_from` or later, the newest last, with their
    /// PEM.
    ///
    /// # Errors
    /// The database refused.
    fn certificates(
        &self,
        prefix: Prefix,
        expiring_from: UnixSeconds,
    ) -> Result<Vec<(Member, String)>, StorageError>;

    /// The prefix of the node with this name, prefix or serial number.
    ///
    /// # Errors
    /// The database refused.
    fn find(&self, node: &str) -> Result<Option<Prefix>, StorageError>;

    /// All certificates that are live at `now`, revoked ones included, by prefix; with the names
    /// of their nodes.
    ///
    /// # Errors
    /// The database refused.
    fn members(&self, now: UnixSeconds) -> Result<Vec<(Member, Option<String>)>, StorageError>;

    /// Remembers what a node announced.
    ///
    /// # Errors
    /// It could not be kept.
    fn announce(&mut self, prefix: Prefix, report: &StoredAnnouncement)
    -> Result<(), StorageError>;

    /// Returns all announcements that are still valid.
    ///
    /// # Errors
    /// The database failed.
    fn announced(
        &self,
        now: UnixSeconds,
    ) -> Result<Vec<(Prefix, StoredAnnouncement)>, StorageError>;

    /// Revokes all certificates of a prefix and deletes its announcement; returns how many were
    /// live, or could still have been renewed at `renewable_since`.
    ///
    /// # Errors
    /// The change could not be stored.
    fn revoke(
        &mut self,
        prefix: Prefix,
        now: UnixSeconds,
        renewable_since: UnixSeconds,
    ) -> Result<usize, StorageError>;

    /// All certificates that are revoked and expire after `moment`.
    ///
    /// # Errors
    /// The database refused.
    fn revoked(&self, moment: UnixSeconds) -> Result<Vec<Revoked>, StorageError>;

    /// A signed document (JSON) with its version.
    ///
    /// # Errors
    /// The database refused.
    fn document(&self, kind: DocumentKind) -> Result<Option<(u64, String)>, StorageError>;

    /// Keeps a signed document (JSON); an older version never replaces a newer.
    ///
    /// # Errors
    /// It could not be kept.
    fn store_document(
        &mut self,
        kind: DocumentKind,
        version: u64,
        json: &str,
    ) -> Result<(), StorageError>;

    /// Returns a value that the service stores for itself.
    ///
    /// # Errors
    /// The database failed.
    fn state(&self, key: &str) -> Result<Option<String>, StorageError>;

    /// Stores a value, or deletes it.
    ///
    /// # Errors
    /// The change could not be stored.
    fn keep_state(&mut self, key: &str, value: Option<&str>) -> Result<(), StorageError>;

    /// Adds a line to the log.
    ///
    /// # Errors
    /// It could not be kept.
    fn append_audit_entry(&mut self, entry: &AuditEntry) -> Result<(), StorageError>;

    /// The last `count` lines of the log, the oldest first.
    ///
    /// # Errors
    /// The database refused.
    fn audit_entries(&self, count: usize) -> Result<Vec<AuditEntry>, StorageError>;
}
