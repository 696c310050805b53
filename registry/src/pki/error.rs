//! The errors of keys and certificates.

use crate::clock::UnixSeconds;

/// The reason why a key or certificate cannot be created or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The library refused.
    #[error("cannot make {what}")]
    Make {
        /// The object that could not be created.
        what: &'static str,
        /// The underlying error.
        #[source]
        source: rcgen::Error,
    },
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom,
    /// A moment outside the calendar.
    #[error("the moment {moment} after 1970 is outside the calendar: check the system's clock")]
    Time {
        /// The moment.
        moment: UnixSeconds,
    },
    /// A stored certificate that cannot be read.
    #[error("{what} cannot be read as a certificate")]
    Stored {
        /// The object that could not be read.
        what: &'static str,
    },
}
