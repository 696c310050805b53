//! Files that `join` has written and that vanish again unless joining succeeds.

use super::*;
use wire::errors::ignore_not_found;

/// A file under another name until all are there; removed if it is not kept.
pub(super) struct Draft {
    path: PathBuf,
    draft: PathBuf,
    kept: bool,
}

impl Draft {
    pub(super) fn write(
        path: &Path,
        text: &str,
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<Self, JoinError> {
        let draft = path.with_added_extension("new");
        let failed = io_error("write", &draft);
        ignore_not_found(fs::remove_file(&draft)).map_err(&failed)?;
        let open = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&draft);
        let mut file = open.map_err(&failed)?;
        let made = Self {
            path: path.to_owned(),
            draft: draft.clone(),
            kept: false,
        };
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(&failed)?;
        if let Some((uid, gid)) = owner {
            chown(&draft, Some(uid), Some(gid)).map_err(io_error("give away", &draft))?;
        }
        Ok(made)
    }

    pub(super) fn keep(mut self) -> Result<(), JoinError> {
        fs::rename(&self.draft, &self.path).map_err(io_error("put in place", &self.path))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing more can be done about a draft that stays.
            let _ = fs::remove_file(&self.draft);
        }
    }
}
