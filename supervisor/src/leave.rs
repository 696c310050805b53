//! Makes a node leave its network: the registry revokes its certificate, and the identity is removed from this machine.
//!
//! Nothing is removed before the registry has answered, so that an attempt that fails can be repeated.

use crate::{errors::StartError, pid_file};
use config::{ConfigError, paths::Paths};
use membership::{
    certificate::{Certificate, MAX_CREDENTIAL_BYTES},
    credentials::{CredentialsError, NodeCredentials},
    registry_api::{RegistryApiClient, RegistryApiError},
};
use policies::names::Prefix;
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use wire::{
    errors::ignore_not_found,
    registry::{Departed, Departure, VERSION},
};

/// HTTP status by which the registry rejects a certificate that is revoked, unknown or expired.
const REJECTED_STATUS: u16 = 403;

/// The reason why a node cannot leave.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// There is no file of a node.
    #[error("{} does not exist: this machine is not a node", path.display())]
    NotJoined {
        /// The path of the configuration.
        path: PathBuf,
    },
    /// The configuration does not name the registry.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be read, renamed or removed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// The action that was tried.
        what: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Certificate and key cannot be used.
    #[error("the identity of this node cannot be used")]
    Credentials(#[from] CredentialsError),
    /// The registry did not answer, or failed.
    #[error(transparent)]
    Call(#[from] RegistryApiError),
    /// The unit of the node does not stop.
    #[error("the unit of the node does not stop: {message}")]
    Unit {
        /// The text that `systemctl` printed.
        message: String,
    },
    /// The daemon runs, and systemd did not start it.
    #[error("warren runs here (pid {pid}): stop it, and repeat the command")]
    DaemonRuns {
        /// The pid of the running process.
        pid: String,
    },
    /// The folder of the pid file cannot be used.
    #[error(transparent)]
    Lock(StartError),
}

impl LeaveError {
    /// Returns the exit code of the command.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => 4,
            Self::Call(RegistryApiError::TimedOut { .. }) => 5,
            Self::Config(_) => config::EXIT_CODE,
            Self::NotJoined { .. }
            | Self::Io { .. }
            | Self::Credentials(_)
            | Self::Call(_)
            | Self::Unit { .. }
            | Self::DaemonRuns { .. }
            | Self::Lock(_) => 1,
        }
    }
}

/// The effect of a departure at the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departing {
    /// The registry has revoked this number of certificates.
    Revoked(usize),
    /// The certificate was revoked, or had expired, before.
    WasOut,
}

/// The membership of a node, as its files describe it.
pub struct Member {
    /// The prefix of the node; `None` if its certificate is malformed.
    pub prefix: Option<Prefix>,
    registry: RegistryApiClient,
}

fn read(path: PathBuf) -> Result<Vec<u8>, LeaveError> {
    files::read(&path, MAX_CREDENTIAL_BYTES).map_err(|source| LeaveError::Io {
        what: "read",
        path,
        source,
    })
}

impl Member {
    /// Reads the files of a node. They may be removed afterwards.
    ///
    /// # Errors
    /// The machine is not a node, or a file cannot be read or used.
    pub fn read(paths: &Paths) -> Result<Self, LeaveError> {
        let path = paths.config();
        if !path.exists() {
            return Err(LeaveError::NotJoined { path });
        }
        let settings = config::load(&path)?;
        let certificate = read(paths.certificate())?;
        let credentials =
            NodeCredentials::from_pem(&read(paths.ca())?, &certificate, &read(paths.key())?)?;
        let subject = Certificate::read_file(&paths.certificate());
        Ok(Self {
            prefix: subject.map(|(_, certificate)| certificate.prefix),
            registry: RegistryApiClient::with_credentials(&settings.registry, &credentials)?,
        })
    }

    /// Asks the registry to revoke the certificates of this node.
    ///
    /// # Errors
    /// The registry did not answer, or failed.
    pub async fn depart(&self) -> Result<Departing, LeaveError> {
        let departure = Departure { version: VERSION };
        let call =
            self.registry
                .send::<Departed>(reqwest::Method::POST, "/v1/departures", &departure);
        match call.await {
            Ok(departed) => Ok(Departing::Revoked(departed.certificates)),
            Err(RegistryApiError::Rejected {
                status: REJECTED_STATUS,
                ..
            }) => Ok(Departing::WasOut),
            Err(error) => Err(error.into()),
        }
    }
}

/// Keeps the daemon of this root from starting; released when the value is dropped.
pub struct StoppedDaemon {
    _lock: Option<nix::fcntl::Flock<fs::File>>,
}

/// Checks that the daemon does not run, and keeps it from starting.
///
/// # Errors
/// The daemon runs, or the pid file cannot be locked.
pub fn lock_daemon(paths: &Paths) -> Result<StoppedDaemon, LeaveError> {
    // A boot removes the folder; without it no daemon runs.
    if !paths.run().is_dir() {
        return Ok(StoppedDaemon { _lock: None });
    }
    match pid_file::lock(paths) {
        Ok(lock) => Ok(StoppedDaemon { _lock: Some(lock) }),
        Err(StartError::AlreadyRuns { pid }) => Err(LeaveError::DaemonRuns { pid }),
        Err(error) => Err(LeaveError::Lock(error)),
    }
}

/// Returns the path to which the configuration of a node that left is renamed.
pub fn former_config(paths: &Paths) -> PathBuf {
    paths.config().with_added_extension("left")
}

/// Removes identity and state of the node. The configuration is renamed to [`former_config`]; what `warren cleanup` needs stays.
///
/// # Errors
/// A file cannot be removed or renamed. A later call continues.
pub fn remove_identity(paths: &Paths) -> Result<(), LeaveError> {
    remove_state(paths)?;
    let (config, former) = (paths.config(), former_config(paths));
    ignore_not_found(files::put_in_place(&config, &former)).map_err(|source| LeaveError::Io {
        what: "rename",
        path: config,
        source,
    })
}

/// Removes identity and state of the node, without its configuration. The key is removed last.
///
/// # Errors
/// A file cannot be removed. A later call continues.
pub(crate) fn remove_state(paths: &Paths) -> Result<(), LeaveError> {
    let state = paths.state();
    let cache = paths.peer_cache();
    let cache_files = ["", "-wal", "-shm"].map(|end| {
        let mut name = cache.clone().into_os_string();
        name.push(end);
        PathBuf::from(name)
    });
    let former = paths.moved_files().map(|(former, _)| former);
    let identity = [
        paths.revoked(),
        state.join("babel-seqno"),
        paths.revocations(),
        paths.network(),
        paths.tls_crypt_other(),
        paths.tls_crypt(),
        paths.certificate(),
        paths.ca(),
        paths.key(),
    ];
    for file in cache_files.iter().chain(&former).chain(&identity) {
        remove(file)?;
        // It may hold the network's keys.
        remove(&files::aside(file))?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), LeaveError> {
    files::remove_tree(path).map_err(|source| LeaveError::Io {
        what: "remove",
        path: path.to_owned(),
        source,
    })
}
