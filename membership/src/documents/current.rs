//! The node's current signed documents. Each is verified, and is never replaced by an older one.
//!
//! The callers fetch, store and distribute the documents.

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

/// The node's current documents; readers load a snapshot without a message to an actor.
pub type DocumentStore = Arc<ArcSwap<CurrentDocuments>>;

/// The reason why a document is rejected.
#[derive(Debug, thiserror::Error)]
pub enum DocumentRejected {
    /// The signature or the signer's certificate is not valid.
    #[error("its signature or its signer's certificate is not valid")]
    Signature(#[from] SignedError),
    /// The signature is valid, but the payload is not.
    #[error("its signature is valid, but its content is not")]
    Payload(#[from] DocumentError),
    /// The network document has another range than the present one. A network's range never changes.
    #[error("it is the network document of another network")]
    OtherNetwork,
    /// The intermediate CA above the signer is revoked.
    #[error("the intermediate CA of its signer is revoked")]
    RevokedCa,
    /// The document would add a trusted CA or remove the root, but an intermediate CA vouches for it. Only the root's holder
    /// may do that.
    #[error("it changes the trusted CAs, which a signer below an intermediate CA may not do")]
    OtherTrust,
}

/// The outcome of offering a document.
#[derive(Debug)]
pub enum UpdateOutcome {
    /// The document is newer than the current one, and is current from now on.
    New(DocumentKind, Box<CurrentDocuments>),
    /// The document is the current one, or another one with the same version, which is ignored.
    Same,
    /// The current document is newer.
    Older(DocumentKind),
}

/// The node's current documents and the CAs that it trusts. A clone is cheap. The debug output omits the network's keys.
#[derive(Clone, Default)]
pub struct CurrentDocuments {
    cas: Arc<Vec<CertificateDer<'static>>>,
    network: Option<Verified<NetworkDocument>>,
    revocations: Option<Verified<RevocationIndex>>,
}

/// A document whose signature was verified, with its parsed payload.
#[derive(Clone)]
struct Verified<T> {
    signed: Arc<SignedDocument>,
    payload: Arc<T>,
    /// The intermediate CA above the signer; `None` if a trusted CA issued the signer's certificate itself.
    intermediate: Option<IntermediateCa>,
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

/// The revocation list, indexed for look-ups. Serial numbers are spelled as by [`serial::normal`].
#[derive(Clone)]
struct RevocationIndex {
    version: u64,
    entries: BTreeSet<Revoked>,
    node_serials: BTreeSet<String>,
    ca_serials: BTreeSet<String>,
    /// SHA-256 of each blocked key's SPKI, in lower-case hex.
    blocked_keys: BTreeSet<String>,
}

/// The fields that both kinds of payload begin with.
#[derive(Deserialize)]
struct Head {
    kind: DocumentKind,
    version: u64,
}

impl CurrentDocuments {
    /// Holds no document yet; trusts these CAs.
    pub fn new(cas: Vec<CertificateDer<'static>>) -> Self {
        Self {
            cas: Arc::new(cas),
            ..Self::default()
        }
    }

    /// Verifies a document and compares it with the current one. Returns the documents that are current from now on if it is
    /// newer; `self` stays as it is.
    ///
    /// Below a root, a document of a later intermediate CA is newer than any document of an earlier one, whatever their
    /// versions. So the thief of a CA's key cannot prevail over the next CA by a large version number.
    ///
    /// # Errors
    /// No trusted CA vouches for the document, or its content is not valid.
    pub fn accept_document(
        &self,
        document: &SignedDocument,
    ) -> Result<UpdateOutcome, DocumentRejected> {
        if self.is_current(document) {
            return Ok(UpdateOutcome::Same);
        }
        let Opened {
            payload,
            by: issuer,
        } = signed::open(document, &self.cas)?;
        if issuer
            .intermediate
            .as_ref()
            .is_some_and(|ca| self.is_serial_revoked(&ca.serial))
        {
            return Err(DocumentRejected::RevokedCa);
        }
        let head: Head =
            serde_json::from_slice(&payload).map_err(|error| DocumentError::Shape {
                what: "signed",
                why: error.to_string(),
            })?;
        let (offered, current) = (
            (issuer.intermediate.as_ref(), head.version),
            (self.intermediate_ca(head.kind), self.version(head.kind)),
        );
        if offered <= current {
            // A registry never signs two documents with the same version; should it happen, the first one stays.
            return Ok(if offered < current {
                UpdateOutcome::Older(head.kind)
            } else {
                UpdateOutcome::Same
            });
        }
        let (mut next, document) = (self.clone(), Arc::new(document.clone()));
        match head.kind {
            DocumentKind::Network => {
                let network = NetworkDocument::read(&payload)?;
                if self
                    .network()
                    .is_some_and(|current| current.network != network.network)
                {
                    return Err(DocumentRejected::OtherNetwork);
                }
                if !network.authorities.is_empty() {
                    next.cas = Arc::new(self.check_new_cas(parse_cas(&network)?, &issuer)?);
                }
                next.network = Some(Verified {
                    signed: document,
                    payload: Arc::new(network),
                    intermediate: issuer.intermediate,
                });
            }
            DocumentKind::Revocations => {
                let index = RevocationIndex::new(Revocations::read(&payload)?);
                next.revocations = Some(Verified {
                    signed: document,
                    payload: Arc::new(index),
                    intermediate: issuer.intermediate,
                });
            }
        }
        Ok(UpdateOutcome::New(head.kind, Box::new(next)))
    }

    /// Returns whether the document is one of the current ones, byte for byte.
    pub fn is_current(&self, document: &SignedDocument) -> bool {
        [DocumentKind::Network, DocumentKind::Revocations]
            .into_iter()
            .filter_map(|kind| self.signed_document(kind))
            .any(|current| **current == *document)
    }

    /// Returns the CAs that a network document lists, if its issuer may change to them: a document below an intermediate CA
    /// must keep that CA's root, and must not add a CA.
    fn check_new_cas(
        &self,
        cas: Vec<CertificateDer<'static>>,
        issuer: &Issuer,
    ) -> Result<Vec<CertificateDer<'static>>, DocumentRejected> {
        let root = issuer
            .intermediate
            .as_ref()
            .and_then(|_| self.cas.get(issuer.trusted));
        let is_permitted = root
            .is_none_or(|root| cas.contains(root) && cas.iter().all(|ca| self.cas.contains(ca)));
        if is_permitted {
            Ok(cas)
        } else {
            Err(DocumentRejected::OtherTrust)
        }
    }

    /// Returns the intermediate CA above the signer of the current document of this kind.
    fn intermediate_ca(&self, kind: DocumentKind) -> Option<&IntermediateCa> {
        match kind {
            DocumentKind::Network => self.network.as_ref()?.intermediate.as_ref(),
            DocumentKind::Revocations => self.revocations.as_ref()?.intermediate.as_ref(),
        }
    }

    /// Returns whether the intermediate CA in a chain (DER) is revoked.
    pub fn is_ca_of_chain_revoked<C: AsRef<[u8]>>(&self, chain: &[C]) -> bool {
        let mut cas = chain.iter().skip(1).map(|ca| chain::number_of(ca.as_ref()));
        cas.any(|ca| ca.is_ok_and(|ca| self.is_serial_revoked(&ca.serial)))
    }

    /// Returns whether a certificate with this chain (DER) should be renewed because of its intermediate CA: the CA is revoked,
    /// or a later one has signed a current document.
    pub fn is_superseded<C: AsRef<[u8]>>(&self, chain: &[C]) -> bool {
        let own = chain::verify(chain, &self.cas, None)
            .ok()
            .and_then(|issuer| issuer.intermediate);
        let has_later_ca = |own: IntermediateCa| {
            [DocumentKind::Network, DocumentKind::Revocations]
                .into_iter()
                .filter_map(|kind| self.intermediate_ca(kind))
                .any(|ca| *ca > own)
        };
        self.is_ca_of_chain_revoked(chain) || own.is_some_and(has_later_ca)
    }

    /// Returns the trusted CAs (DER).
    pub fn cas(&self) -> &[CertificateDer<'static>] {
        &self.cas
    }

    /// Returns the current document of this kind in its signed form, to be stored or sent to other nodes.
    pub fn signed_document(&self, kind: DocumentKind) -> Option<&Arc<SignedDocument>> {
        match kind {
            DocumentKind::Network => self.network.as_ref().map(|network| &network.signed),
            DocumentKind::Revocations => self.revocations.as_ref().map(|list| &list.signed),
        }
    }

    /// Returns the current network document.
    pub fn network(&self) -> Option<&Arc<NetworkDocument>> {
        self.network.as_ref().map(|network| &network.payload)
    }

    /// Returns the version of the current document of this kind; 0 if there is none.
    pub fn version(&self, kind: DocumentKind) -> u64 {
        match kind {
            DocumentKind::Network => self.network().map_or(0, |document| document.version),
            DocumentKind::Revocations => self.revocation_index().map_or(0, |index| index.version),
        }
    }

    fn revocation_index(&self) -> Option<&RevocationIndex> {
        self.revocations.as_ref().map(|list| &*list.payload)
    }

    /// Returns the number of revoked certificates.
    pub fn revoked_count(&self) -> usize {
        self.revocation_index()
            .map_or(0, |index| index.entries.len())
    }

    /// Returns all revoked serial numbers, of nodes and of CAs, as [`serial::normal`] spells them.
    pub fn revoked_serials(&self) -> impl Iterator<Item = &str> {
        self.revocation_index()
            .into_iter()
            .flat_map(|index| index.node_serials.union(&index.ca_serials))
            .map(String::as_str)
    }

    /// Returns the number of revoked CAs.
    pub fn revoked_ca_count(&self) -> usize {
        self.revocation_index()
            .map_or(0, |index| index.ca_serials.len())
    }

    /// Returns whether the certificate with this serial number, a node's or a CA's, is revoked. A malformed number counts as
    /// revoked.
    pub fn is_serial_revoked(&self, serial_hex: &str) -> bool {
        let is_listed = |index: &RevocationIndex, serial: &String| {
            index.node_serials.contains(serial) || index.ca_serials.contains(serial)
        };
        serial::normal(serial_hex).is_none_or(|serial| {
            self.revocation_index()
                .is_some_and(|index| is_listed(index, &serial))
        })
    }

    /// Returns whether a key is blocked, in whichever certificate it appears. `sha256_hex` is the SHA-256 of its SPKI.
    pub fn is_key_blocked(&self, sha256_hex: &str) -> bool {
        self.revocation_index()
            .is_some_and(|index| index.blocked_keys.contains(sha256_hex))
    }

    /// Returns the nodes with a certificate that these documents revoke and the `earlier` ones do not.
    pub fn revoked_since(&self, earlier: &Self) -> BTreeSet<Prefix> {
        let Some(index) = self.revocation_index() else {
            return BTreeSet::new();
        };
        let was_revoked = |revoked: &&Revoked| {
            earlier
                .revocation_index()
                .is_some_and(|index| index.entries.contains(revoked))
        };
        index
            .entries
            .iter()
            .filter(|revoked| !was_revoked(revoked))
            .map(|revoked| revoked.prefix)
            .collect()
    }
}

/// Parses the CAs that a network document lists.
fn parse_cas(network: &NetworkDocument) -> Result<Vec<CertificateDer<'static>>, DocumentError> {
    let parse = |pem: &String| CertificateDer::from_pem_slice(pem.as_bytes());
    network
        .authorities
        .iter()
        .map(parse)
        .collect::<Result<_, _>>()
        .map_err(|error| DocumentError::Shape {
            what: "network",
            why: error.to_string(),
        })
}

impl RevocationIndex {
    fn new(list: Revocations) -> Self {
        Self {
            version: list.version,
            node_serials: list
                .revoked
                .iter()
                .filter_map(|entry| serial::normal(&entry.serial))
                .collect(),
            ca_serials: list
                .authorities
                .iter()
                .filter_map(|serial| serial::normal(serial))
                .collect(),
            blocked_keys: list.revoked.iter().map(|entry| entry.key.clone()).collect(),
            entries: list.revoked.into_iter().collect(),
        }
    }
}
