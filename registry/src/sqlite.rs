//! Keeps the registry's memory in SQLite: WAL, synchronous FULL, so that an answer is never ahead of
//! the disk.

use crate::{
    allocator::Allocator,
    authority::Issued,
    request::ProvenKey,
    storage::{CheckedClaim, IssueError, Member, Sign, Storage, StorageError},
};
use policies::names::{Endpoint, Prefix};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use std::path::Path;
use wire::registry::{Kind, Node, Revoked};

/// A prefix rests this long after its last certificate's end before somebody else gets it: 30 days.
pub const GRACE_S: i64 = 30 * 86_400;

/// Spent and expired invitations are forgotten after this: 7 days.
const INVITATION_REST_S: i64 = 7 * 86_400;

/// `PRAGMA application_id`: "wrnR".
const APPLICATION_ID: i32 = 0x7772_6e52;

const SCHEMA: &str = include_str!("schema.sql");

/// The registry's memory on disk.
pub struct Sqlite {
    connection: Connection,
    allocator: Allocator,
}

fn cannot(what: &'static str) -> impl Fn(rusqlite::Error) -> StorageError {
    move |source| StorageError::Database { what, source }
}

impl Sqlite {
    /// Opens the database at `path`, makes it where there is none, and checks that it is sound.
    ///
    /// `length` is that of the prefixes handed out, 1..=32.
    ///
    /// # Errors
    /// It cannot be opened, is broken, or was written by another program or a later version.
    pub fn open(path: &Path, length: u8) -> Result<Self, StorageError> {
        let connection = Connection::open(path).map_err(cannot("open it"))?;
        Self::prepare(connection, &path.display().to_string(), length)
    }

    fn prepare(mut connection: Connection, path: &str, length: u8) -> Result<Self, StorageError> {
        let unsound = |why: String| StorageError::NotSound { path: path.to_owned(), why };
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;",
            )
            .map_err(cannot("set it up"))?;
        let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let version = pragma("user_version").map_err(cannot("read its version"))?;
        let program = pragma("application_id").map_err(cannot("read its program"))?;
        match (program, version) {
            (0, 0) => {
                let begin = TransactionBehavior::Immediate;
                let making =
                    connection.transaction_with_behavior(begin).map_err(cannot("make its tables"))?;
                making.execute_batch(SCHEMA).map_err(cannot("make its tables"))?;
                making
                    .pragma_update(None, "application_id", APPLICATION_ID)
                    .map_err(cannot("make its tables"))?;
                making.commit().map_err(cannot("make its tables"))?;
            }
            (APPLICATION_ID, 1) => {}
            (APPLICATION_ID, later) => return Err(unsound(format!("it has version {later}, not 1"))),
            (_, _) => return Err(unsound("another program made it".into())),
        }
        let verdict = connection
            .pragma_query_value(None, "integrity_check", |row| row.get::<_, String>(0))
            .map_err(cannot("check it"))?;
        if verdict != "ok" {
            return Err(unsound(verdict));
        }
        let mut allocator = Allocator::new(length);
        for prefix in taken_prefixes(&connection)? {
            if !allocator.take(prefix) {
                return Err(unsound(format!("prefix {prefix} overlaps another")));
            }
        }
        Ok(Self { connection, allocator })
    }

    /// Forgets what is long over, and lets prefixes go whose rest has ended.
    fn sweep(&mut self, now_s: i64) -> Result<(), StorageError> {
        let failed = cannot("sweep it");
        let sweeping =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        let rested = {
            let mut find = sweeping
                .prepare_cached("DELETE FROM prefixes WHERE until_s <= ?1 RETURNING number, length")
                .map_err(&failed)?;
            let rows = find.query_map([now_s.saturating_sub(GRACE_S)], |row| Ok(prefix_of(row, 0)));
            rows.and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(&failed)?
        };
        sweeping
            .execute(
                "DELETE FROM invitations WHERE max(expires_s, coalesce(used_s, 0)) <= ?1",
                [now_s.saturating_sub(INVITATION_REST_S)],
            )
            .map_err(&failed)?;
        sweeping.execute("DELETE FROM announcements WHERE until_s <= ?1", [now_s]).map_err(&failed)?;
        sweeping.commit().map_err(&failed)?;
        rested.into_iter().flatten().for_each(|prefix| {
            self.allocator.release(prefix);
        });
        Ok(())
    }
}

fn taken_prefixes(connection: &Connection) -> Result<Vec<Prefix>, StorageError> {
    let failed = cannot("read its prefixes");
    let mut all = connection.prepare("SELECT number, length FROM prefixes").map_err(&failed)?;
    let rows = all.query_map([], |row| Ok(prefix_of(row, 0))).map_err(&failed)?;
    rows.map(|row| row.map_err(&failed)?.ok_or(StorageError::Value { what: "a prefix" })).collect()
}

/// The prefix in columns `at` and `at + 1`.
fn prefix_of(row: &Row<'_>, at: usize) -> Option<Prefix> {
    Prefix::new(row.get(at).ok()?, row.get(at + 1).ok()?)
}

const MEMBER: &str = "number, length, serial, key, not_before_s, not_after_s, revoked_s";

fn member_of(row: &Row<'_>) -> rusqlite::Result<Option<Member>> {
    let (serial, key) = (row.get(2)?, row.get(3)?);
    let (not_before_s, not_after_s, revoked_s) = (row.get(4)?, row.get(5)?, row.get(6)?);
    let member = |prefix| Member { prefix, serial, key, not_before_s, not_after_s, revoked_s };
    Ok(prefix_of(row, 0).map(member))
}

/// Whether a key may have a certificate for `prefix`: it is not barred, and nobody else has it live.
fn key_is_free(
    tx: &Transaction<'_>,
    key: &[u8; 32],
    prefix: Option<Prefix>,
    now_s: i64,
) -> rusqlite::Result<bool> {
    let (number, length) = prefix.map_or((None, None), |p| (Some(p.number()), Some(p.length())));
    let mut find = tx.prepare_cached(
        "SELECT 1 FROM certificates WHERE key = ?1 AND (revoked_s IS NOT NULL
             OR (not_after_s > ?2 AND NOT (number IS ?3 AND length IS ?4)))",
    )?;
    Ok(!find.exists(params![key, now_s, number, length])?)
}

fn keep_certificate(
    tx: &Transaction<'_>,
    prefix: Prefix,
    key: &[u8; 32],
    issued: &Issued,
) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO certificates (serial, number, length, key, not_before_s, not_after_s, certificate)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            issued.serial,
            prefix.number(),
            prefix.length(),
            key,
            issued.not_before_s,
            issued.not_after_s,
            issued.certificate
        ],
    )?;
    tx.execute(
        "INSERT INTO prefixes (number, length, until_s) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET until_s = max(until_s, excluded.until_s)",
        params![prefix.number(), prefix.length(), issued.not_after_s],
    )?;
    Ok(())
}

/// One claim's transaction for a prefix that was chosen; dropped without a commit on any error.
fn claim(
    connection: &mut Connection,
    claim: &CheckedClaim,
    prefix: Option<Prefix>,
    sign: Sign<'_>,
) -> Result<(Prefix, Issued), IssueError> {
    let failed = cannot("issue a certificate");
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
    let spent = tx
        .execute(
            "UPDATE invitations SET used_s = ?2 WHERE token = ?1 AND used_s IS NULL AND expires_s > ?2",
            params![claim.token, claim.now_s],
        )
        .map_err(&failed)?;
    if spent != 1 {
        return Err(IssueError::Token);
    }
    let key = claim.key.hash();
    if !key_is_free(&tx, &key, None, claim.now_s).map_err(&failed)? {
        return Err(IssueError::KeyKnown);
    }
    let prefix = prefix.ok_or(IssueError::Full)?;
    let issued = sign(prefix).map_err(IssueError::Sign)?;
    keep_certificate(&tx, prefix, &key, &issued).map_err(&failed)?;
    tx.commit().map_err(&failed)?;
    Ok((prefix, issued))
}

impl Storage for Sqlite {
    fn invite(&mut self, token: &[u8; 32], now_s: i64, expires_s: i64) -> Result<(), StorageError> {
        self.connection
            .execute(
                "INSERT INTO invitations (token, made_s, expires_s) VALUES (?1, ?2, ?3)",
                params![token, now_s, expires_s],
            )
            .map(|_| ())
            .map_err(cannot("keep an invitation"))
    }

    fn claim(&mut self, checked: &CheckedClaim, sign: Sign<'_>) -> Result<(Prefix, Issued), IssueError> {
        self.sweep(checked.now_s)?;
        let prefix = self.allocator.allocate(checked.length);
        let outcome = claim(&mut self.connection, checked, prefix, sign);
        if let (Err(_), Some(prefix)) = (&outcome, prefix) {
            self.allocator.release(prefix);
        }
        outcome
    }

    fn renew(
        &mut self,
        old: &Member,
        key: &ProvenKey,
        now_s: i64,
        sign: Sign<'_>,
    ) -> Result<Issued, IssueError> {
        let failed = cannot("renew a certificate");
        let tx =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        let live = tx
            .prepare_cached(
                "SELECT 1 FROM certificates WHERE serial = ?1 AND revoked_s IS NULL AND not_after_s > ?2",
            )
            .and_then(|mut find| find.exists(params![old.serial, now_s]))
            .map_err(&failed)?;
        if !live {
            return Err(IssueError::NotLive);
        }
        let hash = key.hash();
        if !key_is_free(&tx, &hash, Some(old.prefix), now_s).map_err(&failed)? {
            return Err(IssueError::KeyKnown);
        }
        let issued = sign(old.prefix).map_err(IssueError::Sign)?;
        keep_certificate(&tx, old.prefix, &hash, &issued).map_err(&failed)?;
        tx.commit().map_err(&failed)?;
        Ok(issued)
    }

    fn member(&self, serial: &str) -> Result<Option<Member>, StorageError> {
        let failed = cannot("find a certificate");
        self.connection
            .prepare_cached(&format!("SELECT {MEMBER} FROM certificates WHERE serial = ?1"))
            .and_then(|mut find| find.query_row([serial], member_of).optional())
            .map(Option::flatten)
            .map_err(failed)
    }

    fn members(&self, now_s: i64) -> Result<Vec<Member>, StorageError> {
        let failed = cannot("list certificates");
        let text = format!(
            "SELECT {MEMBER} FROM certificates WHERE not_after_s > ?1 ORDER BY number, length, not_after_s"
        );
        let mut all = self.connection.prepare_cached(&text).map_err(&failed)?;
        let rows = all.query_map([now_s], member_of).map_err(&failed)?;
        rows.map(|row| row.map_err(&failed)?.ok_or(StorageError::Value { what: "a prefix" })).collect()
    }

    fn announce(&mut self, prefix: Prefix, endpoints: &[Endpoint], until_s: i64) -> Result<(), StorageError> {
        let (number, length) = (prefix.number(), prefix.length());
        let kept = if endpoints.is_empty() {
            let text = "DELETE FROM announcements WHERE number = ?1 AND length = ?2";
            self.connection.execute(text, params![number, length])
        } else {
            let text = endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(" ");
            self.connection.execute(
                "INSERT INTO announcements (number, length, endpoints, until_s) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO UPDATE SET endpoints = excluded.endpoints, until_s = excluded.until_s",
                params![number, length, text, until_s],
            )
        };
        kept.map(|_| ()).map_err(cannot("keep an announcement"))
    }

    fn bootstrap(&self, asker: Prefix, count: usize, now_s: i64) -> Result<Vec<Node>, StorageError> {
        let failed = cannot("find announcements");
        let mut find = self
            .connection
            .prepare_cached(
                "SELECT number, length, endpoints FROM announcements
                     WHERE until_s > ?1 AND NOT (number = ?2 AND length = ?3) ORDER BY random() LIMIT ?4",
            )
            .map_err(&failed)?;
        let limit = i64::try_from(count).unwrap_or(i64::MAX);
        let found = find
            .query_map(params![now_s, asker.number(), asker.length(), limit], |row| {
                Ok((prefix_of(row, 0), row.get::<_, String>(2)?))
            })
            .map_err(&failed)?;
        found
            .map(|row| {
                let (prefix, text) = row.map_err(&failed)?;
                let endpoints = text.split(' ').map(str::parse).collect::<Result<Vec<Endpoint>, _>>();
                match (prefix, endpoints) {
                    (Some(prefix), Ok(endpoints)) => Ok(Node { prefix, endpoints }),
                    (_, _) => Err(StorageError::Value { what: "an announcement" }),
                }
            })
            .collect()
    }

    fn revoke(&mut self, prefix: Prefix, now_s: i64) -> Result<usize, StorageError> {
        let failed = cannot("revoke certificates");
        let (number, length) = (prefix.number(), prefix.length());
        let tx =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        let revoked = tx
            .execute(
                "UPDATE certificates SET revoked_s = ?3
                     WHERE number = ?1 AND length = ?2 AND revoked_s IS NULL AND not_after_s > ?3",
                params![number, length, now_s],
            )
            .map_err(&failed)?;
        tx.execute("DELETE FROM announcements WHERE number = ?1 AND length = ?2", params![number, length])
            .map_err(&failed)?;
        tx.commit().map_err(&failed)?;
        Ok(revoked)
    }

    fn revoked(&self, now_s: i64) -> Result<Vec<Revoked>, StorageError> {
        let live = self.members(now_s)?.into_iter().filter(|member| member.revoked_s.is_some());
        Ok(live
            .map(|member| Revoked {
                prefix: member.prefix,
                serial: member.serial,
                key: wire::signed::hex(&member.key),
            })
            .collect())
    }

    fn document(&self, kind: Kind) -> Result<Option<(u64, String)>, StorageError> {
        self.connection
            .prepare_cached("SELECT version, json FROM documents WHERE kind = ?1")
            .and_then(|mut find| {
                find.query_row([name_of(kind)], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?))).optional()
            })
            .map_err(cannot("read a document"))?
            .map(|(version, json)| {
                let version = u64::try_from(version);
                Ok((version.map_err(|_| StorageError::Value { what: "a document's version" })?, json))
            })
            .transpose()
    }

    fn keep_document(&mut self, kind: Kind, version: u64, json: &str) -> Result<(), StorageError> {
        let version = i64::try_from(version).map_err(|_| StorageError::Value { what: "a version" })?;
        self.connection
            .execute(
                "INSERT INTO documents (kind, version, json) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE
                     SET version = excluded.version, json = excluded.json WHERE excluded.version > version",
                params![name_of(kind), version, json],
            )
            .map(|_| ())
            .map_err(cannot("keep a document"))
    }
}

fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Network => "network",
        Kind::Revocations => "revocations",
    }
}
