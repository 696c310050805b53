//! Locks the pid file, so that only one process at a time works for a root.

use crate::errors::StartError;
use config::paths::Paths;
use files::Access;
use nix::fcntl::{Flock, FlockArg};
use std::{fs::File, io::Write};

/// Maximum size of a pid file that is read, in bytes.
const MAX_PID_FILE_BYTES: u64 = 64;

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
    let file = files::open_or_create(&path, Access::ours(0o644)).map_err(failed)?;
    lock_file(paths, file)
}

/// As [`lock`], with the pid file that an earlier program of this process has opened, and locked already.
///
/// # Errors
///
/// As [`lock`].
pub(crate) fn lock_file(paths: &Paths, file: File) -> Result<Flock<File>, StartError> {
    let path = paths.pid_file();
    let failed = |source| StartError::Folder {
        path: path.clone(),
        source,
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0)
                .and_then(|()| writeln!(lock, "{}", std::process::id()))
                .map_err(failed)?;
            Ok(lock)
        }
        Err(_) => {
            let pid = files::read_text(&path, MAX_PID_FILE_BYTES)
                .unwrap_or_default()
                .trim()
                .to_owned();
            Err(StartError::AlreadyRuns { pid })
        }
    }
}
