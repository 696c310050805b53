//! Signed documents, from a file or from another node: none is accepted without a trusted signature, and a payload is read in one way.

use membership::documents::CurrentDocuments;
use wire::{
    registry::{Enrolment, NetworkDocument, Revocations},
    serial,
    signed::{self, SignedDocument},
};

/// The input is the content of the file, or a payload.
pub fn check(input: &[u8]) {
    if let Ok(document) = serde_json::from_slice::<SignedDocument>(input) {
        assert!(signed::open::<Vec<u8>>(&document, &[]).is_err());
        assert!(
            CurrentDocuments::default()
                .accept_document(&document)
                .is_err()
        );
    }
    if let Ok(network) = NetworkDocument::read(input) {
        assert!(network.range().is_some());
        network.parameters();
        network.payload4();
        assert_eq!(network.authorities().len(), network.authorities.len());
        let text = serde_json::to_vec(&network).unwrap_or_default();
        assert!(NetworkDocument::read(&text).ok() == Some(network));
    }
    if let Ok(revocations) = Revocations::read(input) {
        for revoked in &revocations.revoked {
            let normal = serial::normal(&revoked.serial);
            assert_eq!(normal.is_some(), serial::decimal(&revoked.serial).is_some());
        }
        let text = serde_json::to_vec(&revocations).unwrap_or_default();
        assert_eq!(Revocations::read(&text).ok(), Some(revocations));
    }
    drop(serde_json::from_slice::<Enrolment>(input));
}
