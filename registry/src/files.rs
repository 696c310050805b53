//! Creates, reads and replaces the files and folders of a registry. Other users cannot read them, and a file is
//! replaced as a whole or not at all.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
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

/// Creates a folder with mode 0700, and its missing parents with mode 0755.
pub(crate) fn private_folder(path: &Path) -> Result<(), FileError> {
    let failed = io_error("create the folder", path);
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .map_err(&failed)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(&failed)
        }
        outcome => outcome.map_err(&failed),
    }
}

/// Writes a new file with mode 0600, and waits until it is on disk.
pub(crate) fn write_new(path: &Path, text: &str) -> Result<(), FileError> {
    let failed = io_error("write", path);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(&failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(&failed)
}

/// Reads a file as text.
pub(crate) fn read(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(|source| {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::NotFound {
            FileError::Missing { path }
        } else {
            let what = "read";
            FileError::Io { what, path, source }
        }
    })
}

/// Replaces a file as a whole by one with mode 0600, and waits until it is on disk.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), FileError> {
    let failed = io_error("write", path);
    let draft = path.with_added_extension("new");
    remove_file_if_exists(&draft)?;
    write_new(&draft, text)?;
    fs::rename(&draft, path).map_err(&failed)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(&failed)
}

/// Removes a file if it exists.
pub(crate) fn remove_file_if_exists(path: &Path) -> Result<(), FileError> {
    ignore_not_found(fs::remove_file(path)).map_err(io_error("remove", path))
}

/// Removes a folder with its content if it exists.
pub(crate) fn remove_folder_if_exists(path: &Path) -> Result<(), FileError> {
    ignore_not_found(fs::remove_dir_all(path)).map_err(io_error("remove", path))
}

/// Renames a file if it exists.
pub(crate) fn rename_if_exists(from: &Path, to: &Path) -> Result<(), FileError> {
    ignore_not_found(fs::rename(from, to)).map_err(io_error("rename", from))
}
