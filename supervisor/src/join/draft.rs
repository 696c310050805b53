//! Files that `join` writes under temporary names, so that they disappear again unless joining succeeds.

use super::*;

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
        // An earlier attempt may have left the file.
        files::remove_tree(&temporary_path).map_err(&failed)?;
        files::create(&temporary_path, text.as_bytes(), Access { mode, owner }).map_err(&failed)?;
        let draft = Self {
            path: path.to_owned(),
            temporary_path: temporary_path.clone(),
            is_in_place: false,
        };
        Ok(draft)
    }

    pub(super) fn rename_into_place(mut self) -> Result<(), JoinError> {
        files::put_in_place(&self.temporary_path, &self.path)
            .map_err(io_error("put in place", &self.path))?;
        self.is_in_place = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_in_place {
            // An error is ignored, since nothing can be done about it here.
            let _ = files::remove(&self.temporary_path);
        }
    }
}
