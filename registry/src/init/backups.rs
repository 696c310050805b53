//! Copies the database each hour, so that a disk that lies costs an hour at most.

use crate::{
    files::{self, remove_file_if_exists},
    init::error::RegistryError,
    settings::RegistryPaths,
    store::sqlite,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use wire::errors::Chain;

/// Interval between two backups.
const EACH: Duration = Duration::from_secs(3600);

/// So many copies are kept, the oldest is replaced.
const KEPT: usize = 24;

/// Starts to copy the database into a folder beside it, the first time in an hour; the copies are
/// `registry-00.sqlite` and so on.
///
/// # Errors
/// The folder cannot be made.
pub(crate) fn keep(paths: &RegistryPaths, database: &Path) -> Result<(), RegistryError> {
    let folder = paths.state_dir.join("copies");
    files::private_folder(&folder)?;
    let database = database.to_owned();
    actix_rt::spawn(async move {
        for number in (0..KEPT).cycle() {
            tokio::time::sleep(EACH).await;
            let (from, to) = (
                database.clone(),
                folder.join(format!("registry-{number:02}.sqlite")),
            );
            match actix_rt::task::spawn_blocking(move || copy(&from, &to)).await {
                Ok(Ok(to)) => tracing::info!(to = %to.display(), "database copied"),
                Ok(Err(error)) => {
                    tracing::error!(error = %Chain(error.as_ref()), "no copy of the database")
                }
                Err(error) => tracing::error!(%error, "no copy of the database"),
            }
        }
    });
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<PathBuf, Box<dyn std::error::Error + Send + Sync>> {
    let draft = to.with_added_extension("new");
    remove_file_if_exists(&draft)?;
    sqlite::copy(from, &draft)?;
    fs::rename(&draft, to)?;
    Ok(to.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_sound_and_replaces_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (
            folder.path().join("a.sqlite"),
            folder.path().join("b.sqlite"),
        );
        drop(sqlite::Sqlite::open(&from, 16, 0).unwrap());
        for _ in 0..2 {
            copy(&from, &to).unwrap();
            sqlite::verify(&to).unwrap();
        }
        assert_eq!(
            fs::read_dir(folder.path())
                .unwrap()
                .filter_map(Result::ok)
                .filter(|file| { file.file_name().to_string_lossy().ends_with(".new") })
                .count(),
            0
        );
    }
}
