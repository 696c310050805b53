//! Verifies the registry by the key of its CA, which is all that an invitation says of it.

use rustls::{
    CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::{error::Error, sync::Arc};

/// Accepts a server whose chain contains the CA with the pinned key, if that CA issued the server's certificate and the
/// certificate is for the host name in the URL.
#[derive(Debug)]
pub(super) struct PinnedCaVerifier {
    pub(super) pin: [u8; 32],
    pub(super) provider: Arc<CryptoProvider>,
}

impl PinnedCaVerifier {
    fn has_pin(&self, certificate: &CertificateDer<'_>) -> bool {
        let parsed = x509_parser::parse_x509_certificate(certificate);
        parsed.is_ok_and(|(_, certificate)| {
            ring::digest::digest(&ring::digest::SHA256, certificate.public_key().raw).as_ref()
                == self.pin
        })
    }
}

impl ServerCertVerifier for PinnedCaVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pin_error =
            rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        let ca = intermediates
            .iter()
            .find(|certificate| self.has_pin(certificate))
            .ok_or(pin_error)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Returns whether the error comes from [`PinnedCaVerifier`].
///
/// rustls' error is wrapped in `io::Error`s. The `source` of an `io::Error` skips the wrapped error itself,
/// so each one must be unwrapped.
pub(super) fn is_pin_error(error: &(dyn Error + 'static)) -> bool {
    let pin_error =
        rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return *tls == pin_error;
    }
    match error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref)
    {
        Some(wrapped) => is_pin_error(wrapped),
        None => false,
    }
}
