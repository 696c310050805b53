//! Writes the files with which babeld starts.

use super::BabeldSettings;
use os::process::Rights;
use os::randomness::Randomness;
use std::{
    fs, io,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};
use wire::babel;
use wire::errors::ignore_not_found;

/// The reason why the files for babeld could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A file or folder could not be written.
    #[error("cannot write {path}", path = path.display())]
    Write {
        /// The path of the file.
        path: PathBuf,
        /// The underlying error.
        #[source]
        source: io::Error,
    },
    /// A value cannot be expressed in babeld's configuration.
    #[error("cannot express babeld's configuration")]
    Config(#[source] babel::BadConfig),
}

/// Creates the folders, removes the socket of an earlier babeld, and writes the configuration and the state file.
pub(super) fn prepare(settings: &BabeldSettings, random: &Randomness) -> Result<(), PrepareError> {
    let Rights { uid, gid, .. } = settings.rights;
    for folder in [&settings.folder, &settings.state_folder] {
        let failed = |source| PrepareError::Write {
            path: folder.clone(),
            source,
        };
        fs::create_dir_all(folder).map_err(failed)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        chown(folder, Some(uid), Some(gid)).map_err(failed)?;
    }
    for path in [
        &settings.config.socket,
        &settings.config_file(),
        &settings.config.state_file,
    ] {
        ignore_not_found(fs::remove_file(path)).map_err(|source| PrepareError::Write {
            path: path.clone(),
            source,
        })?;
    }
    let seqno = next_seqno(&settings.seqno, random);
    write(&settings.seqno, &babel::state_file(seqno), None)?;
    write(
        &settings.config.state_file,
        &babel::state_file(seqno),
        Some((uid, gid)),
    )?;
    let text = settings.config.text().map_err(PrepareError::Config)?;
    write(&settings.config_file(), &text, Some((uid, gid)))
}

/// Returns the sequence number that babeld starts with: a thousand above the last one.
///
/// With a lower number than the last one announced, other nodes would reject our routes for minutes.
fn next_seqno(path: &Path, random: &Randomness) -> u16 {
    let stored = fs::read_to_string(path)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    babel::next_seqno(stored.unwrap_or_else(|| random.port(0..=u16::MAX)))
}

fn write(path: &Path, text: &str, owner: Option<(u32, u32)>) -> Result<(), PrepareError> {
    let failed = |source| PrepareError::Write {
        path: path.to_owned(),
        source,
    };
    let temporary = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    if let Some((uid, gid)) = owner {
        chown(&temporary, Some(uid), Some(gid)).map_err(failed)?;
    }
    fs::rename(&temporary, path).map_err(failed)
}
