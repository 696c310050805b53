//! Makes a machine a node: obtains a certificate with an invitation, or reads one from a file, and writes the files
//! that `warren run` needs.
//!
//! The private key is generated on this machine and never leaves it. No file is overwritten: a machine that has
//! an identity keeps it.

mod draft;

use config::{ChildUser, paths::Paths};
use draft::Draft;
use membership::registry_api::{RegistryApiClient, RegistryApiError};
use policies::names::Prefix;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{
    fs, io,
    io::Write,
    net::Ipv6Addr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown},
    path::{Path, PathBuf},
};
use wire::errors::some_if_found;
use wire::{
    chain,
    invitation::{Invitation, RegistryAddress, token_text},
    registry::{Claim, Claimed, Enrolment, NetworkDocument, VERSION},
    signed,
};
use x509_parser::prelude::{FromDer, X509Certificate};

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

/// The error if a machine cannot become a node.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The machine is a node already.
    #[error("{} exists: this machine has joined already, and nothing was changed", path.display())]
    Exists {
        /// The file that exists already.
        path: PathBuf,
    },
    /// A file or folder cannot be read, created or written.
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
    /// No key can be generated, or a request for it cannot be signed.
    #[error("cannot make a key")]
    Key(#[source] rcgen::Error),
    /// The registry rejects the invitation.
    #[error("the invitation is not good: it was used, has expired, or is none of this registry's")]
    Refused,
    /// The registry did not answer, or rejected the request.
    #[error(transparent)]
    Call(RegistryApiError),
    /// The registry's answer is malformed, or does not match the invitation.
    #[error("the registry's answer is not good: {why}")]
    Answer {
        /// The fault, in words.
        why: String,
    },
}

impl JoinError {
    /// Returns the exit code of the command.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => 4,
            Self::Call(RegistryApiError::TimedOut { .. }) => 5,
            Self::Exists { .. }
            | Self::Io { .. }
            | Self::Key(_)
            | Self::Refused
            | Self::Call(_)
            | Self::Answer { .. } => 1,
        }
    }
}

impl From<RegistryApiError> for JoinError {
    fn from(error: RegistryApiError) -> Self {
        if matches!(error, RegistryApiError::Rejected { status: 403, .. }) {
            Self::Refused
        } else {
            Self::Call(error)
        }
    }
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
/// # Errors
/// See [`JoinError`]. If the registry cannot be reached or rejects the request, no file is left
/// behind.
pub async fn join(joining: &Joining<'_>) -> Result<Joined, JoinError> {
    let Joining {
        invitation,
        paths,
        children,
    } = joining;
    let users = Users::prepare(paths, *children)?;
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(JoinError::Key)?;
    // The key is written to disk before the invitation is used, since an invitation may work only once.
    let draft = Draft::write(
        &paths.key(),
        &key.serialize_pem(),
        0o600,
        Some(users.reader()),
    )?;
    let url = format!("https://{}", invitation.address);
    let claim = Claim {
        version: VERSION,
        token: token_text(&invitation.token),
        csr: csr(&key)?,
    };
    let registry = RegistryApiClient::with_pinned_ca(&url, invitation.pin)?;
    let claimed: Claimed = registry
        .send(reqwest::Method::POST, "/v1/claims", &claim)
        .await?;
    let verified = verify_answer(&claimed, Some(&invitation.pin), &key)?;
    users.write(paths, &url, &claimed, draft, verified)
}

/// Creates and stores a key on a machine that cannot reach the registry, and returns the certificate
/// request that is to be signed there. A second call returns a request for the same key.
///
/// # Errors
/// The machine has an identity already, or the key cannot be created or written.
pub fn request(paths: &Paths, children: Option<(u32, u32)>) -> Result<String, JoinError> {
    let users = Users::prepare(paths, children)?;
    let path = pending_key(paths);
    let stored = some_if_found(fs::read_to_string(&path)).map_err(io_error("read", &path))?;
    if let Some(text) = stored {
        return csr(&KeyPair::from_pem(&text).map_err(JoinError::Key)?);
    }
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(JoinError::Key)?;
    Draft::write(&path, &key.serialize_pem(), 0o600, Some(users.reader()))?.rename_into_place()?;
    csr(&key)
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
    let users = Users::prepare(paths, children)?;
    let path = pending_key(paths);
    let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
    let key = KeyPair::from_pem(&text).map_err(JoinError::Key)?;
    let verified = verify_answer(&enrolment.claimed, None, &key)?;
    let draft = Draft::write(&paths.key(), &text, 0o600, Some(users.reader()))?;
    let joined = users.write(
        paths,
        &format!("https://{registry}"),
        &enrolment.claimed,
        draft,
        verified,
    )?;
    fs::remove_file(&path).map_err(io_error("remove", &path))?;
    Ok(joined)
}

/// Returns the path of the key of a pending request.
fn pending_key(paths: &Paths) -> PathBuf {
    paths.key().with_added_extension("request")
}

/// The users that the children will run as.
struct Users {
    openvpn: ChildUser,
    babeld: ChildUser,
}

impl Users {
    /// Checks that the machine is no node yet, and creates the folder of its files.
    fn prepare(paths: &Paths, children: Option<(u32, u32)>) -> Result<Self, JoinError> {
        let all = [
            paths.key(),
            paths.certificate(),
            paths.ca(),
            paths.tls_crypt(),
            paths.network(),
            paths.config(),
        ];
        if let Some(path) = all.into_iter().find(|path| path.symlink_metadata().is_ok()) {
            return Err(JoinError::Exists { path });
        }
        let etc = paths.etc();
        let folder = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&etc);
        folder.map_err(io_error("create the folder", &etc))?;
        let (openvpn, babeld) = match children {
            Some((openvpn, babeld)) => (ChildUser::Id(openvpn), ChildUser::Id(babeld)),
            None => (
                user_or_uid(OPENVPN_USER, OPENVPN_UID),
                user_or_uid(BABELD_USER, BABELD_UID),
            ),
        };
        Ok(Self { openvpn, babeld })
    }

    /// Returns the uid and gid that may read the key.
    fn reader(&self) -> (u32, u32) {
        ids_of(&self.openvpn)
    }

    /// Writes all files, of which `key` is a draft already. They get their names only once all are written.
    fn write(
        &self,
        paths: &Paths,
        url: &str,
        claimed: &Claimed,
        key: Draft,
        (document, address): (NetworkDocument, Ipv6Addr),
    ) -> Result<Joined, JoinError> {
        let network = serde_json::to_string_pretty(&claimed.network);
        let network = network.map_err(|error| JoinError::Answer {
            why: error.to_string(),
        })?;
        let config = config::template(url, &self.openvpn, &self.babeld);
        let files = [
            Draft::write(&paths.ca(), &claimed.ca, 0o644, None)?,
            Draft::write(&paths.certificate(), &claimed.certificate, 0o644, None)?,
            Draft::write(
                &paths.tls_crypt(),
                &document.tls_crypt,
                0o600,
                Some(self.reader()),
            )?,
            Draft::write(&paths.network(), &network, 0o600, None)?,
            key,
            Draft::write(&paths.config(), &config, 0o644, None)?,
        ];
        files.into_iter().try_for_each(Draft::rename_into_place)?;
        Ok(Joined {
            prefix: claimed.prefix,
            address,
        })
    }
}

/// Builds a certificate request that contains nothing but the key.
pub(crate) fn csr(key: &KeyPair) -> Result<String, JoinError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .serialize_request(key)
        .and_then(|request| request.pem())
        .map_err(JoinError::Key)
}

/// Checks the registry's answer: the CA is that of the invitation, and the certificate is for this machine's key and
/// for the prefix in the answer. Returns the network document and the address of the node.
fn verify_answer(
    claimed: &Claimed,
    pin: Option<&[u8; 32]>,
    key: &KeyPair,
) -> Result<(NetworkDocument, Ipv6Addr), JoinError> {
    let bad = |why: &str| JoinError::Answer {
        why: why.to_owned(),
    };
    let ca_der = CertificateDer::from_pem_slice(claimed.ca.as_bytes()).map_err(|_| bad("no CA"))?;
    let (_, ca) =
        X509Certificate::from_der(&ca_der).map_err(|_| bad("its CA is no certificate"))?;
    if pin.is_some_and(|pin| signed::sha256_hex(ca.public_key().raw) != signed::hex(pin)) {
        return Err(bad("its CA is not the one that the invitation names"));
    }
    // The validity period is not checked here, since the clock of a new machine may be wrong; TLS checks it later.
    let chain = chain::read_pem(claimed.certificate.as_bytes())
        .and_then(|chain| chain::verify(&chain, &[&ca_der], None).map(|_| chain))
        .map_err(|error| bad(&error.to_string()))?;
    let node = chain
        .first()
        .and_then(|der| X509Certificate::from_der(der).ok());
    let (_, node) = node.ok_or_else(|| bad("no certificate"))?;
    if node.public_key().raw != key.subject_public_key_info() {
        return Err(bad("the certificate is for another key"));
    }
    let mut names = node.subject().iter_common_name().map(|name| name.as_str());
    let own = claimed.prefix.to_string();
    if !matches!((names.next(), names.next()), (Some(Ok(name)), None) if name == own) {
        return Err(bad("the certificate is for another prefix"));
    }
    let document = signed::open(&claimed.network, &[&ca_der])
        .map_err(|error| error.to_string())
        .and_then(|opened| {
            NetworkDocument::read(&opened.payload).map_err(|error| error.to_string())
        });
    let document = document.map_err(|why| JoinError::Answer { why })?;
    let network = document
        .range()
        .ok_or_else(|| bad("the network has no range"))?;
    Ok((document, network.node_address(claimed.prefix)))
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
