//! Lists and deletes invitations that can still be used.

use super::{Sqlite, columns::prefix_of};
use crate::{
    clock::UnixSeconds,
    store::{INVITATION_ID_DIGITS, NodeProperties, OpenInvitation, StorageError, invitation_id},
};
use rusqlite::{OptionalExtension, Row, params};

/// The columns that [`invitation_of`] reads.
const COLUMNS: &str =
    "number, length, token, name, uses, uses - used, made_s, expires_s, made_by, anonymous";

/// Reads a row of [`COLUMNS`].
fn invitation_of(row: &Row<'_>) -> rusqlite::Result<OpenInvitation> {
    let token: [u8; 32] = row.get(2)?;
    Ok(OpenInvitation {
        id: invitation_id(&token),
        wanted: NodeProperties {
            name: row.get(3)?,
            length: row.get(1)?,
            prefix: prefix_of(row, 0),
        },
        uses: row.get(4)?,
        uses_left: row.get(5)?,
        created_at: row.get(6)?,
        expires_at: row.get(7)?,
        created_by: row.get(8)?,
        anonymous: row.get(9)?,
    })
}

impl Sqlite {
    pub(super) fn read_open_invitations(
        &self,
        now: UnixSeconds,
    ) -> Result<Vec<OpenInvitation>, StorageError> {
        let failed = self.database.failure("read invitations");
        let mut query = self
            .connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM invitations WHERE used < uses AND expires_s > ?1
                     ORDER BY expires_s, token"
            ))
            .map_err(&failed)?;
        let rows = query.query_map([now], invitation_of).map_err(&failed)?;
        rows.map(|row| row.map_err(&failed)).collect()
    }

    /// Deletes the open invitation with this name or id. A name has precedence.
    pub(super) fn delete_open_invitation(
        &mut self,
        invitation: &str,
        now: UnixSeconds,
    ) -> Result<Option<OpenInvitation>, StorageError> {
        let digits = u32::try_from(INVITATION_ID_DIGITS).unwrap_or(u32::MAX);
        self.connection
            .prepare_cached(&format!(
                "DELETE FROM invitations WHERE token =
                     (SELECT token FROM invitations WHERE used < uses AND expires_s > ?1
                          AND (name = ?2 COLLATE NOCASE OR substr(hex(token), 1, ?3) = ?2 COLLATE NOCASE)
                      ORDER BY name IS NULL OR name <> ?2 COLLATE NOCASE LIMIT 1)
                     RETURNING {COLUMNS}"
            ))
            .and_then(|mut delete| {
                delete
                    .query_row(params![now, invitation, digits], invitation_of)
                    .optional()
            })
            .map_err(self.database.failure("delete an invitation"))
    }
}
