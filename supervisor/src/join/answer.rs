//! Builds the request for a certificate, and checks the registry's answer to it.

use super::JoinError;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::net::Ipv6Addr;
use wire::{
    chain,
    registry::{Claimed, NetworkDocument},
    signed,
};
use x509_parser::prelude::{FromDer, X509Certificate};

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
pub(super) fn verify_answer(
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
