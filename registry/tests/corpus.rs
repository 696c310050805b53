//! Runs the properties of the fuzz targets on their corpora; `fuzz/run` fuzzes them.

#[path = "../../fuzz/properties/corpus.rs"]
mod corpus;
#[path = "../../fuzz/properties/registry_calls.rs"]
mod registry_calls;

#[test]
fn requests_of_strangers_are_accepted_only_with_a_proven_key() {
    corpus::hold("registry_calls", registry_calls::check);
}
