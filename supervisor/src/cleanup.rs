//! Restores the host after a daemon that was killed, without starting another one.
//!
//! This is the same sweep as at the daemon's start. It works by what was noted on disk and by the marks of what the daemon
//! created, so it needs no configuration, and a second run finds nothing.

use crate::{
    errors::StartError,
    host::{self, Leftovers},
    identity::NodeIdentity,
    pid_file,
    shutdown::{release_leases, release_pinholes},
};
use actors::sources::{
    pinholes::{
        keeper::{PinholeKeeper, PinholeSettings},
        pinhole::Pinhole,
    },
    port_mapping::{
        default_gateway::DefaultGateway,
        keeper::{Keeper, LeaseSettings},
        ledger::{self, FileLedger, Mapping},
    },
};
use config::paths::Paths;
use membership::documents::PrivateEndpoints;
use os::{kernel::Kernel, randomness::Randomness};
use std::{fs, io};
use wire::errors::Chain;

/// The error if the host cannot be restored. Its text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The command was not started by root.
    #[error("warren cleanup needs root: it removes links and routes (try: sudo warren cleanup)")]
    NotRoot,
    /// The daemon of this root runs, or another cleanup does.
    #[error("warren runs here (pid {pid}): stop it, and it restores the host itself")]
    DaemonRuns {
        /// The pid of the running process.
        pid: String,
    },
    /// The root, a file below it, or the kernel prevented it.
    #[error(transparent)]
    Failed(StartError),
}

impl CleanupError {
    /// Returns the exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotRoot => 4,
            Self::Failed(StartError::Kernel(error)) if error.is_permission_denied() => 4,
            Self::DaemonRuns { .. } | Self::Failed(_) => 1,
        }
    }
}

impl From<StartError> for CleanupError {
    fn from(error: StartError) -> Self {
        if let StartError::AlreadyRuns { pid } = error {
            return Self::DaemonRuns { pid };
        }
        Self::Failed(error)
    }
}

/// What a cleanup removed, restored and released.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleanup {
    /// Children that were killed, and what was removed from the kernel.
    pub leftovers: Leftovers,
    /// Number of port mappings that were removed from the router.
    pub mappings: usize,
    /// The reason why port mappings were left on the router; `None` if there are none.
    pub kept_mappings: Option<String>,
}

/// Removes everything that a killed daemon with this root left on the host.
///
/// # Errors
///
/// The caller is not root, a daemon with this root runs, or the kernel rejects a change.
pub fn clean_up(paths: &Paths) -> Result<Cleanup, CleanupError> {
    host::check_root().map_err(|_| CleanupError::NotRoot)?;
    create_run_folder(paths)?;
    let _lock = pid_file::lock(paths)?;
    actix::System::new().block_on(async {
        let kernel = Kernel::open(paths.root()).map_err(StartError::from)?;
        let leftovers = host::remove_leftovers(&kernel, paths).await?;
        let (mappings, kept_mappings) = release_mappings(paths).await;
        end_pinholes(paths, &kernel).await;
        host::remove_runtime_files(paths);
        Ok(Cleanup {
            leftovers,
            mappings,
            kept_mappings,
        })
    })
}

/// Creates the folder of the pid file, which a boot removes; but not the root, whose name may be mistyped.
fn create_run_folder(paths: &Paths) -> Result<(), StartError> {
    let (root, folder) = (paths.root(), paths.run());
    let failed = |path: &std::path::Path| {
        let path = path.to_owned();
        move |source| StartError::Folder { path, source }
    };
    if !fs::metadata(root).map_err(failed(root))?.is_dir() {
        return Err(failed(root)(io::ErrorKind::NotADirectory.into()));
    }
    host::create_folder(&folder).map_err(failed(&folder))
}

/// Closes the router's firewall for the ports of the ledger.
async fn end_pinholes(paths: &Paths, kernel: &Kernel) {
    if ledger::read::<Pinhole>(&paths.pinholes()).is_empty() {
        return;
    }
    let Ok(identity) = NodeIdentity::read(paths) else {
        return;
    };
    let settings = PinholeSettings {
        network: identity.network,
        wanted: Vec::new(),
        random: Randomness::from_system(),
        kernel: kernel.clone(),
    };
    release_pinholes(&PinholeKeeper::new(
        FileLedger::new(paths.pinholes()),
        settings,
    ))
    .await;
}

/// Removes the port mappings of the ledger from the router. Returns how many there were, and, if they were left,
/// the reason.
async fn release_mappings(paths: &Paths) -> (usize, Option<String>) {
    let recorded = ledger::read::<Mapping>(&paths.leases()).len();
    if recorded == 0 {
        return (0, None);
    }
    let identity = match NodeIdentity::read(paths) {
        Ok(identity) => identity,
        Err(error) => return (0, Some(Chain(&error).to_string())),
    };
    let settings = LeaseSettings {
        me: identity.me,
        network: identity.network,
        wanted: Vec::new(),
        further: Vec::new(),
        private: PrivateEndpoints::default(),
        random: Randomness::from_system(),
    };
    let ledger = FileLedger::new(paths.leases());
    match release_leases(&Keeper::new(DefaultGateway, ledger, settings)).await {
        Ok(()) => (recorded, None),
        Err(error) => (0, Some(Chain(&error).to_string())),
    }
}
