//! Errors of keys and certificates.

use crate::clock::UnixSeconds;

/// The reason why a key or a certificate cannot be created or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A key or a certificate cannot be created.
    #[error("cannot create {what}")]
    Make {
        /// The object that could not be created.
        what: &'static str,
        /// The underlying error.
        #[source]
        source: rcgen::Error,
    },
    /// The system has no random bytes.
    #[error("the system provides no random bytes")]
    NoRandom,
    /// A certificate would begin or expire beyond the calendar.
    #[error(
        "{moment} since 1970 is beyond the calendar: check the system's clock and the lifetimes"
    )]
    Time {
        /// The moment beyond the calendar.
        moment: UnixSeconds,
    },
    /// Certificates of this CA would not be accepted, or its key cannot be used.
    #[error("the CA cannot be used: {why}")]
    UnusableCa {
        /// The property that it lacks, in words.
        why: String,
    },
    /// A stored certificate cannot be read.
    #[error("{what} cannot be read as a certificate")]
    Stored {
        /// The object that could not be read.
        what: &'static str,
    },
}
