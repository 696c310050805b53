//! The errors of a configuration, each printed in one line.

use std::{fmt, io, path::PathBuf};

/// The daemon's exit code for faults that a restart cannot repair (`EX_CONFIG` of sysexits.h).
pub const EXIT_CODE: u8 = 78;

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read: it is missing, forbidden, or a folder.
    #[error("{}: cannot read the configuration", file.display())]
    Read {
        /// The configuration file.
        file: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The path is no regular file.
    #[error("{}: is no file; a configuration in YAML belongs there", file.display())]
    NotAFile {
        /// The path that was given.
        file: PathBuf,
    },
    /// The file has nothing but spaces and comments.
    #[error("{}: is empty; at least `registry: https://HOST:PORT` is needed", file.display())]
    Empty {
        /// The configuration file.
        file: PathBuf,
    },
    /// The file is not text, or too long for a configuration.
    #[error("{}: is no UTF-8 text of at most {limit} bytes", file.display())]
    NotText {
        /// The configuration file.
        file: PathBuf,
        /// The maximum size of a configuration in bytes.
        limit: u64,
    },
    /// The file is not YAML.
    #[error("{}:{line}: {text}", file.display())]
    Syntax {
        /// The configuration file.
        file: PathBuf,
        /// The line at which the parser stopped, from 1.
        line: usize,
        /// The parser's message.
        text: String,
    },
    /// Keys or values are wrong.
    #[error("{}", Listed(complaints))]
    Values {
        /// The errors, at least one, in the order of the files.
        complaints: Vec<Complaint>,
    },
}

impl ConfigError {
    /// Returns the exit code of the process.
    pub fn exit_code(&self) -> u8 {
        EXIT_CODE
    }
}

/// One thing that is wrong with a key or a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The configuration file, or the drop-in file.
    pub file: PathBuf,
    /// The line, from 1; `None` for a missing key.
    pub line: Option<usize>,
    /// The key, such as `listen.udp` or `endpoints[0]`.
    pub key: String,
    /// The value that was found.
    pub value: String,
    /// A valid value, in words.
    pub right: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}: {}: expected {}", self.key, self.value, self.right)
    }
}

/// One line for each complaint.
struct Listed<'a>(&'a [Complaint]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, complaint) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{complaint}")?;
        }
        Ok(())
    }
}
