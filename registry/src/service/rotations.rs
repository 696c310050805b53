//! Changes what all nodes share: the network document, the keys of babel and of OpenVPN.
//!
//! A change that could cut nodes off has three steps, and none is taken before all nodes have
//! applied the one before: first everybody accepts the new beside the old, then it is used, then
//! the old is accepted no more.

use super::{RegistryService, Versions};
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

/// A step of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RotationStep {
    /// Let everybody accept the new beside the old.
    Stage,
    /// Use the new.
    Activate,
    /// Accept the old no more.
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
    /// The key under which the service stores the last step.
    fn state(self) -> &'static str {
        match self {
            Self::Babel => "babel-step",
            Self::TlsCrypt => "tls-crypt-step",
        }
    }
}

/// The state of a rollout: how many nodes hold which versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The version of the document: 1.
    pub version: u32,
    /// Version of the network document here.
    pub network_version: u64,
    /// Version of the revocations here.
    pub revocations_version: u64,
    /// Nodes with a live certificate.
    pub nodes: usize,
    /// Of these, whose last announcement counts still.
    pub announced: usize,
    /// Of these, who hold this network document.
    pub network_received: usize,
    /// Of these, all of whose processes run with it.
    pub network_applied: usize,
    /// Of these, who hold these revocations.
    pub revocations_received: usize,
    /// Of these, the number that others cannot dial.
    pub unreachable: usize,
}

impl RegistryService {
    /// Publishes the next version of the network document.
    ///
    /// # Errors
    /// A value of it is out of range, or it could not be kept.
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
        self.tell();
        tracing::info!(version, "network document published");
        Ok(version)
    }

    /// Publishes the next version of the revocations.
    ///
    /// # Errors
    /// It could not be kept.
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
        self.tell();
        Ok(version)
    }

    fn tell(&self) {
        let (network, revocations) = (self.network.0.version, self.revocations.0);
        self.news.send_replace(Versions {
            network,
            revocations,
        });
    }

    /// The nodes with a live certificate, each with the versions of the CAs that signed them.
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

    /// How far the documents have come, as the nodes announce it.
    ///
    /// # Errors
    /// The database refused.
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
                if let Some(report) = self.directory.report(*prefix, now) {
                    rollout.announced += 1;
                    rollout.network_received +=
                        usize::from(report.network_version >= network_version);
                    rollout.network_applied +=
                        usize::from(report.network_applied >= network_version);
                    rollout.revocations_received +=
                        usize::from(report.revocations_version >= revocations_version);
                }
                rollout
            }))
    }

    /// Refuses unless all nodes with a live certificate run with the present network document.
    pub(super) fn require_applied(&self) -> Result<(), ServiceError> {
        let (now, version) = (self.now(), self.network.0.version);
        let nodes = self.live_nodes()?;
        let applied = |report: &StoredAnnouncement| report.network_applied >= version;
        let missing = nodes
            .keys()
            .filter(|prefix| !self.directory.report(**prefix, now).is_some_and(applied));
        refuse(missing.map(Prefix::to_string).collect(), nodes.len())
    }

    /// Changes a key that all nodes share, one step; the version of the network document.
    ///
    /// # Errors
    /// The step is out of order, or nodes are not ready and it is not forced.
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
                return out_of_order("a change of this key is under way already");
            }
            (RotationStep::Activate, Some("staged")) => Some("active"),
            (RotationStep::Activate, _) => {
                return out_of_order("there is no new key: stage one first");
            }
            (RotationStep::Retire, Some("active")) => None,
            (RotationStep::Retire, _) => {
                return out_of_order("no key can be retired: activate a new one first");
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

pub(super) fn refuse(missing: Vec<String>, live: usize) -> Result<(), ServiceError> {
    if missing.is_empty() {
        Ok(())
    } else {
        Err(ServiceError::NodesNotReady { missing, live })
    }
}
