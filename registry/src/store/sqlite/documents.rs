//! Stores the signed documents, values of the service, and the audit log.

use super::Sqlite;
use crate::store::{AuditEntry, StorageError};
use rusqlite::{OptionalExtension, Row, params};
use wire::registry::DocumentKind;

fn name_of(kind: DocumentKind) -> &'static str {
    match kind {
        DocumentKind::Network => "network",
        DocumentKind::Revocations => "revocations",
    }
}

impl Sqlite {
    pub(super) fn read_document(&self, kind: DocumentKind) -> Result<String, StorageError> {
        let name = name_of(kind);
        self.connection
            .prepare_cached("SELECT json FROM documents WHERE kind = ?1")
            .and_then(|mut query| query.query_row([name], |row| row.get(0)).optional())
            .map_err(self.database.failure("read a signed document"))?
            .ok_or_else(|| {
                self.database
                    .corrupt(format!("the signed document {name} is missing"))
            })
    }

    pub(super) fn write_document(
        &mut self,
        kind: DocumentKind,
        version: u64,
        json: &str,
    ) -> Result<(), StorageError> {
        let version = i64::try_from(version).map_err(|error| {
            self.database
                .unavailable("store a document's version", error)
        })?;
        self.connection
            .execute(
                "INSERT INTO documents (kind, version, json) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE
                     SET version = excluded.version, json = excluded.json WHERE excluded.version > version",
                params![name_of(kind), version, json],
            )
            .map(|_| ())
            .map_err(self.database.failure("store a signed document"))
    }

    pub(super) fn read_state(&self, key: &str) -> Result<Option<String>, StorageError> {
        self.connection
            .prepare_cached("SELECT value FROM state WHERE key = ?1")
            .and_then(|mut query| query.query_row([key], |row| row.get(0)).optional())
            .map_err(self.database.failure("read a value of the service"))
    }

    pub(super) fn write_state(
        &mut self,
        key: &str,
        value: Option<&str>,
    ) -> Result<(), StorageError> {
        let written = match value {
            Some(value) => self.connection.execute(
                "INSERT INTO state (key, value) VALUES (?1, ?2)
                     ON CONFLICT DO UPDATE SET value = excluded.value",
                [key, value],
            ),
            None => self
                .connection
                .execute("DELETE FROM state WHERE key = ?1", [key]),
        };
        written
            .map(|_| ())
            .map_err(self.database.failure("store a value of the service"))
    }

    pub(super) fn write_audit_entry(&mut self, entry: &AuditEntry) -> Result<(), StorageError> {
        self.connection
            .execute(
                "INSERT INTO log (at_s, who, what) VALUES (?1, ?2, ?3)",
                params![entry.at, entry.actor, entry.action],
            )
            .map(|_| ())
            .map_err(self.database.failure("append to the audit log"))
    }

    pub(super) fn read_audit_entries(&self, count: usize) -> Result<Vec<AuditEntry>, StorageError> {
        let failed = self.database.failure("read the audit log");
        let limit = i64::try_from(count).unwrap_or(i64::MAX);
        let mut query = self
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
        let mut entries: Vec<AuditEntry> = query
            .query_map([limit], entry)
            .and_then(Iterator::collect)
            .map_err(&failed)?;
        entries.reverse();
        Ok(entries)
    }
}
