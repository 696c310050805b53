//! Converts columns of the database: points in time and prefixes.

use crate::clock::UnixSeconds;
use policies::names::Prefix;
use rusqlite::{
    Row,
    types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef},
};

impl ToSql for UnixSeconds {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl FromSql for UnixSeconds {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        i64::column_result(value).map(Self)
    }
}

/// Reads a prefix from the columns `first` (its number) and `first + 1` (its length); `None` if they hold
/// numbers that no prefix has.
pub(super) fn prefix_of(row: &Row<'_>, first: usize) -> Option<Prefix> {
    Prefix::new(row.get(first).ok()?, row.get(first + 1).ok()?)
}
