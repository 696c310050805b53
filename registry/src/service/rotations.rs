//! Publishes the documents, and replaces the keys that all nodes share: those of Babel and of OpenVPN.
//!
//! A key is replaced in three steps, so that no node loses its tunnels: nodes accept the new key beside the old
//! one, then they use it, then they no longer accept the old one. Each step requires that all nodes have applied
//! the step before.

use super::RegistryService;
use crate::{
    init::documents::sign_and_store, pki::random, service::error::ServiceError,
    store::StoredAnnouncement,
};
use policies::names::Prefix;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use wire::{
    registry::{DocumentKind, NetworkDocument, Revocations, VERSION, static_key_text},
    signed::hex,
};

/// A step to replace the CA or a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RotationStep {
    /// Nodes accept the new one beside the old one.
    Stage,
    /// Nodes use the new one.
    Activate,
    /// Nodes no longer accept the old one.
    Retire,
}

/// A key that all nodes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SharedKey {
    /// Babel's MAC key.
    Babel,
    /// OpenVPN's `tls-crypt` key.
    TlsCrypt,
}

impl SharedKey {
    /// Returns the key of the stored value that holds the last step.
    fn state(self) -> &'static str {
        match self {
            Self::Babel => "babel-step",
            Self::TlsCrypt => "tls-crypt-step",
        }
    }
}

/// The state of a rollout: how many nodes have which versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The version of the document: 1.
    pub version: u32,
    /// The latest version of the network document.
    pub network_version: u64,
    /// The latest version of the revocations.
    pub revocations_version: u64,
    /// Number of nodes with a live certificate.
    pub nodes: usize,
    /// Number of those nodes whose announcement is valid.
    pub announced: usize,
    /// Number of announced nodes that have received the latest network document.
    pub network_received: usize,
    /// Number of announced nodes whose processes all run with the latest network document.
    pub network_applied: usize,
    /// Number of announced nodes that have received the latest revocations.
    pub revocations_received: usize,
    /// Number of nodes that at least two others reported as unreachable.
    pub unreachable: usize,
}

impl RegistryService {
    /// Changes the network document, and stores it as its next version; waiting nodes get it after the commit.
    ///
    /// # Errors
    /// A value of the document is out of range, or it could not be stored.
    pub(super) fn publish(
        &mut self,
        change: impl FnOnce(&mut NetworkDocument),
    ) -> Result<u64, ServiceError> {
        let mut next = self.network.0.clone();
        change(&mut next);
        next.version += 1;
        next.check()?;
        let version = next.version;
        let authority = &self.authorities.authority;
        let signed = sign_and_store(
            self.storage.as_mut(),
            authority,
            DocumentKind::Network,
            version,
            &next,
        )?;
        self.network = (next, signed);
        tracing::info!(version, "network document published");
        Ok(version)
    }

    /// Stores the next version of the revocations; waiting nodes get it after the commit.
    ///
    /// # Errors
    /// The list could not be signed or stored.
    pub(super) fn publish_revocations(&mut self) -> Result<u64, ServiceError> {
        let (version, now) = (self.revocations.0 + 1, self.now());
        let (revoked, authorities) = (
            self.storage.revoked(now)?,
            self.settings.revoked_ca_serials(),
        );
        let list = Revocations {
            kind: DocumentKind::Revocations,
            version,
            revoked,
            authorities,
        };
        let authority = &self.authorities.authority;
        let signed = sign_and_store(
            self.storage.as_mut(),
            authority,
            DocumentKind::Revocations,
            version,
            &list,
        )?;
        self.revocations = (version, signed);
        Ok(version)
    }

    /// Returns the nodes with a live certificate, each with the versions of the CAs that signed its certificates.
    pub(super) fn live_nodes(&self) -> Result<BTreeMap<Prefix, Vec<u32>>, ServiceError> {
        let mut nodes: BTreeMap<Prefix, Vec<u32>> = BTreeMap::new();
        for (member, _) in self.storage.members(self.now())? {
            if member.revoked_at.is_none() {
                nodes
                    .entry(member.prefix)
                    .or_default()
                    .push(member.authority);
            }
        }
        Ok(nodes)
    }

    /// Returns how many nodes have which versions, according to their announcements.
    ///
    /// # Errors
    /// The database failed.
    pub fn rollout(&self) -> Result<Rollout, ServiceError> {
        let now = self.now();
        let (network_version, revocations_version) = (self.network.0.version, self.revocations.0);
        let unreachable = self.directory.unreachable_nodes(now).len();
        let start = Rollout {
            version: VERSION,
            network_version,
            revocations_version,
            unreachable,
            ..Rollout::default()
        };
        Ok(self
            .live_nodes()?
            .keys()
            .fold(start, |mut rollout, prefix| {
                rollout.nodes += 1;
                if let Some(announcement) = self.directory.announcement(*prefix, now) {
                    rollout.announced += 1;
                    rollout.network_received +=
                        usize::from(announcement.network_version >= network_version);
                    rollout.network_applied +=
                        usize::from(announcement.network_applied >= network_version);
                    rollout.revocations_received +=
                        usize::from(announcement.revocations_version >= revocations_version);
                }
                rollout
            }))
    }

    /// Fails unless all nodes with a live certificate run with the latest network document.
    pub(super) fn require_applied(&self) -> Result<(), ServiceError> {
        let (now, version) = (self.now(), self.network.0.version);
        let nodes = self.live_nodes()?;
        let applied = |announcement: &StoredAnnouncement| announcement.network_applied >= version;
        let missing = nodes.keys().filter(|prefix| {
            !self
                .directory
                .announcement(**prefix, now)
                .is_some_and(applied)
        });
        require_none_missing(missing.map(Prefix::to_string).collect(), nodes.len())
    }

    /// Takes one step to replace a key that all nodes share; returns the version of the network document.
    ///
    /// # Errors
    /// The step is out of order, or some node is not ready and `force` is not set.
    pub fn rotate_key(
        &mut self,
        key: SharedKey,
        step: RotationStep,
        force: bool,
        operator: &str,
    ) -> Result<u64, ServiceError> {
        let last = self.storage.state(key.state())?;
        let out_of_order = |why: &str| {
            Err(ServiceError::Step {
                why: why.to_owned(),
            })
        };
        let next = match (step, last.as_deref()) {
            (RotationStep::Stage, None) => Some("staged"),
            (RotationStep::Stage, Some(_)) => {
                return out_of_order(
                    "this key is being replaced already: activate or retire first",
                );
            }
            (RotationStep::Activate, Some("staged")) => Some("active"),
            (RotationStep::Activate, _) => {
                return out_of_order("there is no new key: stage one first");
            }
            (RotationStep::Retire, Some("active")) => None,
            (RotationStep::Retire, _) => {
                return out_of_order("no key can be retired: activate the new one first");
            }
        };
        if step != RotationStep::Stage && !force {
            self.require_applied()?;
        }
        let (mac, crypt) = (hex(&random::<32>()?), static_key_text(&random::<256>()?));
        let version = self.publish(|document| match (key, step) {
            (SharedKey::Babel, RotationStep::Stage) => document.babel_lenient = true,
            (SharedKey::Babel, RotationStep::Activate) => document.babel_key = mac,
            (SharedKey::Babel, RotationStep::Retire) => document.babel_lenient = false,
            (SharedKey::TlsCrypt, RotationStep::Stage) => document.tls_crypt_other = Some(crypt),
            (SharedKey::TlsCrypt, RotationStep::Activate) => {
                if let Some(other) = &mut document.tls_crypt_other {
                    std::mem::swap(&mut document.tls_crypt, other);
                }
            }
            (SharedKey::TlsCrypt, RotationStep::Retire) => document.tls_crypt_other = None,
        })?;
        self.storage.set_state(key.state(), next)?;
        self.audit(
            operator,
            format!("rotate-key: {key:?}, {step:?}: network document {version}"),
        )?;
        Ok(version)
    }
}

/// Fails with the names of the nodes that are not ready, if there are any.
pub(super) fn require_none_missing(
    missing: Vec<String>,
    live_nodes: usize,
) -> Result<(), ServiceError> {
    if missing.is_empty() {
        Ok(())
    } else {
        Err(ServiceError::NodesNotReady {
            missing,
            live_nodes,
        })
    }
}
