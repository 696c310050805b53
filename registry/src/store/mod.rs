//! The persistent state of a registry: one trait of whole operations, and the database behind it.
//!
//! Outside this module nothing depends on SQLite. A change that is made between [`Storage::begin`] and
//! [`Storage::commit`] is on disk when `commit` returns; any other change when its call returns.

mod allocator;
mod error;
mod sqlite;

pub use error::{IssueError, StorageError};

use crate::{
    clock::UnixSeconds,
    pki::{PkiError, authority::IssuedCertificate, certificates::BACKDATE_S, request::ProvenKey},
};
use policies::{
    names::{Endpoint, Prefix},
    node_name::NodeName,
};
use std::{net::IpAddr, path::Path};
use wire::registry::{DocumentKind, Revoked};

/// A certificate as it was recorded when it was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The prefix of the node.
    pub prefix: Prefix,
    /// The serial number, in lower-case hex.
    pub serial: String,
    /// SHA-256 of the SPKI.
    pub key: [u8; 32],
    /// The first moment at which the certificate is valid.
    pub not_before: UnixSeconds,
    /// The moment at which the certificate expires.
    pub not_after: UnixSeconds,
    /// The time of its revocation.
    pub revoked_at: Option<UnixSeconds>,
    /// The version of the CA that signed it.
    pub authority: u32,
    /// The time at which the node was last renamed.
    pub renamed_at: Option<UnixSeconds>,
}

impl Member {
    /// Returns whether the node was renamed since the certificate was issued.
    pub fn states_old_name(&self) -> bool {
        let issued_at = self.not_before.saturating_add_s(BACKDATE_S);
        self.renamed_at.is_some_and(|at| at >= issued_at)
    }
}

/// Signs a certificate for the prefix that the storage allocated, and for the name of the node there.
pub type Sign<'a> = &'a dyn Fn(Prefix, Option<&NodeName>) -> Result<IssuedCertificate, PkiError>;

/// The properties of a node that an invitation or the operator may fix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeProperties {
    /// The name that people use; unique among live nodes.
    pub name: Option<String>,
    /// The length of the prefix in bits; `None` stands for the network's usual length.
    pub length: Option<u8>,
    /// The prefix itself.
    pub prefix: Option<Prefix>,
}

/// An invitation before it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewInvitation {
    /// SHA-256 of the token.
    pub token: [u8; 32],
    /// The number of certificates that it allows.
    pub uses: u32,
    /// The moment from which it is no longer accepted.
    pub expires_at: UnixSeconds,
    /// The properties of the nodes that it lets in.
    pub wanted: NodeProperties,
    /// Whether the invitation may be published, so that anybody may use it.
    pub anonymous: bool,
    /// The person who created it, as the audit log names them.
    pub created_by: String,
}

/// Number of hex digits of an invitation's id: the first ones of the SHA-256 of its token.
pub const INVITATION_ID_DIGITS: usize = 12;

/// Returns the id of the invitation with this hash of a token.
pub fn invitation_id(token: &[u8; 32]) -> String {
    let mut id = wire::signed::hex(token);
    id.truncate(INVITATION_ID_DIGITS);
    id
}

/// An invitation by which nodes may still join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenInvitation {
    /// The id by which the operator revokes it: [`INVITATION_ID_DIGITS`] hex digits.
    pub id: String,
    /// The properties of the nodes that it lets in.
    pub wanted: NodeProperties,
    /// The number of certificates that it allows in total.
    pub uses: u32,
    /// The number of certificates that it still allows.
    pub uses_left: u32,
    /// The time of its creation.
    pub created_at: UnixSeconds,
    /// The person who created it; `None` if that was not recorded.
    pub created_by: Option<String>,
    /// The moment from which it is no longer accepted.
    pub expires_at: UnixSeconds,
    /// Whether it may be published.
    pub anonymous: bool,
}

/// A claim whose certificate request was checked.
#[derive(Clone, Debug)]
pub struct CheckedClaim {
    /// SHA-256 of the token; `None` if the operator signs, who needs none.
    pub token: Option<[u8; 32]>,
    /// The key to be certified.
    pub key: ProvenKey,
    /// The properties of the node if there is no token; an invitation brings its own.
    pub wanted: NodeProperties,
    /// The length of the prefix in bits if no properties ask for another.
    pub length: u8,
    /// The present time.
    pub now: UnixSeconds,
}

/// The last announcement of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredAnnouncement {
    /// The endpoints; empty if the node cannot be dialled.
    pub endpoints: Vec<Endpoint>,
    /// The software that the node runs.
    pub software: String,
    /// Version of the network document that it has received.
    pub network_version: u64,
    /// Version of the network document that all its processes run with.
    pub network_applied: u64,
    /// Version of the revocations that it has received.
    pub revocations_version: u64,
    /// The address from which the node announced itself; `None` if that is not known.
    pub source: Option<IpAddr>,
    /// The moment from which the announcement is ignored.
    pub valid_until: UnixSeconds,
}

/// An entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// The time of the entry.
    pub at: UnixSeconds,
    /// The person who acted: `uid 0`, or `a stranger` who joined by a published invitation.
    pub actor: String,
    /// The action, in words; never a token or a key.
    pub action: String,
}

/// Opens the database at `path`, creates it if there is none, and checks its integrity.
///
/// `length` is the usual length of a prefix in bits, 1 to 32. For `grace_s` seconds after its last
/// certificate expired a prefix is not allocated to another node.
///
/// # Errors
/// The database cannot be opened, is corrupt, or was written by another program or a later version.
pub fn open(path: &Path, length: u8, grace_s: i64) -> Result<Box<dyn Storage>, StorageError> {
    Ok(Box::new(sqlite::Sqlite::open(path, length, grace_s)?))
}

/// Copies the database at `from`, which may be in use, to the new file `to`.
///
/// # Errors
/// `to` exists, or cannot be written.
pub fn copy(from: &Path, to: &Path) -> Result<(), StorageError> {
    sqlite::copy(from, to)
}

/// Reads a whole database and checks that it belongs to a registry and is intact.
///
/// # Errors
/// It is corrupt, belongs to another program, or cannot be read.
pub fn verify(path: &Path) -> Result<(), StorageError> {
    sqlite::verify(path)
}

/// The persistent state of a registry.
///
/// Methods without a description of their own under *Errors* fail only because the database fails; then
/// they have changed nothing.
#[allow(clippy::missing_errors_doc, reason = "described once, above")]
pub trait Storage: Send {
    /// Begins a transaction.
    fn begin(&mut self) -> Result<(), StorageError>;

    /// Writes the transaction to the disk.
    fn commit(&mut self) -> Result<(), StorageError>;

    /// Drops the transaction, and restores everything that is kept in memory from the database.
    fn rollback(&mut self) -> Result<(), StorageError>;

    /// Stores an invitation by the hash of its token.
    ///
    /// # Errors
    /// The name or the prefix is taken, or the database failed.
    fn add_invitation(
        &mut self,
        invitation: &NewInvitation,
        now: UnixSeconds,
    ) -> Result<(), IssueError>;

    /// Returns whether the invitation with this hash of a token is one that may be published.
    fn is_anonymous(&self, token: &[u8; 32]) -> Result<bool, StorageError>;

    /// Returns all invitations that can still be used, the first to expire first.
    fn open_invitations(&self, now: UnixSeconds) -> Result<Vec<OpenInvitation>, StorageError>;

    /// Deletes the invitation with this name or id if it can still be used, and returns it.
    fn delete_invitation(
        &mut self,
        invitation: &str,
        now: UnixSeconds,
    ) -> Result<Option<OpenInvitation>, StorageError>;

    /// Deletes all invitations that could still be used; returns their number.
    fn delete_open_invitations(&mut self, now: UnixSeconds) -> Result<usize, StorageError>;

    /// Returns the prefix and the certificate (PEM) that a claim with this hash of a token and this key got, as long
    /// as the certificate has not expired at `now` and is not revoked. Whether the token can still be used does not
    /// matter.
    fn claimed(
        &self,
        token: &[u8; 32],
        key: &[u8; 32],
        now: UnixSeconds,
    ) -> Result<Option<(Prefix, String)>, StorageError>;

    /// Consumes the token, allocates a prefix, signs, and records the certificate: all of it or nothing.
    ///
    /// # Errors
    /// The claim is rejected, or the database failed. Nothing has changed then, and the token can still be
    /// used.
    fn claim(
        &mut self,
        claim: &CheckedClaim,
        sign: Sign<'_>,
    ) -> Result<(Prefix, IssuedCertificate), IssueError>;

    /// Signs and records a new certificate for the prefix of an old one: all of it or nothing.
    ///
    /// # Errors
    /// The renewal is rejected, or the database failed. Nothing has changed then.
    fn renew(
        &mut self,
        old: &Member,
        key: &ProvenKey,
        now: UnixSeconds,
        sign: Sign<'_>,
    ) -> Result<IssuedCertificate, IssueError>;

    /// Gives the node `prefix` another name. Its certificates from before can be renewed early.
    ///
    /// # Errors
    /// The name is taken, or the database failed. Nothing has changed then.
    fn rename(
        &mut self,
        prefix: Prefix,
        name: &NodeName,
        now: UnixSeconds,
    ) -> Result<(), IssueError>;

    /// Returns the certificate with this serial number.
    fn member(&self, serial: &str) -> Result<Option<Member>, StorageError>;

    /// Returns the certificate with this key (SHA-256 of the SPKI) that expires last.
    fn member_with_key(&self, key: &[u8; 32]) -> Result<Option<Member>, StorageError>;

    /// Returns all certificates of a prefix that expire at `expiring_from` or later, the newest last, with
    /// their PEM.
    fn certificates(
        &self,
        prefix: Prefix,
        expiring_from: UnixSeconds,
    ) -> Result<Vec<(Member, String)>, StorageError>;

    /// Returns the prefix of the node with this name, prefix or serial number.
    fn find_node(&self, node: &str) -> Result<Option<Prefix>, StorageError>;

    /// Returns all certificates that expire after `now`, revoked ones included, sorted by prefix, with the
    /// names of their nodes.
    fn members(&self, now: UnixSeconds) -> Result<Vec<(Member, Option<String>)>, StorageError>;

    /// Replaces the announcement of a node.
    fn store_announcement(
        &mut self,
        prefix: Prefix,
        announcement: &StoredAnnouncement,
    ) -> Result<(), StorageError>;

    /// Returns all announcements that are still valid.
    fn announcements(
        &self,
        now: UnixSeconds,
    ) -> Result<Vec<(Prefix, StoredAnnouncement)>, StorageError>;

    /// Revokes all certificates of a prefix that expire after `renewable_since`, and deletes the node's
    /// announcement. Returns the number of certificates.
    fn revoke(
        &mut self,
        prefix: Prefix,
        now: UnixSeconds,
        renewable_since: UnixSeconds,
    ) -> Result<usize, StorageError>;

    /// Returns all revoked certificates that expire after `now`.
    fn revoked(&self, now: UnixSeconds) -> Result<Vec<Revoked>, StorageError>;

    /// Returns a signed document as JSON.
    ///
    /// # Errors
    /// The database has no such document, or failed.
    fn document(&self, kind: DocumentKind) -> Result<String, StorageError>;

    /// Stores a signed document as JSON; a lower version never replaces a higher one.
    fn store_document(
        &mut self,
        kind: DocumentKind,
        version: u64,
        json: &str,
    ) -> Result<(), StorageError>;

    /// Returns a value that the service stored under a key of its own.
    fn state(&self, key: &str) -> Result<Option<String>, StorageError>;

    /// Stores a value, or deletes it.
    fn set_state(&mut self, key: &str, value: Option<&str>) -> Result<(), StorageError>;

    /// Appends an entry to the audit log, which is never changed otherwise.
    fn append_audit_entry(&mut self, entry: &AuditEntry) -> Result<(), StorageError>;

    /// Returns the last `count` entries of the audit log, the oldest first.
    fn audit_entries(&self, count: usize) -> Result<Vec<AuditEntry>, StorageError>;

    /// Reserves the next `count` free prefixes of the usual length, as if certificates for them expired at
    /// `not_after`; fewer in a small network, so that at least half of it stays free.
    fn reserve_prefixes(
        &mut self,
        count: usize,
        not_after: UnixSeconds,
    ) -> Result<(), StorageError>;

    /// Makes the error for stored data whose damage only the caller can see.
    fn corrupt(&self, detail: &str) -> StorageError;
}
