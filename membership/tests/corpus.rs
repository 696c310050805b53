//! Runs the properties of the fuzz targets on their corpora; `fuzz/run` fuzzes them.

#[path = "../../fuzz/properties/certificates.rs"]
mod certificates;
#[path = "../../fuzz/properties/corpus.rs"]
mod corpus;
#[path = "../../fuzz/properties/state_files.rs"]
mod state_files;

#[test]
fn certificates_are_trusted_only_if_the_ca_signed_them() {
    corpus::hold("certificates", certificates::check);
}

#[test]
fn signed_documents_are_accepted_only_with_a_trusted_signature() {
    corpus::hold("state_files", state_files::check);
}
