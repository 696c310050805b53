//! Keeps the registry's memory in SQLite: WAL, synchronous FULL, so that an answer is never ahead of
//! the disk.

mod columns;
mod copies;
mod issue;
mod opening;
mod peers;

use columns::prefix_of;
pub use copies::{copy, verify};

use crate::{
    clock::UnixSeconds,
    pki::{authority::IssuedCertificate, request::ProvenKey},
    store::{
        AuditEntry, CheckedClaim, IssueError, Member, NewInvitation, Sign, Storage, StorageError,
        StoredAnnouncement, allocator::Allocator,
    },
};
use policies::names::Prefix;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use std::{path::Path, time::Duration};
use wire::registry::{DocumentKind, Revoked};

/// Spent and expired invitations are forgotten after this: 7 days.
const INVITATION_REST_S: i64 = 7 * 86_400;

/// The registry's memory on disk.
pub struct Sqlite {
    connection: Connection,
    allocator: Allocator,
    length: u8,
    /// A prefix rests this long after its last certificate's end before somebody else gets it.
    grace_s: i64,
    last_sweep: Option<UnixSeconds>,
}

fn cannot(what: &'static str) -> impl Fn(rusqlite::Error) -> StorageError {
    move |source| StorageError::Database { what, source }
}

impl Sqlite {
    /// Does several things of which all or none is kept.
    fn together<T, E: From<StorageError>>(
        &mut self,
        what: &'static str,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let failed = cannot(what);
        let order = |connection: &Connection, text: &str| {
            connection
                .prepare_cached(text)
                .and_then(|mut order| order.execute([]))
                .map(|_| ())
        };
        order(&self.connection, "SAVEPOINT one").map_err(&failed)?;
        let outcome = work(self).and_then(|done| {
            Ok(order(&self.connection, "RELEASE one")
                .map(|()| done)
                .map_err(&failed)?)
        });
        if outcome.is_err() {
            // Where even this fails, SQLite has rolled back by itself.
            let _ = order(&self.connection, "ROLLBACK TO one");
            let _ = order(&self.connection, "RELEASE one");
        }
        outcome
    }

    /// Deletes what expired long ago, and frees prefixes whose rest has ended; at most once a
    /// second.
    fn sweep(&mut self, now: UnixSeconds) -> Result<(), StorageError> {
        if self.last_sweep.replace(now) == Some(now) {
            return Ok(());
        }
        let failed = cannot("sweep it");
        let rested = self.together("sweep it", |this| {
            let connection = &this.connection;
            let rested = {
                let mut find = connection
                    .prepare_cached(
                        "DELETE FROM prefixes WHERE until_s <= ?1 RETURNING number, length",
                    )
                    .map_err(&failed)?;
                let rows = find.query_map([now.saturating_sub_s(this.grace_s)], |row| {
                    Ok(prefix_of(row, 0))
                });
                rows.and_then(Iterator::collect::<Result<Vec<_>, _>>)
                    .map_err(&failed)?
            };
            connection
                .execute(
                    "DELETE FROM invitations WHERE max(expires_s, coalesce(used_s, 0)) <= ?1",
                    [now.saturating_sub_s(INVITATION_REST_S)],
                )
                .map_err(&failed)?;
            connection
                .execute("DELETE FROM announcements WHERE until_s <= ?1", [now])
                .map_err(&failed)?;
            Ok::<_, StorageError>(rested)
        })?;
        rested.into_iter().flatten().for_each(|prefix| {
            self.allocator.release(prefix);
        });
        Ok(())
    }
}

const MEMBER: &str =
    "c.number, c.length, serial, key, not_before_s, not_after_s, revoked_s, authority";

fn member_of(row: &Row<'_>) -> rusqlite::Result<Option<Member>> {
    let (serial, key) = (row.get(2)?, row.get(3)?);
    let (not_before, not_after, revoked_at) = (row.get(4)?, row.get(5)?, row.get(6)?);
    let authority = row.get(7)?;
    let member = |prefix| Member {
        prefix,
        serial,
        key,
        not_before,
        not_after,
        revoked_at,
        authority,
    };
    Ok(prefix_of(row, 0).map(member))
}

impl Storage for Sqlite {
    fn begin(&mut self) -> Result<(), StorageError> {
        self.connection
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(cannot("begin"))
    }

    fn commit(&mut self) -> Result<(), StorageError> {
        self.connection
            .execute_batch("COMMIT")
            .map_err(cannot("write to the disk"))
    }

    fn roll_back(&mut self) -> Result<(), StorageError> {
        if !self.connection.is_autocommit() {
            self.connection
                .execute_batch("ROLLBACK")
                .map_err(cannot("roll back"))?;
        }
        let path = self.connection.path().unwrap_or_default().to_owned();
        self.allocator = opening::allocated(&self.connection, self.length, &path)?;
        self.last_sweep = None;
        Ok(())
    }

    fn invite(&mut self, invitation: &NewInvitation, now: UnixSeconds) -> Result<(), IssueError> {
        self.keep_invitation(invitation, now)
    }

    fn is_anonymous(&self, token: &[u8; 32]) -> Result<bool, StorageError> {
        self.connection
            .prepare_cached("SELECT 1 FROM invitations WHERE token = ?1 AND anonymous")
            .and_then(|mut find| find.exists([token]))
            .map_err(cannot("find an invitation"))
    }

    fn delete_open_invitations(&mut self, now: UnixSeconds) -> Result<usize, StorageError> {
        self.connection
            .execute(
                "DELETE FROM invitations WHERE used < uses AND expires_s > ?1",
                [now],
            )
            .map_err(cannot("withdraw invitations"))
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
        self.issue_again(old, key, now, sign)
    }

    fn member(&self, serial: &str) -> Result<Option<Member>, StorageError> {
        self.connection
            .prepare_cached(&format!(
                "SELECT {MEMBER} FROM certificates c WHERE serial = ?1"
            ))
            .and_then(|mut find| find.query_row([serial], member_of).optional())
            .map(Option::flatten)
            .map_err(cannot("find a certificate"))
    }

    fn certificates(
        &self,
        prefix: Prefix,
        expiring_from: UnixSeconds,
    ) -> Result<Vec<(Member, String)>, StorageError> {
        let failed = cannot("find certificates");
        let text = format!(
            "SELECT {MEMBER}, certificate FROM certificates c
                 WHERE number = ?1 AND length = ?2 AND not_after_s >= ?3 ORDER BY not_before_s, not_after_s"
        );
        let mut all = self.connection.prepare_cached(&text).map_err(&failed)?;
        let rows = all
            .query_map(
                params![prefix.number(), prefix.length(), expiring_from],
                |row| Ok((member_of(row)?, row.get(8)?)),
            )
            .map_err(&failed)?;
        let whole = |(member, pem): (Option<Member>, String)| member.map(|member| (member, pem));
        rows.map(|row| {
            row.map(whole)
                .map_err(&failed)?
                .ok_or(StorageError::Value { what: "a prefix" })
        })
        .collect()
    }

    fn find(&self, node: &str) -> Result<Option<Prefix>, StorageError> {
        let (number, length) = node.parse().map_or((None, None), |p: Prefix| {
            (Some(p.number()), Some(p.length()))
        });
        self.connection
            .prepare_cached(
                "SELECT number, length FROM prefixes WHERE (number = ?1 AND length = ?2) OR name = ?3
                 UNION ALL SELECT number, length FROM certificates WHERE serial = ?3 LIMIT 1",
            )
            .and_then(|mut find| {
                find.query_row(params![number, length, node], |row| Ok(prefix_of(row, 0))).optional()
            })
            .map(Option::flatten)
            .map_err(cannot("find a node"))
    }

    fn members(&self, now: UnixSeconds) -> Result<Vec<(Member, Option<String>)>, StorageError> {
        let failed = cannot("list certificates");
        let text = format!(
            "SELECT {MEMBER}, name FROM certificates c LEFT JOIN prefixes p USING (number, length)
                 WHERE not_after_s > ?1 ORDER BY c.number, c.length, not_after_s"
        );
        let mut all = self.connection.prepare_cached(&text).map_err(&failed)?;
        let rows = all
            .query_map([now], |row| Ok((member_of(row)?, row.get(8)?)))
            .map_err(&failed)?;
        let whole =
            |(member, name): (Option<Member>, Option<String>)| member.map(|member| (member, name));
        rows.map(|row| {
            row.map(whole)
                .map_err(&failed)?
                .ok_or(StorageError::Value { what: "a prefix" })
        })
        .collect()
    }

    fn announce(
        &mut self,
        prefix: Prefix,
        report: &StoredAnnouncement,
    ) -> Result<(), StorageError> {
        self.keep_report(prefix, report)
    }

    fn announced(
        &self,
        now: UnixSeconds,
    ) -> Result<Vec<(Prefix, StoredAnnouncement)>, StorageError> {
        self.reports(now)
    }

    fn revoke(
        &mut self,
        prefix: Prefix,
        now: UnixSeconds,
        renewable_since: UnixSeconds,
    ) -> Result<usize, StorageError> {
        let failed = cannot("revoke certificates");
        let (number, length) = (prefix.number(), prefix.length());
        self.together("revoke certificates", |this| {
            let revoked = this.connection.execute(
                "UPDATE certificates SET revoked_s = ?3
                     WHERE number = ?1 AND length = ?2 AND revoked_s IS NULL AND not_after_s > ?4",
                params![number, length, now, renewable_since],
            );
            let revoked = revoked.map_err(&failed)?;
            this.connection
                .execute(
                    "DELETE FROM announcements WHERE number = ?1 AND length = ?2",
                    params![number, length],
                )
                .map_err(&failed)?;
            Ok(revoked)
        })
    }

    fn revoked(&self, moment: UnixSeconds) -> Result<Vec<Revoked>, StorageError> {
        let failed = cannot("list revocations");
        let text = format!(
            "SELECT {MEMBER} FROM certificates c WHERE revoked_s IS NOT NULL AND not_after_s > ?1
                 ORDER BY number, length, not_after_s"
        );
        let mut all = self.connection.prepare_cached(&text).map_err(&failed)?;
        let rows = all.query_map([moment], member_of).map_err(&failed)?;
        rows.map(|row| {
            let member = row
                .map_err(&failed)?
                .ok_or(StorageError::Value { what: "a prefix" })?;
            let key = wire::signed::hex(&member.key);
            Ok(Revoked {
                prefix: member.prefix,
                serial: member.serial,
                key,
            })
        })
        .collect()
    }

    fn document(&self, kind: DocumentKind) -> Result<Option<(u64, String)>, StorageError> {
        self.stored_document(kind)
    }

    fn store_document(
        &mut self,
        kind: DocumentKind,
        version: u64,
        json: &str,
    ) -> Result<(), StorageError> {
        self.store_document_row(kind, version, json)
    }

    fn state(&self, key: &str) -> Result<Option<String>, StorageError> {
        self.connection
            .prepare_cached("SELECT value FROM state WHERE key = ?1")
            .and_then(|mut find| find.query_row([key], |row| row.get(0)).optional())
            .map_err(cannot("read its state"))
    }

    fn keep_state(&mut self, key: &str, value: Option<&str>) -> Result<(), StorageError> {
        let kept = match value {
            Some(value) => self.connection.execute(
                "INSERT INTO state (key, value) VALUES (?1, ?2)
                     ON CONFLICT DO UPDATE SET value = excluded.value",
                [key, value],
            ),
            None => self
                .connection
                .execute("DELETE FROM state WHERE key = ?1", [key]),
        };
        kept.map(|_| ()).map_err(cannot("keep its state"))
    }

    fn append_audit_entry(&mut self, entry: &AuditEntry) -> Result<(), StorageError> {
        self.connection
            .execute(
                "INSERT INTO log (at_s, who, what) VALUES (?1, ?2, ?3)",
                params![entry.at, entry.actor, entry.action],
            )
            .map(|_| ())
            .map_err(cannot("write to its log"))
    }

    fn audit_entries(&self, count: usize) -> Result<Vec<AuditEntry>, StorageError> {
        let failed = cannot("read its log");
        let limit = i64::try_from(count).unwrap_or(i64::MAX);
        let mut all = self
            .connection
            .prepare_cached("SELECT at_s, who, what FROM log ORDER BY id DESC LIMIT ?1")
            .map_err(&failed)?;
        let entry = |row: &Row<'_>| {
            Ok(AuditEntry {
                at: row.get(0)?,
                actor: row.get(1)?,
                action: row.get(2)?,
            })
        };
        let mut entries: Vec<AuditEntry> = all
            .query_map([limit], entry)
            .and_then(Iterator::collect)
            .map_err(&failed)?;
        entries.reverse();
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens a database after `change` was done to it by somebody else.
    #[track_caller]
    fn check(change: &str, complaint: Option<&str>) {
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
        match complaint {
            None => assert_eq!(opened.unwrap().audit_entries(9).unwrap(), []),
            Some(words) => {
                let said = opened.err().unwrap().to_string();
                assert!(said.contains(words), "{said:?} does not say {words:?}");
            }
        }
    }

    #[test]
    fn a_database_of_the_first_version_is_brought_up_and_keeps_what_it_holds() {
        check("", None);
        check(
            "INSERT INTO invitations VALUES (zeroblob(32), 1, 2, 1); INSERT INTO prefixes VALUES (1, 16, 9)",
            None,
        );
    }

    #[test]
    fn a_database_that_cannot_be_is_refused() {
        check("PRAGMA application_id = 1", Some("another program made it"));
        check("PRAGMA user_version = 9", Some("it has version 9"));
        check(
            "INSERT INTO prefixes VALUES (1, 16, 9), (1, 15, 9), (3, 17, 9)",
            Some("overlaps another"),
        );
    }

    #[test]
    fn a_live_prefix_that_the_table_of_prefixes_calls_free_is_not_given_again() {
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
            let fake_sign = |prefix: Prefix| {
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
        let (given, _) = claim(&mut Sqlite::open(&path, 16, 0).unwrap()).unwrap();
        let mut sqlite = Sqlite::open(&path, 16, 0).unwrap();
        assert_ne!(claim(&mut sqlite).unwrap().0, given);
        sqlite
            .connection
            .execute("UPDATE prefixes SET number = number + 64", [])
            .unwrap();
        let mut sqlite = Sqlite::open(&path, 16, 0).unwrap();
        let refused = claim(&mut sqlite).unwrap_err().to_string();
        assert!(refused.contains("a live prefix as a free one"), "{refused}");
    }

    #[test]
    fn the_log_only_grows() {
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
