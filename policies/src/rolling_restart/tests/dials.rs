//! Dialled tunnels: one after the other, drained first, or closed when the restart is forced.

use super::*;

#[test]
fn a_node_whose_processes_all_run_with_the_present_files_reports_the_version() {
    let mut node = Node::new(change(false, false), &[(FIRST_SLOT, 7), (ACCEPTED_SLOT, 8)]);
    node.check(100, &["applied 5"]);
    node.check(101, &["applied 5"]);
}

#[test]
fn the_next_process_follows_after_a_pause() {
    let mut node = Node::new(change(true, true), &[(FIRST_SLOT, 7), (SECOND_SLOT, 8)]);
    node.lock(&[7, 8], 100);
    node.check(100, &["drain wrn0 renewed"]);
    node.redial(FIRST_SLOT, 101);
    node.check(101, &[]);
    node.check(104, &["release 7,8"]);
    node.check(106, &[]);
    node.lock(&[7, 8], 107);
    node.check(107, &["drain wrn1 renewed"]);
}

#[test]
fn a_tunnel_whose_drain_was_given_up_is_tried_again_after_half_a_minute() {
    let mut node = Node::new(change(true, true), &[(FIRST_SLOT, 7)]);
    node.lock(&[7], 100);
    node.check(100, &["drain wrn0 renewed"]);
    node.set_phase(FIRST_SLOT, RENEWED);
    node.check(110, &[]);
    // The planner has given it up.
    node.set_phase(FIRST_SLOT, Phase::Up);
    node.check(111, &[]);
    node.check(114, &["release 7"]);
    let again = node.next_order(115).unwrap();
    assert_eq!(again, (130, vec!["acquire 7".to_owned()]));
}

#[test]
fn new_files_meanwhile_restart_the_same_process_again_without_waiting() {
    let mut node = Node::new(change(true, true), &[(FIRST_SLOT, 7)]);
    node.lock(&[7], 100);
    node.check(100, &["drain wrn0 renewed"]);
    node.restart.on_files_changed(&FilesChanged {
        at: at(110),
        network_version: 6,
        ..change(false, true)
    });
    node.redial(FIRST_SLOT, 105);
    node.check(110, &[]);
    node.check(113, &["release 7"]);
    node.lock(&[7], 116);
    node.check(116, &["drain wrn0 renewed"]);
}

#[test]
fn each_order_about_a_tunnel_is_explained_in_plain_words() {
    let mut node = Node::new(change(true, true), &[(FIRST_SLOT, 7)]);
    node.lock(&[7], 100);
    for order in node.step(100) {
        if let RestartOrder::Tunnel(decision) = order {
            let terms =
                "OpenVPN runs with old certificates or keys and has to restart; running_for=99 s";
            assert_eq!(decision.terms, terms);
        }
    }
}
