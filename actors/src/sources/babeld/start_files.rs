//! Writes the files with which babeld starts.

use super::BabeldSettings;
use files::Access;
use os::process::Rights;
use os::randomness::Randomness;
use std::{
    io,
    path::{Path, PathBuf},
};
use wire::babel;

/// Maximum size of the file of the sequence number that is read, in bytes; one has at most 6.
const MAX_SEQNO_BYTES: u64 = 64;

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

/// Writes the configuration, which babeld can only read, and replaces babeld's folder by one with nothing but the state file.
pub(super) fn prepare(settings: &BabeldSettings, random: &Randomness) -> Result<(), PrepareError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PrepareError::Write { path, source }
    };
    let Rights { uid, gid, .. } = settings.rights;
    let text = settings.config.text().map_err(PrepareError::Config)?;
    let seqno = next_seqno(&settings.seqno, random);
    let state = babel::state_file(seqno);
    files::replace(&settings.seqno, state.as_bytes(), Access::ours(0o600))
        .map_err(failed(&settings.seqno))?;
    let first = [(BabeldSettings::STATE_FILE, state.as_bytes())];
    files::hand_over(&settings.folder, &first, (uid, gid)).map_err(failed(&settings.folder))?;
    let readable = Access::of(0o640, (0, gid));
    files::replace_volatile(&settings.config_file, text.as_bytes(), readable)
        .map_err(failed(&settings.config_file))
}

/// Returns the sequence number that babeld starts with: a thousand above the last one.
///
/// With a lower number than the last one announced, other nodes would reject our routes for minutes.
fn next_seqno(path: &Path, random: &Randomness) -> u16 {
    let consequence = "babeld starts with a random sequence number";
    let parse = |text: &[u8]| {
        let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
        // The first digits of a number would be too low a number.
        let line = text.strip_suffix('\n').ok_or("its line is incomplete")?;
        line.parse::<u16>().map_err(|error| error.to_string())
    };
    let stored = files::load(path, MAX_SEQNO_BYTES, consequence, parse);
    babel::next_seqno(stored.unwrap_or_else(|| random.port(0..=u16::MAX)))
}
