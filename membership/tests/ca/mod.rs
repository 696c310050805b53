//! CAs, and the documents that they sign, for tests.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of tests")]
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of this")]

use membership::documents::{CurrentDocuments, UpdateOutcome};
use policies::parameters::Parameters;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SigningKey,
};
use rustls::pki_types::CertificateDer;
use wire::{
    registry::{DocumentKind, NetworkDocument, static_key_text},
    signed::{SIGNER_NAME, SignedDocument, seal},
};

/// A CA with its key.
pub struct Ca {
    pub issuer: Issuer<'static, KeyPair>,
    pub der: CertificateDer<'static>,
    pub pem: String,
}

pub fn params_named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

pub fn ca_params(name: &str, serial: u64, path_length: u8) -> CertificateParams {
    let mut params = params_named(name);
    params.serial_number = Some(serial.into());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

impl Ca {
    pub fn self_signed(name: &str, path_length: u8) -> Self {
        let (params, key) = (
            ca_params(name, 1, path_length),
            KeyPair::generate().unwrap(),
        );
        let certificate = params.self_signed(&key).unwrap();
        Self {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    pub fn intermediate(root: &Self, serial: u64) -> Self {
        let (params, key) = (ca_params("online", serial, 0), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &root.issuer).unwrap();
        Self {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Signs a document with a new signer's certificate of this CA. The envelope contains the CA too if `is_intermediate`.
    pub fn sign_document(
        &self,
        is_intermediate: bool,
        document: &impl serde::Serialize,
    ) -> SignedDocument {
        let mut params = params_named(SIGNER_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let payload = serde_json::to_vec(document).unwrap();
        let signature = key.sign(&payload).unwrap();
        let chain = (
            &certificate.der()[..],
            is_intermediate.then_some(&self.der[..]),
        );
        seal(&payload, chain, &key.subject_public_key_info(), &signature)
    }

    /// Issues a node's certificate; returns its chain.
    pub fn node_chain(&self) -> Vec<CertificateDer<'static>> {
        let certificate = params_named("7/16")
            .signed_by(&KeyPair::generate().unwrap(), &self.issuer)
            .unwrap();
        vec![certificate.der().clone(), self.der.clone()]
    }
}

pub fn network(version: u64, authorities: &[&Ca]) -> NetworkDocument {
    NetworkDocument {
        kind: DocumentKind::Network,
        version,
        network: "fd12:3456:789a::/48".parse().unwrap(),
        parameters: Parameters::default().into(),
        babel_key: "0f".repeat(32),
        tls_crypt: static_key_text(&[0xa5; 256]),
        private_endpoints: false,
        authorities: authorities.iter().map(|ca| ca.pem.clone()).collect(),
        babel_lenient: false,
        tls_crypt_other: None,
        gateways: Vec::new(),
        ipv4: None,
        min_version: None,
        prefix_lengths: Vec::new(),
    }
}

/// Returns the current documents after `document`, which must be accepted as a newer one.
#[track_caller]
pub fn accept(current: &CurrentDocuments, document: &SignedDocument) -> CurrentDocuments {
    match current.accept_document(document) {
        Ok(UpdateOutcome::New(_, next)) => *next,
        outcome => panic!("{outcome:?}"),
    }
}

/// The documents of a node that trusts these CAs and has none yet.
pub fn trusting(cas: &[&Ca]) -> CurrentDocuments {
    CurrentDocuments::new(cas.iter().map(|ca| ca.der.clone()).collect())
}
