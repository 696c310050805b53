//! Runs the property of a fuzz target on its corpus; `fuzz/run` fuzzes it.

#[path = "../../fuzz/properties/corpus.rs"]
mod corpus;
#[path = "../../fuzz/properties/port_control.rs"]
mod port_control;

#[test]
fn answers_of_a_router_by_pcp_or_nat_pmp_end_with_a_result() {
    corpus::hold("port_control", port_control::check);
}
