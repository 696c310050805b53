//! Copies the database every hour, so that a corrupt database costs at most the work of an hour.

use crate::{
    files::{self, remove_if_exists},
    init::error::RegistryError,
    settings::RegistryPaths,
    store,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use wire::errors::Chain;

/// Interval between two copies.
const COPY_INTERVAL: Duration = Duration::from_secs(3600);

/// Number of copies that are kept; the next one replaces the oldest.
const MAX_COPIES: usize = 24;

/// Starts to copy the database every hour into the folder `copies` beside it, the first time after an hour.
/// The copies are named `registry-00.sqlite` to `registry-23.sqlite`.
///
/// # Errors
/// The folder cannot be created.
pub(crate) fn start(paths: &RegistryPaths, database: &Path) -> Result<(), RegistryError> {
    let folder = paths.state_dir.join("copies");
    files::private_folder(&folder)?;
    let database = database.to_owned();
    actix_rt::spawn(async move {
        for number in (0..MAX_COPIES).cycle() {
            tokio::time::sleep(COPY_INTERVAL).await;
            let (from, to) = (
                database.clone(),
                folder.join(format!("registry-{number:02}.sqlite")),
            );
            match actix_rt::task::spawn_blocking(move || copy(&from, &to)).await {
                Ok(Ok(to)) => tracing::info!(to = %to.display(), "database copied"),
                Ok(Err(error)) => tracing::error!(
                    error = %Chain(error.as_ref()),
                    "the hourly copy of the database failed; the next one is tried in an hour"
                ),
                Err(error) => tracing::error!(
                    %error,
                    "the hourly copy of the database failed; the next one is tried in an hour"
                ),
            }
        }
    });
    Ok(())
}

/// Copies a database beside `to` first, so that `to` is always a complete copy.
fn copy(from: &Path, to: &Path) -> Result<PathBuf, Box<dyn std::error::Error + Send + Sync>> {
    let draft = to.with_added_extension("new");
    remove_if_exists(&draft)?;
    store::copy(from, &draft)?;
    ::files::put_in_place(&draft, to)?;
    Ok(to.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_copy_is_intact_and_replaces_an_earlier_copy() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (
            folder.path().join("a.sqlite"),
            folder.path().join("b.sqlite"),
        );
        drop(store::open(&from, 16, 0).unwrap());
        for _ in 0..2 {
            copy(&from, &to).unwrap();
            store::verify(&to).unwrap();
        }
        let drafts = fs::read_dir(folder.path())
            .unwrap()
            .filter_map(Result::ok)
            .filter(|file| file.file_name().to_string_lossy().ends_with(".new"));
        assert_eq!(drafts.count(), 0);
    }
}
