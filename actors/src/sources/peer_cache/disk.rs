//! Stores the peers and the names of nodes in an SQLite file.
//!
//! With WAL and `synchronous = NORMAL`, a crash of the daemon loses nothing, and a power failure at most the last seconds,
//! which is enough for a cache. A file that cannot be used is renamed, and a new one is created.

use super::directory::{Changes, MAX_PEERS, Row};
use crate::messages::PeerSource;
use fault_points::fault;
use files::Access;
use membership::node_names::{CertifiedName, MAX_NAMES, NameChanges};
use policies::names::{Endpoint, InvalidName, Prefix};
use rusqlite::{Connection, ErrorCode};
use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};
use wire::errors::{Chain, ignore_not_found};

/// The `user_version` of the tables below.
const TABLES_VERSION: i64 = 1;

const TABLES: &str = "
    CREATE TABLE peer (
        prefix TEXT PRIMARY KEY,     -- P/L
        endpoints TEXT NOT NULL,     -- best first, separated by spaces
        source TEXT NOT NULL,        -- registry, itself, gossip
        heard INTEGER NOT NULL,      -- sequence number of the last report about this peer
        failures INTEGER NOT NULL    -- failed dials in a row
    ) STRICT;
    PRAGMA user_version = 1;";

/// The table of names, which files from before it lack.
const NAMES_TABLE: &str = "
    CREATE TABLE IF NOT EXISTS name (
        prefix TEXT PRIMARY KEY,     -- P/L
        name TEXT NOT NULL,          -- as the node's certificate states it
        issued_s INTEGER NOT NULL    -- notBefore of that certificate, seconds since 1970
    ) STRICT;";

/// The reason why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It cannot be created or opened.
    #[error("cannot open the peer cache")]
    Open(#[source] io::Error),
    /// SQLite reports an error.
    #[error("cannot use the peer cache")]
    Sql(#[from] rusqlite::Error),
    /// It was written by a later version of warren, or is another database.
    #[error("peer cache has version {0}, not 1")]
    Version(i64),
    /// SQLite's `quick_check` found a fault.
    #[error("peer cache is broken: {0}")]
    Broken(String),
}

/// `ENFILE` and `EMFILE` (errno(3)): the host or the process has no more file descriptors.
const NO_DESCRIPTORS: [i32; 2] = [23, 24];

impl DiskError {
    /// Returns whether the host lacks what is needed to open the file, which may be good itself.
    fn is_of_host(&self) -> bool {
        match self {
            Self::Open(error) => error
                .raw_os_error()
                .is_some_and(|code| NO_DESCRIPTORS.contains(&code)),
            Self::Sql(error) => matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::CannotOpen | ErrorCode::OutOfMemory | ErrorCode::DiskFull)
            ),
            Self::Version(_) | Self::Broken(_) => false,
        }
    }
}

/// The open file; `None` if it cannot be used, so that nothing is stored.
#[derive(Clone)]
pub struct Disk(Option<Arc<Mutex<Connection>>>);

impl Disk {
    /// Opens the file and reads all rows.
    ///
    /// A bad file is renamed to `NAME.bad` and created again. If that fails too, or if the host lacks file descriptors or space,
    /// nothing is stored: a node starts even without its cache.
    pub fn open(path: &Path) -> (Self, Vec<Row>) {
        let opened = open(path).or_else(|error| {
            if error.is_of_host() {
                return Err(error);
            }
            tracing::warn!(path = %path.display(), error = %Chain(&error), "bad peer cache set aside as NAME.bad: peers are asked for again");
            set_aside(path);
            open(path)
        });
        match opened {
            Ok((connection, rows)) => (Self(Some(Arc::new(Mutex::new(connection)))), rows),
            Err(error) => {
                tracing::error!(path = %path.display(), error = %Chain(&error), "cannot use the peer cache; what is learnt of peers is lost when the daemon restarts");
                (Self(None), Vec::new())
            }
        }
    }

    /// Writes all changes in one transaction. Blocks on the disk, so it must not run on the actors' thread.
    ///
    /// # Errors
    /// SQLite cannot write, for example because the disk is full; the file is unchanged.
    pub fn write(&self, changes: &Changes, names: &NameChanges) -> Result<(), DiskError> {
        let Some(connection) = &self.0 else {
            return Ok(());
        };
        let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction()?;
        for (peer, row) in changes {
            match row {
                None => {
                    transaction.execute("DELETE FROM peer WHERE prefix = ?1", [peer.to_string()])?
                }
                Some(row) => transaction.execute(
                    "INSERT OR REPLACE INTO peer VALUES (?1, ?2, ?3, ?4, ?5)",
                    (
                        peer.to_string(),
                        format_endpoints(&row.endpoints),
                        format_source(row.source),
                        // SQLite's integers are signed.
                        i64::try_from(row.last_report).unwrap_or(i64::MAX),
                        row.failures,
                    ),
                )?,
            };
        }
        for (node, name) in names {
            match name {
                None => {
                    transaction.execute("DELETE FROM name WHERE prefix = ?1", [node.to_string()])?
                }
                Some(CertifiedName { name, issued_s }) => transaction.execute(
                    "INSERT OR REPLACE INTO name VALUES (?1, ?2, ?3)",
                    (node.to_string(), name.as_str(), issued_s),
                )?,
            };
        }
        transaction.commit()?;
        fault!("store peers");
        Ok(())
    }

    /// Reads the names of nodes. Rows that cannot be parsed are skipped.
    pub fn read_names(&self) -> Vec<(Prefix, CertifiedName)> {
        let Some(connection) = &self.0 else {
            return Vec::new();
        };
        let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
        read_names(&connection).unwrap_or_else(|error| {
            tracing::warn!(error = %Chain(&error), "names of nodes not read from the peer cache; they are learnt again");
            Vec::new()
        })
    }
}

fn open(path: &Path) -> Result<(Connection, Vec<Row>), DiskError> {
    // Created before SQLite opens it, so that only root can read it; SQLite gives its WAL files the same mode.
    files::open_or_create(path, Access::ours(0o600)).map_err(DiskError::Open)?;
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -128;
         PRAGMA trusted_schema = OFF; PRAGMA journal_size_limit = 1048576;",
    )?;
    match connection.query_row("PRAGMA user_version", [], |row| row.get(0))? {
        0 => connection.execute_batch(&format!("BEGIN; {TABLES} COMMIT;"))?,
        TABLES_VERSION => {}
        other => return Err(DiskError::Version(other)),
    }
    connection.execute_batch(NAMES_TABLE)?;
    let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(DiskError::Broken(check));
    }
    let rows = read_rows(&connection)?;
    Ok((connection, rows))
}

fn read_rows(connection: &Connection) -> Result<Vec<Row>, DiskError> {
    let mut statement = connection.prepare(
        "SELECT prefix, endpoints, source, heard, failures FROM peer ORDER BY heard DESC LIMIT ?1",
    )?;
    let limit = i64::try_from(MAX_PEERS).unwrap_or(i64::MAX);
    let mut rows = statement.query([limit])?;
    let mut peers = Vec::new();
    while let Some(row) = rows.next()? {
        let texts = (
            row.get_ref(0)?.as_str(),
            row.get_ref(1)?.as_str(),
            row.get_ref(2)?.as_str(),
        );
        let (Ok(peer), Ok(endpoints), Ok(source)) = texts else {
            continue;
        };
        let values = (
            peer.parse(),
            parse_endpoints(endpoints),
            parse_source(source),
        );
        // A row that cannot be parsed is skipped, so that the others are not lost.
        let (Ok(peer), Ok(endpoints), Some(source)) = values else {
            continue;
        };
        let last_report = u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0);
        let failures = u32::try_from(row.get::<_, i64>(4)?).unwrap_or(0);
        peers.push(Row {
            peer,
            endpoints,
            source,
            last_report,
            failures,
        });
    }
    Ok(peers)
}

fn read_names(connection: &Connection) -> Result<Vec<(Prefix, CertifiedName)>, DiskError> {
    let mut statement = connection
        .prepare("SELECT prefix, name, issued_s FROM name ORDER BY issued_s DESC LIMIT ?1")?;
    let limit = i64::try_from(MAX_NAMES).unwrap_or(i64::MAX);
    let mut rows = statement.query([limit])?;
    let mut names = Vec::new();
    while let Some(row) = rows.next()? {
        let (Ok(node), Ok(name)) = (row.get_ref(0)?.as_str(), row.get_ref(1)?.as_str()) else {
            continue;
        };
        let (Ok(node), Ok(name)) = (node.parse(), name.parse()) else {
            continue;
        };
        let issued_s = row.get(2)?;
        names.push((node, CertifiedName { name, issued_s }));
    }
    Ok(names)
}

/// Sets the database aside, and removes its WAL files, which belong to no other database.
fn set_aside(path: &Path) {
    for suffix in ["-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        if let Err(error) = files::remove_tree(Path::new(&name)) {
            tracing::warn!(path = %path.display(), suffix, %error, "cannot remove a file of the bad peer cache");
        }
    }
    if let Err(error) = ignore_not_found(files::set_aside(path).map(drop)) {
        tracing::warn!(path = %path.display(), %error, "cannot rename the bad peer cache");
    }
}

fn format_endpoints(endpoints: &[Endpoint]) -> String {
    endpoints
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

fn parse_endpoints(text: &str) -> Result<Vec<Endpoint>, InvalidName> {
    text.split_ascii_whitespace()
        .map(str::parse::<Endpoint>)
        .collect()
}

fn format_source(source: PeerSource) -> &'static str {
    match source {
        PeerSource::Registry => "registry",
        PeerSource::Itself => "itself",
        PeerSource::Gossip => "gossip",
    }
}

fn parse_source(text: &str) -> Option<PeerSource> {
    let sources = [PeerSource::Registry, PeerSource::Itself, PeerSource::Gossip];
    sources
        .into_iter()
        .find(|source| format_source(*source) == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::names::Prefix;
    use std::{fs, os::unix::fs::PermissionsExt};

    fn row(number: u32) -> Row {
        let endpoints = ["udp:45.67.0.1:1194", "tcp:[2a00:1450::1]:443"];
        Row {
            peer: Prefix::new(number, 16).unwrap(),
            endpoints: endpoints.iter().map(|text| text.parse().unwrap()).collect(),
            source: PeerSource::Itself,
            last_report: u64::from(number),
            failures: 3,
        }
    }

    fn changes(rows: &[Row]) -> Changes {
        rows.iter()
            .map(|row| (row.peer, Some(row.clone())))
            .collect()
    }

    #[test]
    fn a_file_that_cannot_be_opened_for_lack_of_descriptors_is_not_taken_for_a_bad_one() {
        let is_of_host = |code| DiskError::Open(io::Error::from_raw_os_error(code)).is_of_host();
        assert!(is_of_host(24));
        assert!(!is_of_host(21), "a folder in its place");
        assert!(!DiskError::Broken("page 2".to_owned()).is_of_host());
    }

    #[track_caller]
    fn check(path: &Path, expected: &[Row]) -> Disk {
        let (disk, rows) = Disk::open(path);
        assert_eq!(rows, expected);
        assert!(disk.0.is_some());
        disk
    }

    #[test]
    fn written_rows_are_read_by_the_next_run_with_the_latest_report_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        check(&path, &[])
            .write(&changes(&[row(1), row(2), row(3)]), &NameChanges::new())
            .unwrap();
        let removal = [(row(2).peer, None)].into();
        check(&path, &[row(3), row(2), row(1)])
            .write(&removal, &NameChanges::new())
            .unwrap();
        check(&path, &[row(3), row(1)]);
    }

    #[test]
    fn only_the_owner_can_read_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        let disk = check(&path, &[]);
        disk.write(&changes(&[row(1)]), &NameChanges::new())
            .unwrap();
        let files: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert!(files.len() >= 2);
        for file in files {
            assert_eq!(
                file.metadata().unwrap().permissions().mode() & 0o777,
                0o600,
                "{file:?}"
            );
        }
    }

    #[test]
    fn a_file_that_is_no_peer_cache_is_renamed_and_created_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        let later = folder.path().join("later.db");
        Connection::open(&later)
            .unwrap()
            .execute_batch("PRAGMA user_version = 9")
            .unwrap();
        for broken in [b"no database".repeat(500), fs::read(&later).unwrap()] {
            fs::write(&path, &broken).unwrap();
            drop(check(&path, &[]));
            fs::remove_file(folder.path().join("peers.db.bad")).unwrap();
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_row_that_cannot_be_parsed_is_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        check(&path, &[])
            .write(&changes(&[row(1)]), &NameChanges::new())
            .unwrap();
        let other = Connection::open(&path).unwrap();
        for bad in [
            "'07/16', '', 'itself'",
            "'8/16', 'udp:x', 'itself'",
            "'9/16', '', 'nobody'",
        ] {
            other
                .execute_batch(&format!("INSERT INTO peer VALUES ({bad}, 1, 1)"))
                .unwrap();
        }
        check(&path, &[row(1)]);
    }

    #[test]
    fn names_are_read_by_the_next_run_also_from_a_file_that_had_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.db");
        check(&path, &[]);
        let drop_table = "DROP TABLE name";
        Connection::open(&path)
            .unwrap()
            .execute_batch(drop_table)
            .unwrap();
        let named = |number, name: &str, issued_s| {
            let name = name.parse().unwrap();
            (row(number).peer, CertifiedName { name, issued_s })
        };
        let (first, second) = (named(7, "web", 100), named(9, "printer", 200));
        let added = [first.clone(), second.clone()].map(|(node, name)| (node, Some(name)));
        let disk = check(&path, &[]);
        disk.write(&Changes::new(), &added.into()).unwrap();
        assert_eq!(
            check(&path, &[]).read_names(),
            [second.clone(), first.clone()]
        );
        disk.write(&Changes::new(), &[(first.0, None)].into())
            .unwrap();
        let other = Connection::open(&path).unwrap();
        for bad in ["'07/16', 'rack'", "'5/16', 'a b'", "'6/16', ''"] {
            let insert = format!("INSERT INTO name VALUES ({bad}, 1)");
            other.execute_batch(&insert).unwrap();
        }
        assert_eq!(check(&path, &[]).read_names(), [second]);
    }

    #[test]
    fn without_a_folder_nothing_is_stored_and_nothing_fails() {
        let (disk, rows) = Disk::open(Path::new("/nonexistent/peers.db"));
        assert!(rows.is_empty());
        disk.write(&changes(&[row(1)]), &NameChanges::new())
            .unwrap();
    }
}
