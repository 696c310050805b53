//! Copies a database, and verifies copies.

use super::{
    failure::DatabasePath,
    opening::{APPLICATION_ID, BUSY_TIMEOUT, check_integrity},
};
use crate::store::StorageError;
use files::Access;
use rusqlite::Connection;
use std::path::Path;

/// Copies a database as [`crate::store::copy`] describes.
pub(in crate::store) fn copy(from: &Path, to: &Path) -> Result<(), StorageError> {
    let (source, target) = (DatabasePath::new(from), DatabasePath::new(to));
    let text = to
        .to_str()
        .ok_or_else(|| target.unavailable("be created", "the path is not UTF-8"))?;
    let connection = Connection::open(from).map_err(source.failure("open it"))?;
    connection
        .busy_timeout(BUSY_TIMEOUT)
        .map_err(source.failure("set it up"))?;
    // SQLite writes into an empty file, but would make its own with the rights that the umask leaves.
    let created = files::create(to, b"", Access::ours(0o600));
    created.map_err(|error| target.unavailable("be created", error))?;
    let copied = connection
        .execute("VACUUM INTO ?1", [text])
        .map_err(target.failure("write a copy to it"))
        .and_then(|_| {
            files::sync(to).map_err(|error| target.unavailable("be written to disk", error))
        });
    if copied.is_err() {
        // Half a copy must not be taken for a whole one.
        let _ = files::remove(to);
    }
    copied
}

/// Verifies a database as [`crate::store::verify`] describes.
pub(in crate::store) fn verify(path: &Path) -> Result<(), StorageError> {
    let database = DatabasePath::new(path);
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection =
        Connection::open_with_flags(path, flags).map_err(database.failure("open it"))?;
    let program = connection
        .pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0))
        .map_err(database.failure("read its application id"))?;
    if program != APPLICATION_ID {
        return Err(database.incompatible("another program made it"));
    }
    check_integrity(&connection, &database)
}
