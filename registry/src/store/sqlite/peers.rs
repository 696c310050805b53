//! Keeps what nodes announced, and the signed documents.

use super::{Sqlite, cannot, prefix_of};
use crate::{
    clock::UnixSeconds,
    store::{StorageError, StoredAnnouncement},
};
use policies::names::{Endpoint, Prefix};
use rusqlite::{OptionalExtension, Row, params};
use wire::registry::DocumentKind;

fn name_of(kind: DocumentKind) -> &'static str {
    match kind {
        DocumentKind::Network => "network",
        DocumentKind::Revocations => "revocations",
    }
}

/// SQLite's integers are signed; no version comes near the border.
fn signed(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

fn report_of(row: &Row<'_>) -> rusqlite::Result<Option<(Prefix, StoredAnnouncement)>> {
    let text: String = row.get(2)?;
    let endpoints = text
        .split_terminator(' ')
        .map(str::parse)
        .collect::<Result<Vec<Endpoint>, _>>();
    let version = |at| {
        row.get::<_, i64>(at)
            .map(|version| u64::try_from(version).unwrap_or(0))
    };
    let report = StoredAnnouncement {
        endpoints: Vec::new(),
        software: row.get(3)?,
        network_version: version(4)?,
        network_applied: version(5)?,
        revocations_version: version(6)?,
        valid_until: row.get(7)?,
    };
    let whole = |endpoints| {
        prefix_of(row, 0).map(|prefix| {
            (
                prefix,
                StoredAnnouncement {
                    endpoints,
                    ..report
                },
            )
        })
    };
    Ok(endpoints.ok().and_then(whole))
}

impl Sqlite {
    pub(super) fn keep_report(
        &mut self,
        prefix: Prefix,
        report: &StoredAnnouncement,
    ) -> Result<(), StorageError> {
        let endpoints = report
            .endpoints
            .iter()
            .map(Endpoint::to_string)
            .collect::<Vec<_>>()
            .join(" ");
        self.connection
            .prepare_cached(
                "INSERT INTO announcements (number, length, endpoints, software, network_version,
                     network_applied, revocations_version, until_s) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                     ON CONFLICT DO UPDATE SET endpoints = excluded.endpoints,
                     software = excluded.software, network_version = excluded.network_version,
                     network_applied = excluded.network_applied,
                     revocations_version = excluded.revocations_version, until_s = excluded.until_s",
            )
            .and_then(|mut keep| {
                keep.execute(params![
                    prefix.number(),
                    prefix.length(),
                    endpoints,
                    report.software,
                    signed(report.network_version),
                    signed(report.network_applied),
                    signed(report.revocations_version),
                    report.valid_until
                ])
            })
            .map(|_| ())
            .map_err(cannot("keep an announcement"))
    }

    pub(super) fn reports(
        &self,
        now: UnixSeconds,
    ) -> Result<Vec<(Prefix, StoredAnnouncement)>, StorageError> {
        let failed = cannot("find announcements");
        let mut find = self
            .connection
            .prepare_cached(
                "SELECT number, length, endpoints, software, network_version, network_applied,
                     revocations_version, until_s FROM announcements WHERE until_s > ?1",
            )
            .map_err(&failed)?;
        let rows = find.query_map([now], report_of).map_err(&failed)?;
        rows.map(|row| {
            row.map_err(&failed)?.ok_or(StorageError::Value {
                what: "an announcement",
            })
        })
        .collect()
    }

    pub(super) fn stored_document(
        &self,
        kind: DocumentKind,
    ) -> Result<Option<(u64, String)>, StorageError> {
        self.connection
            .prepare_cached("SELECT version, json FROM documents WHERE kind = ?1")
            .and_then(|mut find| {
                find.query_row([name_of(kind)], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get(1)?))
                })
                .optional()
            })
            .map_err(cannot("read a document"))?
            .map(|(version, json)| {
                let version = u64::try_from(version);
                Ok((
                    version.map_err(|_| StorageError::Value {
                        what: "a document's version",
                    })?,
                    json,
                ))
            })
            .transpose()
    }

    pub(super) fn store_document_row(
        &mut self,
        kind: DocumentKind,
        version: u64,
        json: &str,
    ) -> Result<(), StorageError> {
        let version =
            i64::try_from(version).map_err(|_| StorageError::Value { what: "a version" })?;
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
