//! Runs the properties of the fuzz targets on their corpora; `fuzz/run` fuzzes them.

#[path = "../../fuzz/properties/babel.rs"]
mod babel;
#[path = "../../fuzz/properties/babel_packets.rs"]
mod babel_packets;
#[path = "../../fuzz/properties/corpus.rs"]
mod corpus;
#[path = "../../fuzz/properties/handed_state.rs"]
mod handed_state;
#[path = "../../fuzz/properties/lan.rs"]
mod lan;
#[path = "../../fuzz/properties/link_counters.rs"]
mod link_counters;
#[path = "../../fuzz/properties/management.rs"]
mod management;
#[path = "../../fuzz/properties/pcp.rs"]
mod pcp;
#[path = "../../fuzz/properties/peer_documents.rs"]
mod peer_documents;
#[path = "../../fuzz/properties/suspicion.rs"]
mod suspicion;
#[path = "../../fuzz/properties/upnp.rs"]
mod upnp;

#[test]
fn dumps_of_babeld_are_read_alike_however_they_are_cut() {
    corpus::hold("babel", babel::check);
}

#[test]
fn packets_of_neighbours_yield_no_more_than_they_contain() {
    corpus::hold("babel_packets", babel_packets::check);
}

#[test]
fn handed_over_state_names_nothing_twice() {
    corpus::hold("handed_state", handed_state::check);
}

#[test]
fn dumps_of_counters_yield_no_more_than_they_contain() {
    corpus::hold("link_counters", link_counters::check);
}

#[test]
fn lines_of_openvpn_are_read_alike_however_they_are_cut() {
    corpus::hold("management", management::check);
}

#[test]
fn documents_of_other_nodes_are_bounded() {
    corpus::hold("peer_documents", peer_documents::check);
}

#[test]
fn answers_of_a_gateway_are_bounded_and_can_be_written_again() {
    corpus::hold("upnp", upnp::check);
}

#[test]
fn answers_of_a_router_by_pcp_belong_to_the_request() {
    corpus::hold("pcp", pcp::check);
}

#[test]
fn messages_on_a_lan_have_one_encoding() {
    corpus::hold("lan", lan::check);
}

#[test]
fn suspicions_have_one_encoding() {
    corpus::hold("suspicion", suspicion::check);
}
