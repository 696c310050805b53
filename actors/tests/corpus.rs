//! Runs the properties of the fuzz targets on their corpora; `fuzz/run` fuzzes them.

#[path = "../../fuzz/properties/corpus.rs"]
mod corpus;
#[path = "../../fuzz/properties/upnp.rs"]
mod upnp;

#[test]
fn answers_of_a_gateway_are_read_or_rejected() {
    corpus::hold("upnp", upnp::check);
}
