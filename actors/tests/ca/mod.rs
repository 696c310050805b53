//! Issues certificates and signs documents for tests.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of tests")]
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of this")]

use arc_swap::ArcSwap;
use membership::{
    credentials::NodeCredentials,
    documents::{CurrentDocuments, DocumentStore, UpdateOutcome},
};
use policies::names::Prefix;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, PublicKeyData, SanType, SigningKey,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::net::IpAddr;
use wire::{
    overlay::Network,
    registry::{DocumentKind, Revocations, Revoked},
    signed::{SIGNER_NAME, SignedDocument, seal},
};

/// The prefix of node `number`.
pub fn prefix(number: u32) -> Prefix {
    Prefix::new(number, 16).unwrap()
}

/// The network of all tests.
pub fn network() -> Network {
    Network::new("2001:db8:42::/48".parse().unwrap()).unwrap()
}

/// A CA for nodes and signers.
pub struct Ca {
    pub issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Signs a document with a new signer's certificate of this CA.
    pub fn sign_document(&self, document: &impl serde::Serialize) -> SignedDocument {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, SIGNER_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let payload = serde_json::to_vec(document).unwrap();
        let signature = key.sign(&payload).unwrap();
        seal(
            &payload,
            (certificate.der(), None),
            &key.subject_public_key_info(),
            &signature,
        )
    }

    /// Signs a list that revokes the certificate of node `revoked`.
    pub fn revocations(&self, version: u64, revoked: u32) -> SignedDocument {
        let revoked = Revoked {
            prefix: prefix(revoked),
            serial: format!("{revoked:x}"),
            key: "00".repeat(32),
        };
        self.sign_document(&Revocations {
            kind: DocumentKind::Revocations,
            version,
            revoked: vec![revoked],
            authorities: vec![],
        })
    }

    /// Returns the documents of a node that has accepted this one.
    pub fn documents_with(&self, document: &SignedDocument) -> DocumentStore {
        let der = CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        let Ok(UpdateOutcome::New(_, documents)) =
            CurrentDocuments::new(vec![der]).accept_document(document)
        else {
            panic!("not accepted")
        };
        DocumentStore::new(ArcSwap::from_pointee(*documents))
    }

    /// Issues the credentials of node `number`.
    pub fn node_credentials(&self, number: u32) -> NodeCredentials {
        self.credentials_with_names(number, &[])
    }

    /// Issues the credentials of node `number`, with these DNS names.
    pub fn credentials_with_names(&self, number: u32, names: &[&str]) -> NodeCredentials {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V6(
            network().node_address(prefix(number)),
        ))];
        let dns = |name: &&str| SanType::DnsName((*name).try_into().unwrap());
        params.subject_alt_names.extend(names.iter().map(dns));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, prefix(number).to_string());
        params.serial_number = Some(u64::from(number).into());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let key = key.serialize_pem();
        NodeCredentials::from_pem(self.pem.as_bytes(), certificate.as_bytes(), key.as_bytes())
            .unwrap()
    }
}
