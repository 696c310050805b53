//! The end-to-end tests are in `tests/`; each file describes a topology and a fault in its first lines. The rules of the repository are
//! there, too, and share this list of its files.

#![allow(clippy::unwrap_used, reason = "only tests call this")]

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// Returns the root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Returns the files that git tracks and that exist, relative to [`root`].
///
/// # Panics
///
/// The sources are no clone of the repository.
pub fn tracked_files() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        listed.status.success(),
        "git ls-files failed: run the tests from a clone"
    );
    let names = String::from_utf8(listed.stdout).unwrap();
    let names = names.split('\0').filter(|name| !name.is_empty());
    names
        .filter(|name| root().join(name).exists())
        .map(str::to_owned)
        .collect()
}

/// Whether a test is skipped because the npm registry cannot be reached; says so.
pub fn is_skipped_without_npm() -> bool {
    let is_skipped = env::var_os("WARREN_WITHOUT_NPM").is_some_and(|value| value == "1");
    if is_skipped {
        writeln!(std::io::stderr(), "SKIPPED: packages from npm are needed").ok();
    }
    is_skipped
}
