//! Makes a registry's folders and files, so that nobody else can read them and none is half written.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};
use wire::errors::ignore_not_found;

/// A file or folder of the registry that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file is not there.
    #[error("{} is missing: restore it from a backup of its folder", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The action that was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The content is not what it should be.
    #[error("{}: {why}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong, in words.
        why: String,
    },
}

impl FileError {
    /// Returns whether the caller lacks the rights.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

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

/// Makes a folder with its parents; the last is 0700, those above keep the usual rights.
pub(crate) fn private_folder(path: &Path) -> Result<(), FileError> {
    let failed = io_error("make the folder", path);
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

/// Writes a new file, 0600, down to the disk.
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

/// Puts a file, 0600, in another's place, all at once and down to the disk.
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

/// Removes a file; one that is not there is as good as removed.
pub(crate) fn remove_file_if_exists(path: &Path) -> Result<(), FileError> {
    ignore_not_found(fs::remove_file(path)).map_err(io_error("remove", path))
}

/// Removes a folder with its content; one that is not there is as good as removed.
pub(crate) fn remove_folder_if_exists(path: &Path) -> Result<(), FileError> {
    ignore_not_found(fs::remove_dir_all(path)).map_err(io_error("remove", path))
}

/// Renames a file where it exists.
pub(crate) fn rename_if_exists(from: &Path, to: &Path) -> Result<(), FileError> {
    ignore_not_found(fs::rename(from, to)).map_err(io_error("put aside", from))
}
