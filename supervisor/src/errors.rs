//! Errors that prevent the daemon from starting, each with one line of text and an exit code.

use membership::{
    credentials::CredentialsError, documents::FileError, registry_api::RegistryApiError,
};
use os::kernel::KernelError;
use std::{io, path::PathBuf};

/// The error if the daemon cannot start. Its text names the fault, where it is, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// The daemon was not started by root.
    #[error("warren run needs root: it makes links and routes (try: sudo warren run)")]
    NotRoot,
    /// The limit of open files is too low, and the process may not raise it.
    #[error(
        "the limit of open files is {limit}, and a node needs at least {min}: raise it (LimitNOFILE= of the unit, ulimit -n, or the options of the container)"
    )]
    FewOpenFiles {
        /// The present limit.
        limit: u64,
        /// The smallest limit with which a node starts.
        min: u64,
    },
    /// A certificate, key or network document is missing or wrong.
    #[error("{path}: {why}", path = path.display())]
    Identity {
        /// The path of the file.
        path: PathBuf,
        /// The fault, and what would be right.
        why: String,
    },
    /// A program is not installed.
    #[error("{program} is not installed (looked in {looked}): apt install {program}")]
    NoProgram {
        /// The name of the program.
        program: &'static str,
        /// The folders that were searched.
        looked: &'static str,
    },
    /// The user that a child is to run as does not exist.
    #[error("child-users: user {name} does not exist: install the package, or give a number")]
    NoUser {
        /// The name of the user.
        name: String,
    },
    /// Another program uses the port of a server.
    #[error(
        "listen: {transport} port {port} is taken by another program: stop it, or choose another port"
    )]
    PortTaken {
        /// `udp` or `tcp`.
        transport: &'static str,
        /// The number of the port.
        port: u16,
    },
    /// Another routing daemon uses Babel's port.
    #[error("another routing daemon holds UDP port 6696: stop it (systemctl disable --now babeld)")]
    AnotherBabeld,
    /// Another daemon runs with the same root.
    #[error("another warren runs here already (pid {pid}): stop it first")]
    AlreadyRuns {
        /// The pid of the running daemon.
        pid: String,
    },
    /// The kernel rejected a change.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The credentials for TLS between nodes cannot be used.
    #[error(transparent)]
    NodeCredentials(#[from] CredentialsError),
    /// The client of the registry cannot be set up.
    #[error(transparent)]
    Registry(#[from] RegistryApiError),
    /// A file or folder cannot be opened or created.
    #[error("cannot open or make {path}", path = path.display())]
    Folder {
        /// The path of the folder or file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A file of an older release cannot be moved to its present place.
    #[error("cannot move {path} to /var/lib/warren", path = path.display())]
    Move {
        /// The former path of the file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A file of the node's state cannot be read or written.
    #[error(transparent)]
    State(#[from] FileError),
    /// Signals or a socket could not be set up.
    #[error("cannot {doing}")]
    Runtime {
        /// The action that was tried.
        doing: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl StartError {
    /// Returns the exit code. It is 78 (`EX_CONFIG`) for errors that a restart cannot repair, so that systemd
    /// does not restart the daemon.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::FewOpenFiles { .. }
            | Self::Identity { .. }
            | Self::NoProgram { .. }
            | Self::NoUser { .. } => 78,
            Self::NotRoot => 4,
            Self::PortTaken { .. }
            | Self::AnotherBabeld
            | Self::AlreadyRuns { .. }
            | Self::Kernel(_)
            | Self::NodeCredentials(_)
            | Self::Registry(_)
            | Self::Folder { .. }
            | Self::Move { .. }
            | Self::State(_)
            | Self::Runtime { .. } => 1,
        }
    }
}
