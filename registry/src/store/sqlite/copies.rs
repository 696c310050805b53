//! Copies the database, checks copies, and leaves room for what a copy does not know.

use super::{
    Sqlite, cannot,
    opening::{APPLICATION_ID, BUSY_TIMEOUT, check},
};
use crate::{clock::UnixSeconds, store::StorageError};
use rusqlite::{Connection, params};
use std::path::Path;

/// Writes a copy of the database at `from`, which may be at work, to the new file `to`.
///
/// # Errors
/// It exists, or cannot be written.
pub fn copy(from: &Path, to: &Path) -> Result<(), StorageError> {
    let text = to.to_str().ok_or(StorageError::Value {
        what: "a path of text, to copy to,",
    })?;
    let connection = Connection::open(from).map_err(cannot("open it"))?;
    connection
        .busy_timeout(BUSY_TIMEOUT)
        .map_err(cannot("set it up"))?;
    connection
        .execute("VACUUM INTO ?1", [text])
        .map(|_| ())
        .map_err(cannot("copy itself"))
}

/// Checks that a file is a sound database of a registry; reads all of it.
///
/// # Errors
/// It is not sound, or cannot be read.
pub fn verify(path: &Path) -> Result<(), StorageError> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(path, flags).map_err(cannot("open it"))?;
    let shown = path.display().to_string();
    let program = connection
        .pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0))
        .map_err(cannot("read its program"))?;
    if program != APPLICATION_ID {
        return Err(StorageError::NotSound {
            path: shown,
            why: "another program made it".into(),
        });
    }
    check(&connection, &shown)
}

impl Sqlite {
    /// Lets the next `count` prefixes rest for `life_s` and the grace, as if somebody had them.
    ///
    /// # Errors
    /// It could not be kept.
    pub fn leave_gap(&mut self, count: usize, life_s: i64) -> Result<(), StorageError> {
        let failed = cannot("leave a gap");
        let (length, now) = (
            self.length,
            UnixSeconds::from(time::OffsetDateTime::now_utc()),
        );
        self.together("leave a gap", |this| {
            // A small network must not be full because of it.
            let count = count.min(1usize.checked_shl(u32::from(length) - 1).unwrap_or(count) / 2);
            for _ in 0..count {
                let Some(prefix) = this.allocator.allocate(length) else {
                    return Ok(());
                };
                this.connection
                    .prepare_cached(
                        "INSERT INTO prefixes (number, length, until_s) VALUES (?1, ?2, ?3)",
                    )
                    .and_then(|mut keep| {
                        keep.execute(params![
                            prefix.number(),
                            prefix.length(),
                            now.saturating_add_s(life_s)
                        ])
                    })
                    .map_err(&failed)?;
            }
            Ok(())
        })
    }
}
