//! Stores what nodes announce.

use super::{Sqlite, columns::prefix_of};
use crate::{
    clock::UnixSeconds,
    numbers::signed,
    store::{StorageError, StoredAnnouncement},
};
use policies::names::{Endpoint, Prefix};
use rusqlite::{Row, params};

/// Reads a row of announcements; `None` if a value is out of range.
fn announcement_of(row: &Row<'_>) -> rusqlite::Result<Option<(Prefix, StoredAnnouncement)>> {
    let text: String = row.get(2)?;
    let endpoints = text
        .split_terminator(' ')
        .map(str::parse)
        .collect::<Result<Vec<Endpoint>, _>>();
    let version = |column| {
        row.get::<_, i64>(column)
            .map(|version| u64::try_from(version).unwrap_or(0))
    };
    let announcement = StoredAnnouncement {
        endpoints: Vec::new(),
        software: row.get(3)?,
        network_version: version(4)?,
        network_applied: version(5)?,
        revocations_version: version(6)?,
        valid_until: row.get(7)?,
        source: row
            .get::<_, Option<String>>(8)?
            .and_then(|text| text.parse().ok()),
    };
    Ok(prefix_of(row, 0)
        .zip(endpoints.ok())
        .map(|(prefix, endpoints)| {
            let announcement = StoredAnnouncement {
                endpoints,
                ..announcement
            };
            (prefix, announcement)
        }))
}

impl Sqlite {
    pub(super) fn write_announcement(
        &mut self,
        prefix: Prefix,
        announcement: &StoredAnnouncement,
    ) -> Result<(), StorageError> {
        let endpoints = announcement
            .endpoints
            .iter()
            .map(Endpoint::to_string)
            .collect::<Vec<_>>()
            .join(" ");
        self.connection
            .prepare_cached(
                "INSERT INTO announcements (number, length, endpoints, software, network_version,
                     network_applied, revocations_version, until_s, source)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                     ON CONFLICT DO UPDATE SET endpoints = excluded.endpoints,
                     software = excluded.software, network_version = excluded.network_version,
                     network_applied = excluded.network_applied,
                     revocations_version = excluded.revocations_version, until_s = excluded.until_s,
                     source = excluded.source",
            )
            .and_then(|mut insert| {
                insert.execute(params![
                    prefix.number(),
                    prefix.length(),
                    endpoints,
                    announcement.software,
                    signed(announcement.network_version),
                    signed(announcement.network_applied),
                    signed(announcement.revocations_version),
                    announcement.valid_until,
                    announcement.source.map(|source| source.to_string())
                ])
            })
            .map(|_| ())
            .map_err(self.database.failure("store an announcement"))
    }

    pub(super) fn read_announcements(
        &self,
        now: UnixSeconds,
    ) -> Result<Vec<(Prefix, StoredAnnouncement)>, StorageError> {
        let failed = self.database.failure("read announcements");
        let mut query = self
            .connection
            .prepare_cached(
                "SELECT number, length, endpoints, software, network_version, network_applied,
                     revocations_version, until_s, source FROM announcements WHERE until_s > ?1",
            )
            .map_err(&failed)?;
        let rows = query.query_map([now], announcement_of).map_err(&failed)?;
        rows.map(|row| {
            row.map_err(&failed)?
                .ok_or_else(|| self.database.corrupt("an announcement is out of range"))
        })
        .collect()
    }
}
