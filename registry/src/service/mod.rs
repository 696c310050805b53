//! The service of a registry: carries out what nodes and the operator ask for; knows nothing of
//! HTTP.
//!
//! All calls pass through it one after the other.

mod announcements;
mod ca;
mod certificates;
mod endpoint_directory;
pub mod error;
pub mod limits;
mod operator;
mod parameters;
pub(crate) mod queue;
mod rotations;

pub use ca::CaSigningRequest;
pub use operator::{CreatedInvitation, InvitationRequest, MAX_TTL_S, MAX_USES, NodeEntry};
pub use rotations::{Rollout, RotationStep, SharedKey};

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
use policies::names::Endpoint;
use std::net::IpAddr;

use tokio::sync::watch;
use wire::{
    endpoints::dialable,
    invitation::{RegistryAddress, token_from_text},
    registry::{
        Announced, Announcement, Bootstrap, Claim, Claimed, DocumentKind, MAX_NODES,
        NetworkDocument, Refused, Renewal, Renewed, Revocations, SOFTWARE_LIMIT, VERSION,
    },
    signed::SignedDocument,
};

/// Certificates that one certificate may be renewed to with new keys: answers get lost, but not for
/// ever.
const MAX_RENEWALS: usize = 5;

/// The identity in a caller's certificate, whose key it has proved to own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownCertificate {
    /// Serial number, lower-case hex.
    pub serial: String,
    /// SHA-256 of the SPKI.
    pub key: [u8; 32],
}

/// Versions of the signed documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Of the network document.
    pub network: u64,
    /// Of the revocations.
    pub revocations: u64,
}

/// A registry at work.
pub struct RegistryService {
    settings: Settings,
    paths: RegistryPaths,
    address: RegistryAddress,
    authorities: Authorities,
    live: ReloadableTls,
    storage: Box<dyn Storage>,
    network: (NetworkDocument, SignedDocument),
    revocations: (u64, SignedDocument),
    news: watch::Sender<Versions>,
    failures: FailedClaimLimit,
    pace: RequestLimits,
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
        live: ReloadableTls,
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
        let versions = Versions {
            network: network.0.version,
            revocations: revocations.0,
        };
        let directory = EndpointDirectory::new(storage.announcements((clock)())?);
        Ok(Self {
            settings,
            paths,
            address,
            authorities,
            live,
            storage,
            network,
            revocations,
            news: watch::Sender::new(versions),
            failures: FailedClaimLimit::default(),
            pace: RequestLimits::default(),
            directory,
            clock,
        })
    }

    /// Lets everybody guess tokens as often as they like: for measurements.
    pub(crate) fn lift_limits(&mut self) {
        self.failures = FailedClaimLimit::off();
        self.pace = RequestLimits::off();
    }

    fn now(&self) -> UnixSeconds {
        (self.clock)()
    }

    /// Begins to gather what is to be written.
    ///
    /// # Errors
    /// The database refused.
    pub(crate) fn begin(&mut self) -> Result<(), ServiceError> {
        Ok(self.storage.begin()?)
    }

    /// Writes what was gathered down to the disk.
    ///
    /// # Errors
    /// Then nothing of it was kept, and what is remembered beside the disk is that of before.
    pub(crate) fn commit(&mut self) -> Result<(), ServiceError> {
        Ok(self.storage.commit()?)
    }

    /// Goes back to what is on the disk.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn rollback(&mut self) -> Result<(), ServiceError> {
        self.storage.rollback()?;
        self.settings = settings::read_settings(&self.paths)?;
        self.authorities = ca_versions::authorities(&self.paths, &self.settings)?;
        self.live.replace(&self.authorities)?;
        ca::repair(self.storage.as_mut(), &self.authorities, &self.settings)?;
        self.network = read_network(self.storage.as_ref(), &self.authorities.authority)?;
        self.revocations = read_revocations(self.storage.as_ref(), &self.authorities.authority)?;
        self.directory = EndpointDirectory::new(self.storage.announcements(self.now())?);
        Ok(())
    }

    /// The network's signed document, with its version.
    pub fn network(&self) -> (u64, SignedDocument) {
        (self.network.0.version, self.network.1.clone())
    }

    /// The signed list of revocations, with its version.
    pub fn revocations(&self) -> (u64, SignedDocument) {
        self.revocations.clone()
    }

    /// Returns a channel that shows the versions of the documents when they change.
    pub fn news(&self) -> watch::Receiver<Versions> {
        self.news.subscribe()
    }
}

/// The key of a request in a document of our version.
///
/// # Errors
/// Another version, or the first check of the request that failed.
pub(crate) fn proven(version: u32, csr: &str) -> Result<ProvenKey, ServiceError> {
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

/// The checks of a renewal that need no database.
///
/// # Errors
/// See [`proven`].
pub(crate) fn renewal_key(renewal: &Renewal) -> Result<ProvenKey, ServiceError> {
    proven(renewal.version, &renewal.csr)
}
