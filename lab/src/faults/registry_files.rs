//! Damaged files and rows of a registry: it starts all the same, or one line says which file an operator must restore.

use super::{
    Figure, Outcome,
    state_files::{DAMAGES, Damage, MAX_RESIDENT_KIB},
};
use crate::{proc_files, progress::progress, standalone_registry::StandaloneRegistry};
use anyhow::{Context, Result};
use rusqlite::{Connection, types::Value};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Values that no row has, for columns of each kind.
const ODD_VALUES: [Value; 3] = [
    Value::Integer(i64::MIN),
    Value::Integer(i64::MAX),
    Value::Null,
];
/// Text that is no name, no document and no certificate.
const ODD_TEXT: &str = "\u{fffd}{[\"'; DROP TABLE certificates; --";

/// What followed from the damage.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    tries: usize,
    /// The registry neither started nor named the file, or panicked.
    unclear: u64,
    followed_links: u64,
    peak_kib: u64,
}

impl Found {
    fn outcome(self, id: &'static str, fault: &'static str) -> Outcome {
        Outcome {
            id,
            fault,
            tries: self.tries,
            figures: vec![
                Figure::count("failed starts without a clear line", self.unclear, 0),
                Figure::count("followed links", self.followed_links, 0),
                Figure {
                    unit: "MiB",
                    ..Figure::count("memory", self.peak_kib >> 10, MAX_RESIDENT_KIB >> 10)
                },
            ],
        }
    }
}

/// A registry with one node, and a copy of its files as they were.
struct Bench {
    registry: StandaloneRegistry,
    root: PathBuf,
    copy: PathBuf,
    secret: PathBuf,
}

impl Bench {
    fn build() -> Result<Self> {
        let registry = StandaloneRegistry::start(&[], &[])?;
        let invitation = registry.create_invitation(1)?;
        let join = registry.start_join(&invitation, "machine")?;
        join.wait_for_exit(super::state_files::START_TIMEOUT)
            .context("warren join did not end")?;
        registry.create_invitation(1)?;
        registry.kill();
        let folder = registry.folder().to_owned();
        let bench = Self {
            registry,
            root: folder.join("registry"),
            copy: folder.join("copy"),
            secret: folder.join("secret"),
        };
        fs::write(&bench.secret, "root's alone")?;
        copy_tree(&bench.root, &bench.copy)?;
        Ok(bench)
    }

    /// Puts all files back, damages some of them, starts the registry, and stops it.
    fn try_damage(
        &self,
        found: &mut Found,
        file: &Path,
        damage: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        fs::remove_dir_all(&self.root)?;
        copy_tree(&self.copy, &self.root)?;
        damage(&self.root.join(file))?;
        found.tries += 1;
        let log = self.registry.folder().join("registry.log");
        let start = fs::read(&log)?.len();
        let started = self.registry.start_again();
        if started.is_ok() {
            let peak = self.registry.pid().and_then(proc_files::peak_kib);
            found.peak_kib = found.peak_kib.max(peak.unwrap_or_default());
            // A damaged row shows its effect when it is read, if not before.
            drop(self.registry.command("list", &[]));
            drop(self.registry.command("parameters", &[]));
        }
        let printed =
            String::from_utf8_lossy(fs::read(&log)?.get(start..).unwrap_or_default()).into_owned();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // Of the files beside a database, the line names the ends only.
        let parts = name.split_inclusive(".sqlite");
        let is_named = parts.into_iter().all(|part| printed.contains(part));
        let is_clear = started.is_ok() || is_named;
        if !is_clear || printed.contains("panicked") || printed.contains("PANIC") {
            progress(format!("{}: {}", file.display(), printed.trim()));
            found.unclear += 1;
        }
        let text = fs::read_to_string(&self.secret);
        found.followed_links += u64::from(text.ok().as_deref() != Some("root's alone"));
        self.registry.kill();
        Ok(())
    }

    /// All files of the registry, relative to its root.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let mut folders = vec![self.copy.clone()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.is_file() {
                    files.push(path.strip_prefix(&self.copy)?.to_owned());
                }
            }
        }
        files.sort();
        Ok(files)
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let arguments = [Path::new("-a"), from, to];
    let copied = std::process::Command::new("cp").args(arguments).status()?;
    anyhow::ensure!(copied.success(), "cannot copy {}", from.display());
    Ok(())
}

/// Damages each file alone by each kind of damage, and each column of each table by several values.
pub(super) fn run() -> Result<Vec<Outcome>> {
    let bench = Bench::build()?;
    let fault = "a file of a registry is empty, cut, garbage, 2 GiB long, a folder, a pipe or a link to another file";
    progress(fault);
    let mut files = Found::default();
    for file in bench.files()? {
        for damage in DAMAGES {
            let damaged = |path: &Path| Damage::apply(*damage, path, &bench.secret);
            bench.try_damage(&mut files, &file, damaged)?;
        }
    }
    let rows_fault =
        "a column of a registry's database has another number, no value, or other text in all rows";
    progress(rows_fault);
    let mut rows = Found::default();
    let database = Path::new("var/lib/warren-registry/registry.sqlite");
    let odd_text = [Value::Text(ODD_TEXT.to_owned()), Value::Blob(vec![0; 32])];
    for (table, column) in columns(&bench.copy.join(database))? {
        for value in ODD_VALUES.iter().chain(&odd_text) {
            bench.try_damage(&mut rows, database, |path| {
                change_column(path, (&table, &column), value)
            })?;
        }
    }
    Ok(vec![
        files.outcome("registry-files", fault),
        rows.outcome("registry-rows", rows_fault),
    ])
}

/// All columns of all tables, each with its table.
fn columns(database: &Path) -> Result<Vec<(String, String)>> {
    let file = Connection::open(database)?;
    let query = "SELECT m.name, c.name FROM sqlite_schema m, pragma_table_info(m.name) c \
        WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'";
    let mut statement = file.prepare(query)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Gives a column this value in all rows, or in one if it must be unique. Where the schema rejects the value, nothing changes.
fn change_column(path: &Path, (table, column): (&str, &str), value: &Value) -> Result<()> {
    let file = Connection::open(path)?;
    file.execute_batch("PRAGMA ignore_check_constraints = ON;")?;
    let change = format!("UPDATE OR IGNORE {table} SET {column} = ?1");
    file.execute(&change, [value]).ok();
    Ok(())
}
