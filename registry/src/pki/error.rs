//! The errors of keys and certificates.

/// What an authority could not do.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The library refused.
    #[error("cannot make {what}")]
    Make {
        /// What was tried.
        what: &'static str,
        /// The underlying error.
        #[source]
        source: rcgen::Error,
    },
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom,
    /// A moment outside the calendar.
    #[error("{seconds} s since 1970 is outside the calendar")]
    Time {
        /// The moment.
        seconds: i64,
    },
    /// A stored certificate that cannot be read.
    #[error("{what} cannot be read as a certificate")]
    Stored {
        /// What was tried.
        what: &'static str,
    },
}
