//! Opens a database: checks its program and version, migrates its tables, checks its integrity, and reads the
//! allocated prefixes.

use super::{Sqlite, columns::prefix_of, failure::DatabasePath};
use crate::store::{StorageError, allocator::Allocator};
use rusqlite::{Connection, TransactionBehavior};
use std::{path::Path, time::Duration};

/// `PRAGMA application_id` of our databases: "wrnR".
pub(super) const APPLICATION_ID: i32 = 0x7772_6e52;

/// The scripts that bring the tables from each version to the next; the first one creates them.
pub(super) const MIGRATIONS: [&str; 8] = [
    include_str!("schema.sql"),
    include_str!("schema-2.sql"),
    include_str!("schema-3.sql"),
    include_str!("schema-4.sql"),
    include_str!("schema-5.sql"),
    include_str!("schema-6.sql"),
    include_str!("schema-7.sql"),
    include_str!("schema-8.sql"),
];

/// Time for which another process, such as one that copies it, may lock the database before an operation
/// fails.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of prepared statements that a connection keeps: more than this module has.
const STATEMENT_CACHE_CAPACITY: usize = 64;

/// Runs SQLite's integrity check, which reads the whole database.
pub(super) fn check_integrity(
    connection: &Connection,
    database: &DatabasePath,
) -> Result<(), StorageError> {
    let result = connection
        .pragma_query_value(None, "integrity_check", |row| row.get::<_, String>(0))
        .map_err(database.failure("check its integrity"))?;
    if result == "ok" {
        Ok(())
    } else {
        Err(database.corrupt(result))
    }
}

impl Sqlite {
    /// Opens a database as [`crate::store::open`] describes.
    pub(in crate::store) fn open(
        path: &Path,
        length: u8,
        grace_s: i64,
    ) -> Result<Self, StorageError> {
        let database = DatabasePath::new(path);
        let mut connection = Connection::open(path).map_err(database.failure("open it"))?;
        connection
            .busy_timeout(BUSY_TIMEOUT)
            .map_err(database.failure("set it up with its -wal and -shm files"))?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;",
            )
            .map_err(database.failure("set it up with its -wal and -shm files"))?;
        connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE_CAPACITY);
        let missing = missing_migrations(&connection, &database)?;
        if !missing.is_empty() {
            migrate(&mut connection, missing).map_err(database.failure("create its tables"))?;
        }
        check_integrity(&connection, &database)?;
        let allocator = allocated_prefixes(&connection, length, &database)?;
        Ok(Self {
            connection,
            database,
            allocator,
            length,
            grace_s,
            last_sweep: None,
        })
    }
}

/// Returns the migrations that the database lacks.
fn missing_migrations(
    connection: &Connection,
    database: &DatabasePath,
) -> Result<&'static [&'static str], StorageError> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let version = pragma("user_version").map_err(database.failure("read its version"))?;
    let program = pragma("application_id").map_err(database.failure("read its application id"))?;
    if !matches!((program, version), (0, 0) | (APPLICATION_ID, _)) {
        return Err(database.incompatible("another program made it"));
    }
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    MIGRATIONS.get(done..).ok_or_else(|| {
        let known = MIGRATIONS.len();
        database.incompatible(format!(
            "it has version {version}, and the latest known one is {known}"
        ))
    })
}

/// Runs migrations in one transaction.
fn migrate(connection: &mut Connection, scripts: &[&str]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for script in scripts {
        transaction.execute_batch(script)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.commit()
}

/// Builds the allocator from the table of prefixes.
pub(super) fn allocated_prefixes(
    connection: &Connection,
    length: u8,
    database: &DatabasePath,
) -> Result<Allocator, StorageError> {
    let mut allocator = Allocator::new(length);
    let failed = database.failure("read its prefixes");
    let mut query = connection
        .prepare("SELECT number, length FROM prefixes")
        .map_err(&failed)?;
    let rows = query
        .query_map([], |row| Ok(prefix_of(row, 0)))
        .map_err(&failed)?;
    for row in rows {
        let prefix = row
            .map_err(&failed)?
            .ok_or_else(|| database.corrupt("a prefix is out of range"))?;
        if !allocator.take(prefix) {
            return Err(database.corrupt(format!("prefix {prefix} overlaps another")));
        }
    }
    Ok(allocator)
}
