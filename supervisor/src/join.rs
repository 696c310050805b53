//! Makes a machine a node: obtains a certificate with an invitation, or reads one from a file, and writes the files
//! that `warren run` needs.
//!
//! The private key is generated on this machine and never leaves it. No file is overwritten: a machine that has
//! an identity keeps it. An attempt that was interrupted at any point can be repeated: its key is kept
//! (`pending_key`), and the configuration, which makes the machine a node, is put in place last.

mod answer;
mod draft;
mod error;
mod pending_key;

use crate::leave::{self, LeaveError, StoppedDaemon};
pub(crate) use answer::csr;
use answer::verify_answer;
use config::{ChildUser, paths::Paths};
use draft::Draft;
pub use error::JoinError;
use fault_points::fault;
use files::Access;
use membership::certificate::MAX_CREDENTIAL_BYTES;
use membership::registry_api::{RegistryApiClient, RegistryApiError};
use pending_key::PendingKey;
use policies::names::Prefix;
use rcgen::KeyPair;
use std::{
    fs, io,
    net::Ipv6Addr,
    path::{Path, PathBuf},
};
use wire::{
    errors::some_if_found,
    invitation::{Invitation, RegistryAddress, token_text},
    registry::{Claim, Claimed, Enrolment, NetworkDocument, VERSION},
};

/// The user that OpenVPN runs as, if the package has created it.
pub const OPENVPN_USER: &str = "warren-openvpn";

/// The user that babeld runs as, if the package has created it.
pub const BABELD_USER: &str = "warren-babel";

/// The uid that OpenVPN runs as if [`OPENVPN_USER`] does not exist. Debian assigns this number to no user.
pub const OPENVPN_UID: u32 = 60_197;

/// The uid that babeld runs as if [`BABELD_USER`] does not exist.
pub const BABELD_UID: u32 = 60_198;

/// The arguments of joining.
pub struct Joining<'a> {
    /// The invitation that is used.
    pub invitation: &'a Invitation,
    /// The paths of the files to write.
    pub paths: &'a Paths,
    /// Called before the files of a former identity are replaced: stops the daemon. `None` if there may be no identity.
    pub replace: Option<&'a dyn Fn() -> Result<StoppedDaemon, LeaveError>>,
    /// The uids of OpenVPN and babeld; `None` for the package's users or, if they do not exist, [`OPENVPN_UID`] and
    /// [`BABELD_UID`].
    pub children: Option<(u32, u32)>,
}

/// A machine that has become a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The prefix of the node.
    pub prefix: Prefix,
    /// The address of the node.
    pub address: Ipv6Addr,
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> JoinError + 'a {
    move |source| JoinError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

/// Uses the invitation, and writes key, certificates, network document and configuration.
///
/// The key is kept until all is written, so that a repeated call with the same invitation gets the same certificate.
///
/// # Errors
/// See [`JoinError`]. No file is left behind but the key, with which a later call goes on.
pub async fn join(joining: &Joining<'_>) -> Result<Joined, JoinError> {
    let Joining {
        invitation,
        paths,
        replace,
        children,
    } = joining;
    let path = pending_join_key(paths);
    let users = Users::prepare(paths, *children)?;
    if replace.is_none() {
        check_not_joined(paths, &path)?;
    }
    // The key is written to disk before the invitation is used, since an invitation may work only once.
    let mut key = PendingKey::read_or_create(&path, users.reader())?;
    let url = format!("https://{}", invitation.address);
    let registry = RegistryApiClient::with_pinned_ca(&url, invitation.pin)?;
    let claimed = match claim(&registry, invitation, &key.key).await {
        // The kept key has a certificate of another invitation, or was revoked.
        Err(JoinError::Call(error)) if key.is_kept && is_key_rejected(&error) => {
            key = PendingKey::create(&path, users.reader())?;
            claim(&registry, invitation, &key.key).await?
        }
        outcome => outcome?,
    };
    fault!("claim");
    let verified = verify_answer(&claimed, Some(&invitation.pin), &key.key)?;
    // Nothing of a former identity is changed before the new one is there.
    let _stopped = match replace {
        Some(stop) => Some(stop()?),
        None => None,
    };
    if replace.is_some() {
        leave::remove_identity(paths)?;
    }
    users.write(paths, &url, &claimed, &key, verified)
}

/// Sends the token of the invitation and a certificate request for the key.
async fn claim(
    registry: &RegistryApiClient,
    invitation: &Invitation,
    key: &KeyPair,
) -> Result<Claimed, JoinError> {
    let claim = Claim {
        version: VERSION,
        token: token_text(&invitation.token),
        csr: csr(key)?,
    };
    Ok(registry
        .send(reqwest::Method::POST, "/v1/claims", &claim)
        .await?)
}

/// Returns whether the registry issues no certificate for the key, whatever the invitation is.
fn is_key_rejected(error: &RegistryApiError) -> bool {
    matches!(error, RegistryApiError::Rejected { status: 409, title, .. } if title == "key rejected")
}

/// Creates and stores a key on a machine that cannot reach the registry, and returns the certificate
/// request that is to be signed there. A second call returns a request for the same key.
///
/// # Errors
/// The machine has an identity already, or the key cannot be created or written.
pub fn request(paths: &Paths, children: Option<(u32, u32)>) -> Result<String, JoinError> {
    let path = pending_request_key(paths);
    let users = Users::prepare(paths, children)?;
    check_not_joined(paths, &path)?;
    csr(&PendingKey::read_or_create(&path, users.reader())?.key)
}

/// Reads the registry's answer to a [`request`], and writes the files that `warren run` needs.
///
/// The CA is not checked against an invitation, so whoever provides the file decides which network this machine
/// joins.
///
/// # Errors
/// See [`JoinError`]. No file is written then.
pub fn install(
    paths: &Paths,
    children: Option<(u32, u32)>,
    enrolment: &Enrolment,
) -> Result<Joined, JoinError> {
    let bad = |why: String| JoinError::Answer { why };
    if enrolment.version != VERSION {
        return Err(bad(format!(
            "version {} is not {VERSION}",
            enrolment.version
        )));
    }
    let registry = RegistryAddress::parse(&enrolment.registry, wire::registry::PORT);
    let registry = registry.map_err(|error| bad(error.to_string()))?;
    let path = pending_request_key(paths);
    let users = Users::prepare(paths, children)?;
    check_not_joined(paths, &path)?;
    let missing = || io_error("read", &path)(io::ErrorKind::NotFound.into());
    let key = PendingKey::read(&path)?.ok_or_else(missing)?;
    let verified = verify_answer(&enrolment.claimed, None, &key.key)?;
    users.write(
        paths,
        &format!("https://{registry}"),
        &enrolment.claimed,
        &key,
        verified,
    )
}

/// Returns the path of the key of a pending request.
fn pending_request_key(paths: &Paths) -> PathBuf {
    paths.key().with_added_extension("request")
}

/// Returns the path of the key with which a machine is about to join by an invitation.
fn pending_join_key(paths: &Paths) -> PathBuf {
    paths.key().with_added_extension("join")
}

/// Checks that the machine is no node yet; `pending` is the path of the key with which it is about to become one.
fn check_not_joined(paths: &Paths, pending: &Path) -> Result<(), JoinError> {
    let all = [
        paths.key(),
        paths.certificate(),
        paths.ca(),
        paths.tls_crypt(),
        paths.network(),
        paths.config(),
    ];
    let former = paths.moved_files().map(|(former, _)| former);
    let mut all = all.into_iter().chain(former);
    let Some(path) = all.find(|path| path.symlink_metadata().is_ok()) else {
        return Ok(());
    };
    let key = files::read_text(&paths.key(), MAX_CREDENTIAL_BYTES).ok();
    let pending_key = PendingKey::read(pending).ok().flatten();
    match pending_key.filter(|pending| key.as_deref() == Some(&pending.pem)) {
        // An earlier attempt was interrupted while it put the files in place, the key first, the configuration last.
        Some(_) if paths.config().symlink_metadata().is_err() => Ok(()),
        // The earlier attempt was interrupted after the machine had joined.
        Some(pending) => {
            pending.remove()?;
            Err(JoinError::Exists { path })
        }
        None => Err(JoinError::Exists { path }),
    }
}

/// The users that the children will run as, and the lock on the folder of the node's files.
struct Users {
    openvpn: ChildUser,
    babeld: ChildUser,
    /// Held until the command ends, so that no other one writes the same files.
    _lock: fs::File,
}

impl Users {
    /// Creates the folders of the node's files, and locks the one of its identity.
    fn prepare(paths: &Paths, children: Option<(u32, u32)>) -> Result<Self, JoinError> {
        create_folder(&paths.etc(), 0o755)?;
        let state = paths.state();
        // OpenVPN enters the folder to read the key, but cannot list it.
        create_folder(&state, 0o711)?;
        let lock = fs::File::open(&state).map_err(io_error("open", &state))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => JoinError::Busy {
                path: state.clone(),
            },
            fs::TryLockError::Error(error) => io_error("lock", &state)(error),
        })?;
        let (openvpn, babeld) = match children {
            Some((openvpn, babeld)) => (ChildUser::Id(openvpn), ChildUser::Id(babeld)),
            None => (
                user_or_uid(OPENVPN_USER, OPENVPN_UID),
                user_or_uid(BABELD_USER, BABELD_UID),
            ),
        };
        Ok(Self {
            openvpn,
            babeld,
            _lock: lock,
        })
    }

    /// Returns the uid and gid that may read the key.
    fn reader(&self) -> (u32, u32) {
        ids_of(&self.openvpn)
    }

    /// Writes all files. They get their names only once all are written: the key first, so that a later attempt
    /// recognises the files as its own, and the configuration last, since it makes the machine a node.
    fn write(
        &self,
        paths: &Paths,
        url: &str,
        claimed: &Claimed,
        key: &PendingKey,
        (document, address): (NetworkDocument, Ipv6Addr),
    ) -> Result<Joined, JoinError> {
        let network = serde_json::to_string_pretty(&claimed.network);
        let network = network.map_err(|error| JoinError::Answer {
            why: error.to_string(),
        })?;
        let config = config::template(url, &self.openvpn, &self.babeld);
        let (public, private, reader) = (0o644, 0o600, Some(self.reader()));
        let files = [
            Draft::write(&paths.key(), &key.pem, private, reader)?,
            Draft::write(&paths.ca(), &claimed.ca, public, None)?,
            Draft::write(&paths.certificate(), &claimed.certificate, public, None)?,
            Draft::write(&paths.tls_crypt(), &document.tls_crypt, private, reader)?,
            Draft::write(&paths.network(), &network, private, None)?,
        ];
        let last = Draft::write(&paths.config(), &config, public, None)?;
        files.into_iter().try_for_each(Draft::rename_into_place)?;
        last.rename_into_place()?;
        key.remove()?;
        Ok(Joined {
            prefix: claimed.prefix,
            address,
        })
    }
}

/// Creates a folder with this mode, and its missing parents; one that exists is left as it is.
fn create_folder(path: &Path, mode: u32) -> Result<(), JoinError> {
    if path.exists() {
        return Ok(());
    }
    files::folder(path, Access::ours(mode)).map_err(io_error("create the folder", path))
}

/// Returns the user of that name or, if it does not exist, the uid.
fn user_or_uid(name: &str, uid: u32) -> ChildUser {
    match nix::unistd::User::from_name(name) {
        Ok(Some(_)) => ChildUser::Name(name.to_owned()),
        Ok(None) | Err(_) => ChildUser::Id(uid),
    }
}

/// Returns the uid and the gid of a child's user.
fn ids_of(user: &ChildUser) -> (u32, u32) {
    match user {
        ChildUser::Id(id) => (*id, *id),
        ChildUser::Name(name) => match nix::unistd::User::from_name(name) {
            Ok(Some(user)) => (user.uid.as_raw(), user.gid.as_raw()),
            Ok(None) | Err(_) => (OPENVPN_UID, OPENVPN_UID),
        },
    }
}
