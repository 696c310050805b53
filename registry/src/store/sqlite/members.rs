//! Reads and revokes certificates.

use super::{Sqlite, columns::prefix_of};
use crate::{
    clock::UnixSeconds,
    store::{Member, StorageError},
};
use policies::names::Prefix;
use rusqlite::{OptionalExtension, Row, params};
use wire::registry::Revoked;

/// The columns that [`member_of`] reads.
const MEMBER_COLUMNS: &str =
    "c.number, c.length, serial, key, not_before_s, not_after_s, revoked_s, authority,
         (SELECT p.renamed_s FROM prefixes p WHERE p.number = c.number AND p.length = c.length)";

/// Reads a row that begins with [`MEMBER_COLUMNS`]; `None` if its prefix is out of range.
fn member_of(row: &Row<'_>) -> rusqlite::Result<Option<Member>> {
    let (serial, key) = (row.get(2)?, row.get(3)?);
    let (not_before, not_after, revoked_at) = (row.get(4)?, row.get(5)?, row.get(6)?);
    let (authority, renamed_at) = (row.get(7)?, row.get(8)?);
    let member = |prefix| Member {
        prefix,
        serial,
        key,
        not_before,
        not_after,
        revoked_at,
        authority,
        renamed_at,
    };
    Ok(prefix_of(row, 0).map(member))
}

impl Sqlite {
    pub(super) fn read_member(&self, serial: &str) -> Result<Option<Member>, StorageError> {
        self.read_one("serial = ?1", [serial])
    }

    pub(super) fn read_member_with_key(
        &self,
        key: &[u8; 32],
    ) -> Result<Option<Member>, StorageError> {
        self.read_one("key = ?1 ORDER BY not_after_s DESC LIMIT 1", [key])
    }

    /// Reads the first certificate that a condition selects.
    fn read_one(
        &self,
        condition: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Option<Member>, StorageError> {
        self.connection
            .prepare_cached(&format!(
                "SELECT {MEMBER_COLUMNS} FROM certificates c WHERE {condition}"
            ))
            .and_then(|mut query| query.query_row(parameters, member_of).optional())
            .map(Option::flatten)
            .map_err(self.database.failure("read a certificate"))
    }

    /// Runs a query whose rows begin with [`MEMBER_COLUMNS`] and have one more column.
    fn read_members<T: rusqlite::types::FromSql>(
        &self,
        query: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Vec<(Member, T)>, StorageError> {
        let failed = self.database.failure("read certificates");
        let mut query = self.connection.prepare_cached(query).map_err(&failed)?;
        let rows = query
            .query_map(parameters, |row| Ok((member_of(row)?, row.get(9)?)))
            .map_err(&failed)?;
        rows.map(|row| {
            let (member, more) = row.map_err(&failed)?;
            let out_of_range = || {
                self.database
                    .corrupt("a certificate's prefix is out of range")
            };
            Ok((member.ok_or_else(out_of_range)?, more))
        })
        .collect()
    }

    pub(super) fn read_certificates(
        &self,
        prefix: Prefix,
        expiring_from: UnixSeconds,
    ) -> Result<Vec<(Member, String)>, StorageError> {
        let query = format!(
            "SELECT {MEMBER_COLUMNS}, certificate FROM certificates c
                 WHERE number = ?1 AND length = ?2 AND not_after_s >= ?3 ORDER BY not_before_s, not_after_s"
        );
        self.read_members(
            &query,
            params![prefix.number(), prefix.length(), expiring_from],
        )
    }

    pub(super) fn read_live_members(
        &self,
        now: UnixSeconds,
    ) -> Result<Vec<(Member, Option<String>)>, StorageError> {
        let query = format!(
            "SELECT {MEMBER_COLUMNS}, name FROM certificates c LEFT JOIN prefixes p USING (number, length)
                 WHERE not_after_s > ?1 ORDER BY c.number, c.length, not_after_s"
        );
        self.read_members(&query, [now])
    }

    pub(super) fn read_prefix_of(&self, node: &str) -> Result<Option<Prefix>, StorageError> {
        let (number, length) = node.parse().map_or((None, None), |prefix: Prefix| {
            (Some(prefix.number()), Some(prefix.length()))
        });
        self.connection
            .prepare_cached(
                "SELECT number, length, 0 AS rank FROM prefixes WHERE number = ?1 AND length = ?2
                 UNION ALL SELECT number, length, 1 FROM prefixes WHERE name = ?3
                 UNION ALL SELECT number, length, 2 FROM prefixes WHERE name = ?3 COLLATE NOCASE
                 UNION ALL SELECT number, length, 3 FROM certificates WHERE serial = ?3
                 ORDER BY rank LIMIT 1",
            )
            .and_then(|mut query| {
                query
                    .query_row(params![number, length, node], |row| Ok(prefix_of(row, 0)))
                    .optional()
            })
            .map(Option::flatten)
            .map_err(self.database.failure("find a node"))
    }

    pub(super) fn revoke_certificates(
        &mut self,
        prefix: Prefix,
        now: UnixSeconds,
        renewable_since: UnixSeconds,
    ) -> Result<usize, StorageError> {
        let failed = self.database.failure("revoke certificates");
        let (number, length) = (prefix.number(), prefix.length());
        self.atomically("revoke certificates", |this| {
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

    pub(super) fn read_revoked(&self, now: UnixSeconds) -> Result<Vec<Revoked>, StorageError> {
        let query = format!(
            "SELECT {MEMBER_COLUMNS}, 0 FROM certificates c WHERE revoked_s IS NOT NULL AND not_after_s > ?1
                 ORDER BY number, length, not_after_s"
        );
        let members = self.read_members::<i64>(&query, [now])?.into_iter();
        Ok(members
            .map(|(member, _)| Revoked {
                prefix: member.prefix,
                serial: member.serial,
                key: wire::signed::hex(&member.key),
            })
            .collect())
    }
}
