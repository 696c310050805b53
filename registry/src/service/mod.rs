//! The service of a registry carries out the requests of nodes and of the operator; it knows nothing of HTTP.
//!
//! All requests pass through it one after the other.

mod announcements;
mod ca;
mod certificates;
mod endpoint_directory;
pub mod error;
mod invitations;
pub mod limits;
mod machines;
mod operator;
mod parameters;
mod prefix_lengths;
pub(crate) mod queue;
mod rotations;
mod scrape_targets;

pub use ca::CaSigningRequest;
pub use operator::{CreatedInvitation, InvitationRequest, MAX_TTL_S, MAX_USES, NodeEntry};
pub use rotations::{Rollout, RotationStep, SharedKey};
pub use scrape_targets::ScrapeTarget;

use crate::{
    clock::{UnixSeconds, WallClock},
    init::{Opened, ca_versions, documents::read_stored},
    pki::{
        authority::{Authorities, Authority},
        certificates::BACKDATE_S,
        request::{self, ProvenKey, sha256},
        tls::ReloadableTls,
    },
    service::{
        error::ServiceError,
        limits::{FailedClaimLimit, RequestLimits, SourceNetwork},
    },
    settings::{self, RegistryPaths, Settings},
    store::{CheckedClaim, IssueError, Member, NodeProperties, Storage, StoredAnnouncement},
};
use endpoint_directory::EndpointDirectory;
use policies::names::{Endpoint, Prefix};
use std::net::IpAddr;

use tokio::sync::watch;
use wire::{
    endpoints::dialable,
    invitation::{RegistryAddress, token_from_text},
    registry::{
        Announced, Announcement, Bootstrap, Claim, Claimed, DocumentKind, MAX_NODES,
        NetworkDocument, RejectedEndpoint, Renewal, Renewed, Revocations, SOFTWARE_LIMIT, VERSION,
    },
    signed::SignedDocument,
};

/// Largest number of renewals of one certificate with different keys. A node may lose some answers together
/// with the keys, but not without end.
const MAX_RENEWALS: usize = 5;

/// The identity in a caller's certificate. TLS has proved that the caller owns its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownCertificate {
    /// The serial number, in lower-case hex.
    pub serial: String,
    /// SHA-256 of the SPKI.
    pub key: [u8; 32],
}

/// Versions of the signed documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The version of the network document.
    pub network: u64,
    /// The version of the revocations.
    pub revocations: u64,
}

/// A registry that carries out requests.
pub struct RegistryService {
    settings: Settings,
    paths: RegistryPaths,
    address: RegistryAddress,
    authorities: Authorities,
    tls: ReloadableTls,
    storage: Box<dyn Storage>,
    network: (NetworkDocument, SignedDocument),
    revocations: (u64, SignedDocument),
    versions: watch::Sender<Versions>,
    failed_claims: FailedClaimLimit,
    request_limits: RequestLimits,
    directory: EndpointDirectory,
    clock: WallClock,
}

fn read_network(
    storage: &dyn Storage,
    authority: &Authority,
) -> Result<(NetworkDocument, SignedDocument), ServiceError> {
    let (payload, signed) = read_stored(storage, DocumentKind::Network, &[authority.ca_der()])?;
    Ok((NetworkDocument::read(&payload)?, signed))
}

fn read_revocations(
    storage: &dyn Storage,
    authority: &Authority,
) -> Result<(u64, SignedDocument), ServiceError> {
    let cas = [authority.ca_der()];
    let (payload, signed) = read_stored(storage, DocumentKind::Revocations, &cas)?;
    Ok((Revocations::read(&payload)?.version, signed))
}

impl RegistryService {
    /// Starts to serve an opened registry.
    ///
    /// # Errors
    /// A stored document is missing or cannot be verified.
    pub(crate) fn new(
        opened: Opened,
        tls: ReloadableTls,
        clock: WallClock,
    ) -> Result<Self, ServiceError> {
        let Opened {
            settings,
            paths,
            address,
            authorities,
            mut storage,
        } = opened;
        ca::repair(storage.as_mut(), &authorities, &settings)?;
        let network = read_network(storage.as_ref(), &authorities.authority)?;
        let revocations = read_revocations(storage.as_ref(), &authorities.authority)?;
        let latest = Versions {
            network: network.0.version,
            revocations: revocations.0,
        };
        let directory = EndpointDirectory::new(storage.announcements((clock)())?);
        let mut service = Self {
            settings,
            paths,
            address,
            authorities,
            tls,
            storage,
            network,
            revocations,
            versions: watch::Sender::new(latest),
            failed_claims: FailedClaimLimit::default(),
            request_limits: RequestLimits::default(),
            directory,
            clock,
        };
        service.publish_missing_prefix_lengths()?;
        Ok(service)
    }

    /// Disables the limits of claims and requests, for measurements.
    pub(crate) fn disable_limits(&mut self) {
        self.failed_claims = FailedClaimLimit::off();
        self.request_limits = RequestLimits::off();
    }

    fn now(&self) -> UnixSeconds {
        (self.clock)()
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// The database failed.
    pub(crate) fn begin(&mut self) -> Result<(), ServiceError> {
        Ok(self.storage.begin()?)
    }

    /// Writes the transaction to the disk, and wakes the callers that wait for a newer document.
    ///
    /// # Errors
    /// The database failed; nothing of the transaction was stored, and [`Self::rollback`] must follow.
    pub(crate) fn commit(&mut self) -> Result<(), ServiceError> {
        self.storage.commit()?;
        self.publish_versions();
        Ok(())
    }

    /// Drops the transaction, and reads everything that is kept in memory from the disk again.
    ///
    /// # Errors
    /// The database or a file cannot be read.
    pub(crate) fn rollback(&mut self) -> Result<(), ServiceError> {
        self.storage.rollback()?;
        self.settings = settings::read_settings(&self.paths)?;
        self.authorities = ca_versions::authorities(&self.paths, &self.settings)?;
        self.tls.replace(&self.authorities)?;
        ca::repair(self.storage.as_mut(), &self.authorities, &self.settings)?;
        self.network = read_network(self.storage.as_ref(), &self.authorities.authority)?;
        self.revocations = read_revocations(self.storage.as_ref(), &self.authorities.authority)?;
        self.directory = EndpointDirectory::new(self.storage.announcements(self.now())?);
        self.publish_versions();
        Ok(())
    }

    /// Publishes the versions that are on the disk, if they have changed. A version that a failed transaction would have
    /// stored is never published: callers that wait for it would return at once, and ask again without end.
    fn publish_versions(&self) {
        let latest = Versions {
            network: self.network.0.version,
            revocations: self.revocations.0,
        };
        self.versions.send_if_modified(|published| {
            let is_newer = *published != latest;
            *published = latest;
            is_newer
        });
    }

    /// Returns the signed network document with its version.
    pub fn network(&self) -> (u64, SignedDocument) {
        (self.network.0.version, self.network.1.clone())
    }

    /// Returns the signed list of revocations with its version.
    pub fn revocations(&self) -> (u64, SignedDocument) {
        self.revocations.clone()
    }

    /// Returns a channel that publishes the versions of the documents when they change.
    pub fn versions(&self) -> watch::Receiver<Versions> {
        self.versions.subscribe()
    }
}

/// Checks a certificate request in a document of this version, and returns its key.
///
/// # Errors
/// The version is unknown, or the request is rejected.
pub(crate) fn proven_key(version: u32, csr: &str) -> Result<ProvenKey, ServiceError> {
    check_version(version)?;
    request::read(csr).map_err(ServiceError::Request)
}

pub(crate) fn check_version(version: u32) -> Result<(), ServiceError> {
    if version == VERSION {
        Ok(())
    } else {
        Err(ServiceError::Version { version })
    }
}

/// Runs the checks of a renewal that need no database, and returns its key.
///
/// # Errors
/// See [`proven_key`].
pub(crate) fn renewal_key(renewal: &Renewal) -> Result<ProvenKey, ServiceError> {
    proven_key(renewal.version, &renewal.csr)
}
