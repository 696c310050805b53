//! Makes a registry's folders and files, so that nobody else can read them and none is half written.

use crate::settings::SettingsError;
use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

pub(crate) fn io_error<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> SettingsError + 'a {
    move |source| SettingsError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

/// Makes a folder with its parents; the last is 0700, those above keep the usual rights.
pub(crate) fn private_folder(path: &Path) -> Result<(), SettingsError> {
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
pub(crate) fn write_new(path: &Path, text: &str) -> Result<(), SettingsError> {
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

pub(crate) fn read(path: &Path) -> Result<String, SettingsError> {
    fs::read_to_string(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => SettingsError::Missing {
            path: path.to_owned(),
        },
        _ => SettingsError::Io {
            what: "read",
            path: path.to_owned(),
            source,
        },
    })
}

/// Puts a file, 0600, in another's place, all at once and down to the disk.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), SettingsError> {
    let failed = io_error("write", path);
    let draft = path.with_added_extension("new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    write_new(&draft, text)?;
    fs::rename(&draft, path).map_err(&failed)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(&failed)
}
