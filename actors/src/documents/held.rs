//! The two signed documents that a node holds: verified, and never older than before.
//!
//! Knows nothing of where documents come from and where they go.

use arc_swap::ArcSwap;
use policies::names::Prefix;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::Deserialize;
use std::{collections::BTreeSet, fmt, sync::Arc};
use wire::{
    registry::{DocumentError, Kind, NetworkDocument, Revocations, Revoked},
    serial,
    signed::{self, SignedDocument, SignedError},
};

/// What the node holds now; whoever must know reads it without asking anybody.
pub type SharedHeld = Arc<ArcSwap<Held>>;

/// Whether private endpoints are announced, believed and dialled: where this node's configuration says so,
/// or the network does.
#[derive(Clone, Debug, Default)]
pub struct PrivateEndpoints {
    own: bool,
    held: SharedHeld,
}

impl PrivateEndpoints {
    /// `own`: what the configuration says.
    pub fn new(own: bool, held: SharedHeld) -> Self {
        Self { own, held }
    }

    /// Whether they are, now.
    pub fn allowed(&self) -> bool {
        self.own || self.held.load().network().is_some_and(|network| network.private_endpoints)
    }
}

/// Why a document is not taken.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Its signature or signer.
    #[error("not signed as it should be")]
    Signature(#[from] SignedError),
    /// What it says.
    #[error("signed, but not to be understood")]
    Payload(#[from] DocumentError),
    /// The network's range is for ever.
    #[error("the network document is of another network")]
    OtherNetwork,
}

/// What became of a document.
#[derive(Debug)]
pub enum Taken {
    /// It is newer: what is held from now on.
    New(Kind, Box<Held>),
    /// It is the one that is held.
    Same,
    /// We hold a newer one.
    Older(Kind),
}

/// What is held. A clone is cheap. Prints without the network's keys.
#[derive(Clone, Default)]
pub struct Held {
    cas: Arc<Vec<CertificateDer<'static>>>,
    network: Option<(Arc<SignedDocument>, Arc<NetworkDocument>)>,
    revocations: Option<(Arc<SignedDocument>, Arc<List>)>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (network, revocations) = (self.version(Kind::Network), self.version(Kind::Revocations));
        write!(f, "Held {{ network: {network}, revocations: {revocations}, .. }}")
    }
}

/// The revocations, ready to be asked.
struct List {
    version: u64,
    all: BTreeSet<Revoked>,
    serials: BTreeSet<String>,
    keys: BTreeSet<String>,
}

/// What each payload begins with.
#[derive(Deserialize)]
struct Head {
    kind: Kind,
    version: u64,
}

impl Held {
    /// Nothing, by a node that trusts these CAs.
    pub fn new(cas: Vec<CertificateDer<'static>>) -> Self {
        Self { cas: Arc::new(cas), ..Self::default() }
    }

    /// Verifies a document and compares it with what is held.
    ///
    /// # Errors
    /// No CA that we trust vouches for it, or it says what cannot be.
    pub fn take(&self, document: &SignedDocument) -> Result<Taken, HoldError> {
        let same = [self.signed(Kind::Network), self.signed(Kind::Revocations)];
        if same.into_iter().flatten().any(|held| **held == *document) {
            return Ok(Taken::Same);
        }
        let payload = signed::open(document, &self.cas)?.payload;
        let head: Head = serde_json::from_slice(&payload)
            .map_err(|error| DocumentError::Shape { what: "signed", why: error.to_string() })?;
        let held = self.version(head.kind);
        if head.version <= held {
            // Two documents of one version are a registry's fault; the first is kept.
            return Ok(if head.version < held { Taken::Older(head.kind) } else { Taken::Same });
        }
        let (mut next, document) = (self.clone(), Arc::new(document.clone()));
        match head.kind {
            Kind::Network => {
                let read = NetworkDocument::read(&payload)?;
                if self.network().is_some_and(|known| known.network != read.network) {
                    return Err(HoldError::OtherNetwork);
                }
                if !read.authorities.is_empty() {
                    next.cas = Arc::new(cas_of(&read)?);
                }
                next.network = Some((document, Arc::new(read)));
            }
            Kind::Revocations => {
                next.revocations = Some((document, Arc::new(List::new(Revocations::read(&payload)?))));
            }
        }
        Ok(Taken::New(head.kind, Box::new(next)))
    }

    /// The CAs that are trusted.
    pub fn cas(&self) -> &[CertificateDer<'static>] {
        &self.cas
    }

    /// The document as it was signed.
    pub fn signed(&self, kind: Kind) -> Option<&Arc<SignedDocument>> {
        match kind {
            Kind::Network => self.network.as_ref().map(|(signed, _)| signed),
            Kind::Revocations => self.revocations.as_ref().map(|(signed, _)| signed),
        }
    }

    /// The network as it shall be.
    pub fn network(&self) -> Option<&Arc<NetworkDocument>> {
        self.network.as_ref().map(|(_, document)| document)
    }

    /// Version of a document; 0: none is held.
    pub fn version(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Network => self.network().map_or(0, |document| document.version),
            Kind::Revocations => self.list().map_or(0, |list| list.version),
        }
    }

    fn list(&self) -> Option<&List> {
        self.revocations.as_ref().map(|(_, list)| &**list)
    }

    /// How many certificates are revoked.
    pub fn revoked_count(&self) -> usize {
        self.list().map_or(0, |list| list.all.len())
    }

    /// All revoked serial numbers, as [`serial::normal`] spells them.
    pub fn serials(&self) -> impl Iterator<Item = &str> {
        self.list().into_iter().flat_map(|list| list.serials.iter().map(String::as_str))
    }

    /// Whether the certificate with this serial number is revoked; what is no number is.
    pub fn bars(&self, serial_hex: &str) -> bool {
        serial::normal(serial_hex)
            .is_none_or(|serial| self.list().is_some_and(|list| list.serials.contains(&serial)))
    }

    /// Whether the key, by the SHA-256 of its SPKI, is barred whatever certificate holds it.
    pub fn bars_key(&self, sha256_hex: &str) -> bool {
        self.list().is_some_and(|list| list.keys.contains(sha256_hex))
    }

    /// The nodes of which a certificate was revoked between `before` and now.
    pub fn revoked_since(&self, before: &Self) -> BTreeSet<Prefix> {
        let Some(now) = self.list() else { return BTreeSet::new() };
        let known = |revoked: &&Revoked| before.list().is_some_and(|list| list.all.contains(revoked));
        now.all.iter().filter(|revoked| !known(revoked)).map(|revoked| revoked.prefix).collect()
    }
}

/// The CAs that a document names.
fn cas_of(network: &NetworkDocument) -> Result<Vec<CertificateDer<'static>>, DocumentError> {
    let read = |pem: &String| CertificateDer::from_pem_slice(pem.as_bytes());
    network
        .authorities
        .iter()
        .map(read)
        .collect::<Result<_, _>>()
        .map_err(|error| DocumentError::Shape { what: "network", why: error.to_string() })
}

impl List {
    fn new(document: Revocations) -> Self {
        let revoked = &document.revoked;
        Self {
            version: document.version,
            serials: revoked.iter().filter_map(|one| serial::normal(&one.serial)).collect(),
            keys: revoked.iter().map(|one| one.key.clone()).collect(),
            all: document.revoked.into_iter().collect(),
        }
    }
}
