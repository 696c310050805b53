//! Stores the registry's state in SQLite: WAL and synchronous FULL, so that an answer is never sent before its
//! data is on disk.

mod announcements;
mod columns;
mod copies;
mod documents;
mod failure;
mod invitations;
mod issue;
mod members;
mod opening;

pub(super) use copies::{copy, verify};

use crate::{
    clock::UnixSeconds,
    pki::{authority::IssuedCertificate, request::ProvenKey},
    store::{
        AuditEntry, CheckedClaim, IssueError, Member, NewInvitation, OpenInvitation, Sign, Storage,
        StorageError, StoredAnnouncement, allocator::Allocator,
    },
};
use columns::prefix_of;
use failure::DatabasePath;
use policies::{names::Prefix, node_name::NodeName};
use rusqlite::{Connection, params};
use wire::registry::{DocumentKind, Revoked};

/// Seconds after which used and expired invitations are deleted: 7 days.
const INVITATION_RETENTION_S: i64 = 7 * 86_400;

/// A database, with the prefixes that it has allocated.
pub(super) struct Sqlite {
    connection: Connection,
    database: DatabasePath,
    allocator: Allocator,
    /// The usual length of a prefix, in bits.
    length: u8,
    /// Seconds for which a prefix stays reserved after its last certificate expired.
    grace_s: i64,
    last_sweep: Option<UnixSeconds>,
}

impl Sqlite {
    /// Runs `work` in a savepoint, so that all or none of its changes are stored.
    fn atomically<T, E: From<StorageError>>(
        &mut self,
        action: &'static str,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let failed = self.database.failure(action);
        let execute = |connection: &Connection, text: &str| {
            connection
                .prepare_cached(text)
                .and_then(|mut statement| statement.execute([]))
                .map(|_| ())
        };
        execute(&self.connection, "SAVEPOINT one").map_err(&failed)?;
        let outcome = work(self).and_then(|done| {
            Ok(execute(&self.connection, "RELEASE one")
                .map(|()| done)
                .map_err(&failed)?)
        });
        if outcome.is_err() {
            // If these fail, SQLite has rolled back the whole transaction itself.
            let _ = execute(&self.connection, "ROLLBACK TO one");
            let _ = execute(&self.connection, "RELEASE one");
        }
        outcome
    }

    /// Deletes old invitations and announcements, and frees prefixes whose grace period has passed. Runs at
    /// most once for each second of `now`.
    fn sweep(&mut self, now: UnixSeconds) -> Result<(), StorageError> {
        if self.last_sweep.replace(now) == Some(now) {
            return Ok(());
        }
        let failed = self.database.failure("delete expired entries");
        let freed = self.atomically("delete expired entries", |this| {
            let connection = &this.connection;
            let freed = {
                let mut delete = connection
                    .prepare_cached(
                        "DELETE FROM prefixes WHERE until_s <= ?1 RETURNING number, length",
                    )
                    .map_err(&failed)?;
                let rows = delete.query_map([now.saturating_sub_s(this.grace_s)], |row| {
                    Ok(prefix_of(row, 0))
                });
                rows.and_then(Iterator::collect::<Result<Vec<_>, _>>)
                    .map_err(&failed)?
            };
            connection
                .execute(
                    "DELETE FROM invitations WHERE max(expires_s, coalesce(used_s, 0)) <= ?1",
                    [now.saturating_sub_s(INVITATION_RETENTION_S)],
                )
                .map_err(&failed)?;
            connection
                .execute("DELETE FROM announcements WHERE until_s <= ?1", [now])
                .map_err(&failed)?;
            Ok::<_, StorageError>(freed)
        })?;
        freed.into_iter().flatten().for_each(|prefix| {
            self.allocator.release(prefix);
        });
        Ok(())
    }
}

impl Storage for Sqlite {
    fn begin(&mut self) -> Result<(), StorageError> {
        self.connection
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(self.database.failure("begin a transaction"))
    }

    fn commit(&mut self) -> Result<(), StorageError> {
        self.connection
            .execute_batch("COMMIT")
            .map_err(self.database.failure("write to the disk"))
    }

    fn rollback(&mut self) -> Result<(), StorageError> {
        if !self.connection.is_autocommit() {
            self.connection
                .execute_batch("ROLLBACK")
                .map_err(self.database.failure("roll back a transaction"))?;
        }
        self.allocator =
            opening::allocated_prefixes(&self.connection, self.length, &self.database)?;
        self.last_sweep = None;
        Ok(())
    }

    fn add_invitation(
        &mut self,
        invitation: &NewInvitation,
        now: UnixSeconds,
    ) -> Result<(), IssueError> {
        self.insert_invitation(invitation, now)
    }

    fn is_anonymous(&self, token: &[u8; 32]) -> Result<bool, StorageError> {
        self.connection
            .prepare_cached("SELECT 1 FROM invitations WHERE token = ?1 AND anonymous")
            .and_then(|mut query| query.exists([token]))
            .map_err(self.database.failure("find an invitation"))
    }

    fn open_invitations(&self, now: UnixSeconds) -> Result<Vec<OpenInvitation>, StorageError> {
        self.read_open_invitations(now)
    }

    fn delete_invitation(
        &mut self,
        invitation: &str,
        now: UnixSeconds,
    ) -> Result<Option<OpenInvitation>, StorageError> {
        self.delete_open_invitation(invitation, now)
    }

    fn delete_open_invitations(&mut self, now: UnixSeconds) -> Result<usize, StorageError> {
        self.connection
            .execute(
                "DELETE FROM invitations WHERE used < uses AND expires_s > ?1",
                [now],
            )
            .map_err(self.database.failure("delete invitations"))
    }

    fn claimed(
        &self,
        token: &[u8; 32],
        key: &[u8; 32],
        now: UnixSeconds,
    ) -> Result<Option<(Prefix, String)>, StorageError> {
        self.read_claimed(token, key, now)
    }

    fn claim(
        &mut self,
        checked: &CheckedClaim,
        sign: Sign<'_>,
    ) -> Result<(Prefix, IssuedCertificate), IssueError> {
        self.sweep(checked.now)?;
        self.issue(checked, sign)
    }

    fn renew(
        &mut self,
        old: &Member,
        key: &ProvenKey,
        now: UnixSeconds,
        sign: Sign<'_>,
    ) -> Result<IssuedCertificate, IssueError> {
        self.issue_renewal(old, key, now, sign)
    }

    fn rename(
        &mut self,
        prefix: Prefix,
        name: &NodeName,
        now: UnixSeconds,
    ) -> Result<(), IssueError> {
        self.rename_node(prefix, name, now)
    }

    fn member(&self, serial: &str) -> Result<Option<Member>, StorageError> {
        self.read_member(serial)
    }

    fn member_with_key(&self, key: &[u8; 32]) -> Result<Option<Member>, StorageError> {
        self.read_member_with_key(key)
    }

    fn certificates(
        &self,
        prefix: Prefix,
        expiring_from: UnixSeconds,
    ) -> Result<Vec<(Member, String)>, StorageError> {
        self.read_certificates(prefix, expiring_from)
    }

    fn find_node(&self, node: &str) -> Result<Option<Prefix>, StorageError> {
        self.read_prefix_of(node)
    }

    fn members(&self, now: UnixSeconds) -> Result<Vec<(Member, Option<String>)>, StorageError> {
        self.read_live_members(now)
    }

    fn store_announcement(
        &mut self,
        prefix: Prefix,
        announcement: &StoredAnnouncement,
    ) -> Result<(), StorageError> {
        self.write_announcement(prefix, announcement)
    }

    fn announcements(
        &self,
        now: UnixSeconds,
    ) -> Result<Vec<(Prefix, StoredAnnouncement)>, StorageError> {
        self.read_announcements(now)
    }

    fn revoke(
        &mut self,
        prefix: Prefix,
        now: UnixSeconds,
        renewable_since: UnixSeconds,
    ) -> Result<usize, StorageError> {
        self.revoke_certificates(prefix, now, renewable_since)
    }

    fn revoked(&self, now: UnixSeconds) -> Result<Vec<Revoked>, StorageError> {
        self.read_revoked(now)
    }

    fn document(&self, kind: DocumentKind) -> Result<String, StorageError> {
        self.read_document(kind)
    }

    fn store_document(
        &mut self,
        kind: DocumentKind,
        version: u64,
        json: &str,
    ) -> Result<(), StorageError> {
        self.write_document(kind, version, json)
    }

    fn state(&self, key: &str) -> Result<Option<String>, StorageError> {
        self.read_state(key)
    }

    fn set_state(&mut self, key: &str, value: Option<&str>) -> Result<(), StorageError> {
        self.write_state(key, value)
    }

    fn append_audit_entry(&mut self, entry: &AuditEntry) -> Result<(), StorageError> {
        self.write_audit_entry(entry)
    }

    fn audit_entries(&self, count: usize) -> Result<Vec<AuditEntry>, StorageError> {
        self.read_audit_entries(count)
    }

    fn reserve_prefixes(
        &mut self,
        count: usize,
        not_after: UnixSeconds,
    ) -> Result<(), StorageError> {
        let failed = self.database.failure("reserve prefixes");
        let length = self.length;
        self.atomically("reserve prefixes", |this| {
            let half = 1usize.checked_shl(u32::from(length) - 1).unwrap_or(count) / 2;
            for _ in 0..count.min(half) {
                let Some(prefix) = this.allocator.allocate(length) else {
                    return Ok(());
                };
                this.connection
                    .prepare_cached(
                        "INSERT INTO prefixes (number, length, until_s) VALUES (?1, ?2, ?3)",
                    )
                    .and_then(|mut insert| {
                        insert.execute(params![prefix.number(), prefix.length(), not_after])
                    })
                    .map_err(&failed)?;
            }
            Ok(())
        })
    }

    fn corrupt(&self, detail: &str) -> StorageError {
        self.database.corrupt(detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changes a database of version 1 by SQL, opens it, and compares the error.
    #[track_caller]
    fn check(change: &str, expected_error: Option<&str>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sqlite");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(opening::MIGRATIONS[0]).unwrap();
        connection
            .pragma_update(None, "application_id", opening::APPLICATION_ID)
            .unwrap();
        connection.execute_batch(change).unwrap();
        drop(connection);
        let opened = Sqlite::open(&path, 16, 0);
        match expected_error {
            None => assert_eq!(opened.unwrap().audit_entries(9).unwrap(), []),
            Some(words) => {
                let error = opened.err().unwrap().to_string();
                assert!(error.contains(words), "{error}");
                assert!(error.contains("a.sqlite"), "the file is not named: {error}");
            }
        }
    }

    #[test]
    fn a_database_of_version_1_is_migrated_and_keeps_its_content() {
        check("", None);
        check(
            "INSERT INTO invitations VALUES (zeroblob(32), 1, 2, 1); INSERT INTO prefixes VALUES (1, 16, 9)",
            None,
        );
    }

    #[test]
    fn a_database_that_is_corrupt_or_of_another_program_is_not_opened() {
        check("PRAGMA application_id = 1", Some("another program made it"));
        check("PRAGMA user_version = 9", Some("it has version 9"));
        check(
            "INSERT INTO prefixes VALUES (1, 16, 9), (1, 15, 9), (3, 17, 9)",
            Some("overlaps another"),
        );
    }

    #[test]
    fn a_file_that_is_no_database_is_reported_as_corrupt_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sqlite");
        std::fs::write(&path, [b'x'; 4096]).unwrap();
        let error = verify(&path).unwrap_err();
        assert!(
            matches!(&error, StorageError::Corrupt { path: named, .. } if *named == path),
            "{error}"
        );
    }

    #[test]
    fn a_prefix_with_a_live_certificate_is_not_allocated_even_if_the_table_of_prefixes_lacks_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sqlite");
        let key = || {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
            let csr = rcgen::CertificateParams::default()
                .serialize_request(&key)
                .unwrap();
            crate::pki::request::read(&csr.pem().unwrap()).unwrap()
        };
        let claim = |sqlite: &mut Sqlite| {
            let fake_sign = |prefix: Prefix, _: Option<&NodeName>| {
                let (serial, certificate) =
                    (format!("{:x}", fastrand::u128(..)), prefix.to_string());
                Ok(IssuedCertificate {
                    serial,
                    certificate,
                    authority: 1,
                    not_before: UnixSeconds(0),
                    not_after: UnixSeconds(100),
                })
            };
            let wanted = crate::store::NodeProperties::default();
            sqlite.claim(
                &CheckedClaim {
                    token: None,
                    key: key(),
                    wanted,
                    length: 16,
                    now: UnixSeconds(1),
                },
                &fake_sign,
            )
        };
        let (first, _) = claim(&mut Sqlite::open(&path, 16, 0).unwrap()).unwrap();
        let mut sqlite = Sqlite::open(&path, 16, 0).unwrap();
        assert_ne!(claim(&mut sqlite).unwrap().0, first);
        sqlite
            .connection
            .execute("UPDATE prefixes SET number = number + 64", [])
            .unwrap();
        let mut sqlite = Sqlite::open(&path, 16, 0).unwrap();
        let error = claim(&mut sqlite).unwrap_err().to_string();
        assert!(error.contains("has a live certificate"), "{error}");
    }

    #[test]
    fn entries_of_the_audit_log_cannot_be_changed_or_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let mut sqlite = Sqlite::open(&folder.path().join("a.sqlite"), 16, 0).unwrap();
        sqlite
            .append_audit_entry(&AuditEntry {
                at: UnixSeconds(1),
                actor: "uid 0".into(),
                action: "x".into(),
            })
            .unwrap();
        assert!(sqlite.connection.execute("DELETE FROM log", []).is_err());
        assert!(
            sqlite
                .connection
                .execute("UPDATE log SET what = 'y'", [])
                .is_err()
        );
        assert_eq!(sqlite.audit_entries(9).unwrap().len(), 1);
    }
}
