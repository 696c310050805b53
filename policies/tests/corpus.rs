//! Runs the properties of the fuzz targets on their corpora; `fuzz/run` fuzzes them.

#![expect(clippy::disallowed_methods, reason = "the test reads the corpus")]

#[path = "../../fuzz/properties/corpus.rs"]
mod corpus;
#[path = "../../fuzz/properties/names.rs"]
mod names;

#[test]
fn names_have_one_spelling() {
    corpus::hold("names", names::check);
}
