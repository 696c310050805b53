//! Dialled tunnels: drained and restarted together, or without a drain when the restart is forced.

use super::*;

#[test]
fn a_node_whose_processes_all_run_with_the_present_files_reports_the_version() {
    let mut node = Node::new(change(false, false), &[(FIRST_SLOT, 7), (ACCEPTED_SLOT, 8)]);
    node.check(100, &["applied 5"]);
    node.check(101, &["applied 5"]);
}

#[test]
fn the_next_process_follows_with_the_same_locks_once_all_tunnels_are_up_again() {
    let mut node = Node::new(change(false, true), &[(FIRST_SLOT, 7), (SECOND_SLOT, 8)]);
    node.lock(&[7, 8], 100);
    node.restart_dial(FIRST_SLOT, 100);
    node.check(104, &[]);
    node.check(105, &[]);
    node.restart_dial(SECOND_SLOT, 106);
    node.check(110, &[]);
    node.check(112, &["release 7,8", "applied 5"]);
}

#[test]
fn dialled_tunnels_drain_together_but_for_half_of_all_and_those_that_a_node_needs() {
    let slots = [0, 1, 2, 3].map(Slot::Dialling);
    let tunnels = [(slots[0], 7), (slots[1], 8), (slots[2], 9), (slots[3], 10)];
    let all = ["drain wrn0 renewed", "drain wrn1 renewed"];
    for (alternatives, expected) in [
        (&[(7, 3), (8, 3)][..], &all[..]),
        (
            &[(8, 3), (9, 3)],
            &["drain wrn1 renewed", "drain wrn2 renewed"],
        ),
        (
            &[(7, 1), (8, 0), (9, 3)],
            &["drain wrn0 renewed", "drain wrn2 renewed"],
        ),
        (&[], &["drain wrn0 renewed"]),
    ] {
        let mut node = Node::new(change(false, true), &tunnels);
        let alternatives = alternatives.iter().map(|(number, slot)| Route {
            installed: false,
            metric: 192,
            ..route(*number, slots[*slot])
        });
        let direct = tunnels.iter().map(|(slot, number)| route(*number, *slot));
        node.routes = direct.chain(alternatives).collect();
        node.lock(&[7, 8, 9, 10], 100);
        node.check(100, expected);
    }
}

#[test]
fn a_dialled_tunnel_that_is_needed_is_tried_again_later() {
    let mut node = Node::new(change(false, true), &[(FIRST_SLOT, 7)]);
    node.routes = vec![route(7, FIRST_SLOT)];
    node.lock(&[7], 100);
    node.check(100, &["drain wrn0 renewed"]);
    node.set_phase(FIRST_SLOT, RENEWED);
    node.check(101, &[]);
    node.check(103, &["undrain wrn0 only_route", "release 7"]);
    node.set_phase(FIRST_SLOT, Phase::Up);
    let again = node.next_order(104).unwrap();
    assert_eq!(again, (113, vec!["acquire 7".to_owned()]));
}

#[test]
fn dialled_tunnels_wait_for_the_servers_of_their_peers_if_servers_restart_too() {
    // At least a minute, or twelve seconds for each tunnel and once more.
    for (tunnels, second) in [(1, 160), (4, 160), (5, 172), (20, 352)] {
        let tunnels = (0..tunnels).map(|slot| (Slot::Dialling(slot), 7));
        let mut node = Node::new(change(true, true), &tunnels.collect::<Vec<_>>());
        let first = node.next_order(100).unwrap();
        assert_eq!(first, (second, vec!["acquire 7".to_owned()]));
    }
}

#[test]
fn a_tunnel_whose_drain_was_given_up_is_tried_again_after_ten_seconds() {
    let mut node = Node::new(change(false, true), &[(FIRST_SLOT, 7)]);
    node.lock(&[7], 100);
    node.check(100, &["drain wrn0 renewed"]);
    node.set_phase(FIRST_SLOT, RENEWED);
    node.check(106, &[]);
    node.check(107, &["undrain wrn0 deadline", "release 7"]);
    node.set_phase(FIRST_SLOT, Phase::Up);
    let again = node.next_order(108).unwrap();
    assert_eq!(again, (117, vec!["acquire 7".to_owned()]));
}

#[test]
fn of_several_tunnels_those_that_have_drained_restart() {
    let tunnels = [(FIRST_SLOT, 7), (SECOND_SLOT, 8), (ACCEPTED_SLOT, 9)];
    let third = Slot::Accepting(UDP, 3);
    let mut node = Node::new(
        change(false, true),
        &[&tunnels[..], &[(third, 10)]].concat(),
    );
    node.lock(&[7, 8, 9, 10], 100);
    node.check(100, &["drain wrn0 renewed", "drain wrn1 renewed"]);
    node.set_phase(FIRST_SLOT, RENEWED);
    node.set_drained(SECOND_SLOT);
    node.check(107, &["undrain wrn0 deadline", "restart wrn1"]);
}

#[test]
fn new_files_meanwhile_restart_the_same_process_again_without_waiting() {
    let mut node = Node::new(change(false, true), &[(FIRST_SLOT, 7)]);
    node.lock(&[7], 100);
    node.restart_dial(FIRST_SLOT, 100);
    node.restart.on_files_changed(&FilesChanged {
        at: at(110),
        network_version: 6,
        ..change(false, true)
    });
    node.check(110, &[]);
    node.check(113, &["drain wrn0 renewed"]);
}

#[test]
fn each_order_about_a_tunnel_is_explained_in_plain_words() {
    let mut node = Node::new(change(false, true), &[(FIRST_SLOT, 7)]);
    node.lock(&[7], 100);
    for order in node.step(100) {
        if let RestartOrder::Tunnel(decision) = order {
            let terms = "OpenVPN runs with old certificates or keys and has to restart; tunnels=1";
            assert_eq!(decision.terms, terms);
        }
    }
}
