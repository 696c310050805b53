//! The two signed documents that a node holds: verified, and never older than before.
//!
//! Knows nothing of where documents come from and where they go.

use arc_swap::ArcSwap;
use policies::names::Prefix;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::Deserialize;
use std::{collections::BTreeSet, fmt, sync::Arc};
use wire::{
    chain::{self, IntermediateCa, Issuer},
    registry::{DocumentError, DocumentKind, NetworkDocument, Revocations, Revoked},
    serial,
    signed::{self, Opened, SignedDocument, SignedError},
};

/// The documents that the node currently holds; readers load a snapshot without asking an actor.
pub type DocumentStore = Arc<ArcSwap<CurrentDocuments>>;

/// Whether private endpoints are announced, believed and dialled: if this node's configuration or
/// the network allows it.
#[derive(Clone, Debug, Default)]
pub struct PrivateEndpoints {
    own: bool,
    documents: DocumentStore,
}

impl PrivateEndpoints {
    /// Combines the setting `own` of this node's configuration with the network's.
    pub fn new(own: bool, documents: DocumentStore) -> Self {
        Self { own, documents }
    }

    /// Returns whether they are allowed now.
    pub fn allowed(&self) -> bool {
        self.own
            || self
                .documents
                .load()
                .network()
                .is_some_and(|network| network.private_endpoints)
    }
}

/// The reason why a document is rejected.
#[derive(Debug, thiserror::Error)]
pub enum DocumentRejected {
    /// Its signature or signer.
    #[error("not signed as it should be")]
    Signature(#[from] SignedError),
    /// The payload is signed, but not understood.
    #[error("signed, but not to be understood")]
    Payload(#[from] DocumentError),
    /// The network's range is for ever.
    #[error("the network document is of another network")]
    OtherNetwork,
    /// The root outlives the CAs below it.
    #[error("the CA that signed it is good no more")]
    RevokedCa,
    /// Only the root decides which CAs are trusted, not a CA below it.
    #[error("it names other CAs than are trusted, and was signed below a root")]
    OtherTrust,
}

/// The outcome of offering a document.
#[derive(Debug)]
pub enum UpdateOutcome {
    /// The document is newer than the current one, and is current from now on.
    New(DocumentKind, Box<CurrentDocuments>),
    /// The document equals the current one.
    Same,
    /// We hold a newer one.
    Older(DocumentKind),
}

/// The documents that the node currently holds. A clone is cheap. The debug output omits the
/// network's keys.
#[derive(Clone, Default)]
pub struct CurrentDocuments {
    cas: Arc<Vec<CertificateDer<'static>>>,
    network: Option<One<NetworkDocument>>,
    revocations: Option<One<List>>,
}

/// A document that was verified.
#[derive(Clone)]
struct One<T> {
    signed: Arc<SignedDocument>,
    read: Arc<T>,
    /// The CA between, where a root stands behind it.
    by: Option<IntermediateCa>,
}

impl fmt::Debug for CurrentDocuments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (network, revocations) = (
            self.version(DocumentKind::Network),
            self.version(DocumentKind::Revocations),
        );
        write!(
            f,
            "CurrentDocuments {{ network: {network}, revocations: {revocations}, .. }}"
        )
    }
}

/// The revocations, ready to be asked.
#[derive(Clone)]
struct List {
    version: u64,
    all: BTreeSet<Revoked>,
    serials: BTreeSet<String>,
    authorities: BTreeSet<String>,
    keys: BTreeSet<String>,
}

/// The first fields of each payload.
#[derive(Deserialize)]
struct Head {
    kind: DocumentKind,
    version: u64,
}

impl CurrentDocuments {
    /// Nothing, by a node that trusts these CAs.
    pub fn new(cas: Vec<CertificateDer<'static>>) -> Self {
        Self {
            cas: Arc::new(cas),
            ..Self::default()
        }
    }

    /// Verifies a document and compares it with the current one.
    ///
    /// Below a root, a document of a later CA is newer than any of an earlier one, whatever their
    /// versions. So a stolen CA key cannot outrun its successor by a large version number.
    ///
    /// # Errors
    /// No trusted CA vouches for the document, or its content is impossible.
    pub fn take(&self, document: &SignedDocument) -> Result<UpdateOutcome, DocumentRejected> {
        if self.is_current(document) {
            return Ok(UpdateOutcome::Same);
        }
        let Opened { payload, by } = signed::open(document, &self.cas)?;
        if by
            .intermediate
            .as_ref()
            .is_some_and(|ca| self.is_ca_revoked(&ca.serial))
        {
            return Err(DocumentRejected::RevokedCa);
        }
        let head: Head =
            serde_json::from_slice(&payload).map_err(|error| DocumentError::Shape {
                what: "signed",
                why: error.to_string(),
            })?;
        let (offered, current) = (
            (by.intermediate.as_ref(), head.version),
            (self.by(head.kind), self.version(head.kind)),
        );
        if offered <= current {
            // Two documents of one version are a registry's fault; the first is kept.
            return Ok(if offered < current {
                UpdateOutcome::Older(head.kind)
            } else {
                UpdateOutcome::Same
            });
        }
        let (mut next, document) = (self.clone(), Arc::new(document.clone()));
        match head.kind {
            DocumentKind::Network => {
                let read = NetworkDocument::read(&payload)?;
                if self
                    .network()
                    .is_some_and(|known| known.network != read.network)
                {
                    return Err(DocumentRejected::OtherNetwork);
                }
                if !read.authorities.is_empty() {
                    next.cas = Arc::new(self.may_trust(cas_of(&read)?, &by)?);
                }
                next.network = Some(One {
                    signed: document,
                    read: Arc::new(read),
                    by: by.intermediate,
                });
            }
            DocumentKind::Revocations => {
                let list = Arc::new(List::new(Revocations::read(&payload)?));
                next.revocations = Some(One {
                    signed: document,
                    read: list,
                    by: by.intermediate,
                });
            }
        }
        Ok(UpdateOutcome::New(head.kind, Box::new(next)))
    }

    /// Whether the document is one of the current ones, byte for byte.
    fn is_current(&self, document: &SignedDocument) -> bool {
        [DocumentKind::Network, DocumentKind::Revocations]
            .into_iter()
            .filter_map(|kind| self.signed(kind))
            .any(|current| **current == *document)
    }

    /// The CAs that a document names, if it may: one that a CA below a root signed can neither bring in
    /// another nor give up that root.
    fn may_trust(
        &self,
        cas: Vec<CertificateDer<'static>>,
        by: &Issuer,
    ) -> Result<Vec<CertificateDer<'static>>, DocumentRejected> {
        let root = by.intermediate.as_ref().and_then(|_| self.cas.get(by.trusted));
        let good = root
            .is_none_or(|root| cas.contains(root) && cas.iter().all(|ca| self.cas.contains(ca)));
        if good {
            Ok(cas)
        } else {
            Err(DocumentRejected::OtherTrust)
        }
    }

    /// The CA between that stands behind a document.
    fn by(&self, kind: DocumentKind) -> Option<&IntermediateCa> {
        match kind {
            DocumentKind::Network => self.network.as_ref().and_then(|one| one.by.as_ref()),
            DocumentKind::Revocations => self.revocations.as_ref().and_then(|one| one.by.as_ref()),
        }
    }

    /// Returns whether the CA that a chain contains is revoked.
    pub fn is_ca_of_chain_revoked<C: AsRef<[u8]>>(&self, chain: &[C]) -> bool {
        let numbers = chain.iter().skip(1).map(|ca| chain::number_of(ca.as_ref()));
        numbers
            .into_iter()
            .any(|ca| ca.is_ok_and(|ca| self.is_ca_revoked(&ca.serial)))
    }

    /// Returns whether a certificate with this chain should be renewed because of its CA: the CA
    /// is revoked, or a later one signs.
    pub fn is_superseded<C: AsRef<[u8]>>(&self, chain: &[C]) -> bool {
        let by = chain::verify(chain, &self.cas, None)
            .ok()
            .and_then(|by| by.intermediate);
        let later = |ca: IntermediateCa| {
            [DocumentKind::Network, DocumentKind::Revocations]
                .into_iter()
                .any(|kind| self.by(kind).is_some_and(|by| *by > ca))
        };
        self.is_ca_of_chain_revoked(chain) || by.is_some_and(later)
    }

    /// The CAs that are trusted.
    pub fn cas(&self) -> &[CertificateDer<'static>] {
        &self.cas
    }

    /// The document as it was signed.
    pub fn signed(&self, kind: DocumentKind) -> Option<&Arc<SignedDocument>> {
        match kind {
            DocumentKind::Network => self.network.as_ref().map(|one| &one.signed),
            DocumentKind::Revocations => self.revocations.as_ref().map(|one| &one.signed),
        }
    }

    /// The network as it shall be.
    pub fn network(&self) -> Option<&Arc<NetworkDocument>> {
        self.network.as_ref().map(|one| &one.read)
    }

    /// Version of a document; 0 if there is none.
    pub fn version(&self, kind: DocumentKind) -> u64 {
        match kind {
            DocumentKind::Network => self.network().map_or(0, |document| document.version),
            DocumentKind::Revocations => self.list().map_or(0, |list| list.version),
        }
    }

    fn list(&self) -> Option<&List> {
        self.revocations.as_ref().map(|one| &*one.read)
    }

    /// Returns the number of revoked certificates.
    pub fn revoked_count(&self) -> usize {
        self.list().map_or(0, |list| list.all.len())
    }

    /// All revoked serial numbers, those of CAs too, as [`serial::normal`] spells them.
    pub fn serials(&self) -> impl Iterator<Item = &str> {
        self.list()
            .into_iter()
            .flat_map(|list| list.serials.union(&list.authorities).map(String::as_str))
    }

    /// Returns the number of revoked CAs.
    pub fn revoked_ca_count(&self) -> usize {
        self.list().map_or(0, |list| list.authorities.len())
    }

    /// Whether the certificate with this serial number, a node's or a CA's, is revoked; what is no number is.
    pub fn is_ca_revoked(&self, serial_hex: &str) -> bool {
        let listed = |list: &List, serial: &String| {
            list.serials.contains(serial) || list.authorities.contains(serial)
        };
        serial::normal(serial_hex)
            .is_none_or(|serial| self.list().is_some_and(|list| listed(list, &serial)))
    }

    /// Returns whether a key, given by the SHA-256 of its SPKI, is blocked in any certificate.
    pub fn is_key_blocked(&self, sha256_hex: &str) -> bool {
        self.list()
            .is_some_and(|list| list.keys.contains(sha256_hex))
    }

    /// The nodes of which a certificate was revoked between `before` and now.
    pub fn revoked_since(&self, before: &Self) -> BTreeSet<Prefix> {
        let Some(now) = self.list() else {
            return BTreeSet::new();
        };
        let known =
            |revoked: &&Revoked| before.list().is_some_and(|list| list.all.contains(revoked));
        now.all
            .iter()
            .filter(|revoked| !known(revoked))
            .map(|revoked| revoked.prefix)
            .collect()
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
        .map_err(|error| DocumentError::Shape {
            what: "network",
            why: error.to_string(),
        })
}

impl List {
    fn new(document: Revocations) -> Self {
        let revoked = &document.revoked;
        Self {
            version: document.version,
            serials: revoked
                .iter()
                .filter_map(|one| serial::normal(&one.serial))
                .collect(),
            authorities: document
                .authorities
                .iter()
                .filter_map(|one| serial::normal(one))
                .collect(),
            keys: revoked.iter().map(|one| one.key.clone()).collect(),
            all: document.revoked.into_iter().collect(),
        }
    }
}
