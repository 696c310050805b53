//! Opens the database: its version, its checks, and the prefixes that it holds.

use super::*;

/// `PRAGMA application_id`: "wrnR".
pub(super) const APPLICATION_ID: i32 = 0x7772_6e52;

/// What makes each version of the tables out of the one before.
pub(super) const MIGRATIONS: [&str; 3] = [
    include_str!("schema.sql"),
    include_str!("schema-2.sql"),
    include_str!("schema-3.sql"),
];

/// How long another process may hold the database, such as a copy, before we give up.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the database at `connection` is whole; `path` is for the complaint.
pub(super) fn check(connection: &Connection, path: &str) -> Result<(), StorageError> {
    let verdict = connection
        .pragma_query_value(None, "integrity_check", |row| row.get::<_, String>(0))
        .map_err(cannot("check it"))?;
    if verdict == "ok" {
        Ok(())
    } else {
        Err(StorageError::NotSound {
            path: path.to_owned(),
            why: verdict,
        })
    }
}

impl Sqlite {
    /// Opens the database at `path`, creates it if there is none, and checks that it is sound.
    ///
    /// `length` is that of the prefixes handed out, 1..=32; `grace_s` the time for which a prefix
    /// rests.
    ///
    /// # Errors
    /// It cannot be opened, is broken, or was written by another program or a later version.
    pub fn open(path: &Path, length: u8, grace_s: i64) -> Result<Self, StorageError> {
        let connection = Connection::open(path).map_err(cannot("open it"))?;
        Self::prepare(connection, &path.display().to_string(), length, grace_s)
    }

    pub(super) fn prepare(
        mut connection: Connection,
        path: &str,
        length: u8,
        grace_s: i64,
    ) -> Result<Self, StorageError> {
        let unsound = |why: String| StorageError::NotSound {
            path: path.to_owned(),
            why,
        };
        connection
            .busy_timeout(BUSY_TIMEOUT)
            .map_err(cannot("set it up"))?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;",
            )
            .map_err(cannot("set it up"))?;
        connection.set_prepared_statement_cache_capacity(64);
        let pragma =
            |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let version = pragma("user_version").map_err(cannot("read its version"))?;
        let program = pragma("application_id").map_err(cannot("read its program"))?;
        if !matches!((program, version), (0, 0) | (APPLICATION_ID, _)) {
            return Err(unsound("another program made it".into()));
        }
        let done = usize::try_from(version).unwrap_or(usize::MAX);
        let missing = MIGRATIONS.get(done..).ok_or_else(|| {
            unsound(format!(
                "it has version {version}, and {} is known",
                MIGRATIONS.len()
            ))
        })?;
        if !missing.is_empty() {
            migrate(&mut connection, missing).map_err(cannot("make its tables"))?;
        }
        check(&connection, path)?;
        let allocator = allocated(&connection, length, path)?;
        Ok(Self {
            connection,
            allocator,
            length,
            grace_s,
            last_sweep: None,
        })
    }
}

/// Brings the tables up to the present version, in one transaction.
fn migrate(connection: &mut Connection, scripts: &[&str]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for script in scripts {
        transaction.execute_batch(script)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.commit()
}

/// The allocator as the table of prefixes has it.
pub(super) fn allocated(
    connection: &Connection,
    length: u8,
    path: &str,
) -> Result<Allocator, StorageError> {
    let mut allocator = Allocator::new(length);
    let failed = cannot("read its prefixes");
    let mut all = connection
        .prepare("SELECT number, length FROM prefixes")
        .map_err(&failed)?;
    let rows = all
        .query_map([], |row| Ok(prefix_of(row, 0)))
        .map_err(&failed)?;
    for row in rows {
        let prefix = row
            .map_err(&failed)?
            .ok_or(StorageError::Value { what: "a prefix" })?;
        if !allocator.take(prefix) {
            let why = format!("prefix {prefix} overlaps another");
            return Err(StorageError::NotSound {
                path: path.to_owned(),
                why,
            });
        }
    }
    Ok(allocator)
}
