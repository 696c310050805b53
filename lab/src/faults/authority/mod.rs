//! Registries that cannot be found or come back older than they were, and callers, certificates and documents that are not to be
//! trusted.

mod calls;
mod dns;
mod hostile_names;
mod matrix;
mod older_copy;
mod older_documents;
mod prefixes;
mod renewals;

use super::Outcome;
use anyhow::Result;

pub(super) fn run() -> Result<Vec<Outcome>> {
    Ok(vec![
        calls::run()?,
        renewals::run()?,
        prefixes::run()?,
        hostile_names::run()?,
        older_documents::run()?,
        dns::run()?,
        older_copy::run()?,
    ])
}
