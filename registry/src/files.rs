//! Creates, reads and replaces the files and folders of a registry. Other users cannot read them, and a file is
//! replaced as a whole or not at all.

use ::files::Access;
use std::{
    io,
    path::{Path, PathBuf},
};
use wire::errors::ignore_not_found;

/// The reason why a file or folder of the registry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file does not exist.
    #[error("{} is missing: restore it from a backup of its folder", path.display())]
    Missing {
        /// The path of the file.
        path: PathBuf,
    },
    /// The system reported an error.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The action that was tried.
        what: &'static str,
        /// The path of the file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The content of the file is not valid.
    #[error("{} is not valid: {why}", path.display())]
    Bad {
        /// The path of the file.
        path: PathBuf,
        /// The fault, in words.
        why: String,
    },
}

impl FileError {
    /// Returns whether the user lacks the permission to use the file.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Returns a function that turns an error of the system into the error that `what` failed on `path`.
pub(crate) fn io_error<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> FileError + 'a {
    move |source| FileError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

/// Maximum size of a key, certificate or settings file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Creates a folder with mode 0700, and its missing parents with mode 0755.
pub(crate) fn private_folder(path: &Path) -> Result<(), FileError> {
    ::files::folder(path, Access::ours(0o700)).map_err(io_error("create the folder", path))
}

/// Writes a new file with mode 0600, and waits until it is on disk.
pub(crate) fn write_new(path: &Path, text: &str) -> Result<(), FileError> {
    ::files::create(path, text.as_bytes(), Access::ours(0o600)).map_err(io_error("write", path))
}

/// Reads a file as text.
pub(crate) fn read(path: &Path) -> Result<String, FileError> {
    let failed = |source: io::Error| {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::NotFound {
            FileError::Missing { path }
        } else {
            let what = "read";
            FileError::Io { what, path, source }
        }
    };
    let content = ::files::read_linked(path, MAX_FILE_BYTES).map_err(failed)?;
    String::from_utf8(content).map_err(|_| FileError::Bad {
        path: path.to_owned(),
        why: "it is no UTF-8 text".to_owned(),
    })
}

/// Replaces a file as a whole by one with mode 0600, and waits until it is on disk.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), FileError> {
    ::files::replace(path, text.as_bytes(), Access::ours(0o600)).map_err(io_error("write", path))
}

/// Removes a file or folder if it exists.
pub(crate) fn remove_if_exists(path: &Path) -> Result<(), FileError> {
    ::files::remove_tree(path).map_err(io_error("remove", path))
}

/// Renames a file if it exists.
pub(crate) fn rename_if_exists(from: &Path, to: &Path) -> Result<(), FileError> {
    ignore_not_found(::files::put_in_place(from, to)).map_err(io_error("rename", from))
}
