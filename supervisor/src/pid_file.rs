//! Locks the pid file, so that only one process at a time works for a root.

use crate::errors::StartError;
use config::paths::Paths;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};

/// Locks the pid file, and writes the pid of this process. The lock lasts until the returned value is dropped.
///
/// # Errors
///
/// [`StartError::AlreadyRuns`] if another process has the lock; otherwise the file cannot be opened or written.
pub fn lock(paths: &Paths) -> Result<Flock<File>, StartError> {
    let path = paths.pid_file();
    let failed = |source| StartError::Folder {
        path: path.clone(),
        source,
    };
    let mut options = OpenOptions::new();
    let file = options
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => {
            fs::write(&path, format!("{}\n", std::process::id())).map_err(failed)?;
            Ok(lock)
        }
        Err(_) => {
            let pid = fs::read_to_string(&path)
                .unwrap_or_default()
                .trim()
                .to_owned();
            Err(StartError::AlreadyRuns { pid })
        }
    }
}
