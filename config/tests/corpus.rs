//! Runs the properties of the fuzz targets on their corpora; `fuzz/run` fuzzes them.

#[path = "../../fuzz/properties/config.rs"]
mod config;
#[path = "../../fuzz/properties/corpus.rs"]
mod corpus;

#[test]
fn complaints_about_a_configuration_have_one_line_each() {
    corpus::hold("config", config::check);
}
