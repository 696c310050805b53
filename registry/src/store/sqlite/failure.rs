//! Translates errors of SQLite into those of the store.

use crate::store::StorageError;
use rusqlite::ErrorCode;
use std::{path::Path, sync::Arc};

/// The path of a database, which makes the errors about it.
#[derive(Clone, Debug)]
pub(super) struct DatabasePath(Arc<Path>);

impl DatabasePath {
    pub(super) fn new(path: &Path) -> Self {
        Self(Arc::from(path))
    }

    /// Returns a function that turns an error of SQLite into the error that `action` failed.
    pub(super) fn failure(
        &self,
        action: &'static str,
    ) -> impl Fn(rusqlite::Error) -> StorageError + use<> {
        let database = self.clone();
        move |source| {
            let code = source.sqlite_error_code();
            if let Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) = code {
                database.corrupt(source.to_string())
            } else if code == Some(ErrorCode::DiskFull) {
                let path = database.0.to_path_buf();
                StorageError::DiskFull { path, action }
            } else {
                database.unavailable(action, source)
            }
        }
    }

    pub(super) fn unavailable(
        &self,
        action: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StorageError {
        StorageError::Unavailable {
            path: self.0.to_path_buf(),
            action,
            source: source.into(),
        }
    }

    pub(super) fn corrupt(&self, detail: impl Into<String>) -> StorageError {
        StorageError::Corrupt {
            path: self.0.to_path_buf(),
            detail: detail.into(),
        }
    }

    pub(super) fn incompatible(&self, detail: impl Into<String>) -> StorageError {
        StorageError::Incompatible {
            path: self.0.to_path_buf(),
            detail: detail.into(),
        }
    }
}
