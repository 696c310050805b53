//! Files that `join` writes under temporary names, so that they disappear again unless joining succeeds.

use super::*;
use std::os::unix::fs::fchown;
use wire::errors::ignore_not_found;

/// A file under a temporary name. It is removed when this value is dropped, unless it was renamed before.
pub(super) struct Draft {
    path: PathBuf,
    temporary_path: PathBuf,
    is_in_place: bool,
}

impl Draft {
    pub(super) fn write(
        path: &Path,
        text: &str,
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<Self, JoinError> {
        let temporary_path = path.with_added_extension("new");
        let failed = io_error("write", &temporary_path);
        // An earlier attempt may have left the file. A new one is created, which follows no symbolic link.
        ignore_not_found(fs::remove_file(&temporary_path)).map_err(&failed)?;
        let open = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary_path);
        let mut file = open.map_err(&failed)?;
        let draft = Self {
            path: path.to_owned(),
            temporary_path: temporary_path.clone(),
            is_in_place: false,
        };
        if let Some((uid, gid)) = owner {
            fchown(&file, Some(uid), Some(gid))
                .map_err(io_error("set the owner of", &temporary_path))?;
        }
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(&failed)?;
        Ok(draft)
    }

    pub(super) fn rename_into_place(mut self) -> Result<(), JoinError> {
        fs::rename(&self.temporary_path, &self.path)
            .map_err(io_error("put in place", &self.path))?;
        self.is_in_place = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_in_place {
            // An error is ignored, since nothing can be done about it here.
            let _ = fs::remove_file(&self.temporary_path);
        }
    }
}

/// Waits until the names of the files in the folder of `path` are on disk.
pub(super) fn sync_folder(path: &Path) -> Result<(), JoinError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io_error("write", folder))
}
