//! Locks: requested, held until all is settled, and released.

use super::*;

#[test]
fn a_dialled_tunnel_is_drained_once_all_locks_are_held() {
    let mut node = Node::new(change(false, true), &[(FIRST_SLOT, 7), (SECOND_SLOT, 8)]);
    node.check(100, &["acquire 7,8"]);
    node.check(101, &[]);
    node.answer(true, &[7, 8], 101);
    node.check(102, &["drain wrn0 renewed"]);
    node.set_phase(FIRST_SLOT, RENEWED);
    node.check(103, &[]);
}

#[test]
fn locks_are_released_when_all_tunnels_have_been_up_again_for_two_seconds() {
    let mut node = Node::new(change(false, true), &[(FIRST_SLOT, 7)]);
    node.lock(&[7], 100);
    node.restart_dial(FIRST_SLOT, 100);
    node.set_phase(FIRST_SLOT, Phase::Closing);
    node.check(104, &[]);
    node.set_phase(FIRST_SLOT, Phase::Connecting);
    node.check(105, &[]);
    node.set_phase(FIRST_SLOT, Phase::Up);
    node.check(106, &[]);
    node.check(107, &[]);
    node.check(108, &["release 7", "applied 5"]);
}

#[test]
fn the_settling_starts_over_when_a_tunnel_goes_down_meanwhile() {
    let mut node = Node::new(change(false, true), &[(FIRST_SLOT, 7), (SECOND_SLOT, 8)]);
    node.dials.insert(SECOND_SLOT, at(CHANGED));
    node.lock(&[7, 8], 100);
    node.restart_dial(FIRST_SLOT, 100);
    node.check(104, &[]);
    node.set_phase(SECOND_SLOT, Phase::Connecting);
    node.check(106, &[]);
    node.set_phase(SECOND_SLOT, Phase::Up);
    node.check(107, &[]);
    node.check(108, &[]);
    node.check(109, &["release 7,8", "applied 5"]);
}

#[test]
fn a_peer_that_does_not_come_back_is_waited_for_until_the_deadline() {
    let mut node = Node::new(change(false, true), &[(FIRST_SLOT, 7), (SECOND_SLOT, 8)]);
    node.dials.insert(SECOND_SLOT, at(CHANGED));
    node.lock(&[7, 8], 100);
    node.restart_dial(FIRST_SLOT, 100);
    node.tunnels.remove(&FIRST_SLOT);
    node.dials.remove(&FIRST_SLOT);
    let released = node.next_order(104).unwrap();
    let orders = ["release 7,8", "applied 5"].map(str::to_owned).to_vec();
    assert_eq!(released, (103 + 15, orders));
}

#[test]
fn locks_that_expire_before_the_end_of_another_restart_are_released_and_requested_again() {
    let mut node = Node::new(change(false, true), &[(FIRST_SLOT, 7), (SECOND_SLOT, 8)]);
    node.lock(&[7, 8], 100);
    node.check(100, &["drain wrn0 renewed"]);
    node.set_drained(FIRST_SLOT);
    node.check(106, &["restart wrn0"]);
    node.set_phase(FIRST_SLOT, Phase::Connecting);
    node.check(120, &[]);
    node.check(121, &["release 7,8"]);
    node.redial(FIRST_SLOT, 122);
    node.check(123, &[]);
    node.check(124, &["acquire 7,8"]);
}

#[test]
fn locks_are_requested_again_if_another_neighbour_has_come() {
    let mut node = Node::new(change(false, true), &[(FIRST_SLOT, 7), (SECOND_SLOT, 8)]);
    node.lock(&[7, 8], 100);
    node.restart_dial(FIRST_SLOT, 100);
    node.open(ACCEPTED_SLOT, 9);
    node.check(104, &[]);
    node.check(107, &["release 7,8"]);
    node.check(110, &["acquire 7,8,9"]);
}

#[test]
fn locks_that_nothing_can_be_restarted_with_are_released() {
    let mut node = Node::new(change(false, true), &[(FIRST_SLOT, 7)]);
    node.check(100, &["acquire 7"]);
    let dial = Attempted::Dial(FIRST_SLOT);
    node.restart.attempts.note(dial, at(100));
    node.answer(true, &[7], 101);
    node.check(101, &["release 7"]);
}

#[test]
fn rejected_locks_are_requested_again_after_a_quarter_to_three_quarters_of_a_second() {
    for seed in 0..50 {
        let mut node = Node::new(change(false, true), &[(FIRST_SLOT, 7)]);
        node.check(100, &["acquire 7"]);
        let mut rng = Rng::new(seed);
        node.restart
            .on_lock_answer(false, nodes(&[7]), at(100), &mut rng);
        let pause = node.restart.paused_until.since(at(100));
        let range = Duration::from_millis(250)..=Duration::from_millis(750);
        assert!(range.contains(&pause), "{pause:?}");
        node.check(100, &[]);
        node.check(102, &["acquire 7"]);
    }
}

#[test]
fn a_request_without_an_answer_is_repeated_after_thirty_seconds() {
    let mut node = Node::new(change(false, true), &[(FIRST_SLOT, 7)]);
    node.check(100, &["acquire 7"]);
    node.check(129, &[]);
    node.check(130, &["lost request", "acquire 7"]);
}

#[test]
fn a_late_answer_to_a_lock_request_does_not_disturb_a_running_restart() {
    let mut node = Node::new(change(false, true), &[(FIRST_SLOT, 7)]);
    node.lock(&[7], 100);
    node.check(100, &["drain wrn0 renewed"]);
    node.set_drained(FIRST_SLOT);
    node.check(103, &["restart wrn0"]);
    let settling = node.restart.locks.clone();
    node.answer(false, &[7], 104);
    assert_eq!(node.restart.locks, settling);
    node.answer(true, &[7], 104);
    assert_eq!(node.restart.locks, settling);
}

#[test]
fn no_locks_are_requested_while_a_neighbour_holds_ours() {
    let mut node = Node::new(change(false, true), &[(FIRST_SLOT, 7)]);
    node.is_locked_by_neighbour = true;
    node.check(100, &[]);
    node.is_locked_by_neighbour = false;
    node.check(101, &["acquire 7"]);
}

#[test]
fn nothing_begins_while_a_tunnel_is_not_up() {
    for phase in [Phase::Connecting, RENEWED, Phase::Closing] {
        let mut node = Node::new(change(false, true), &[(FIRST_SLOT, 7), (SECOND_SLOT, 8)]);
        node.set_phase(SECOND_SLOT, phase);
        node.check(100, &[]);
        node.set_phase(SECOND_SLOT, Phase::Up);
        node.check(101, &["acquire 7,8"]);
    }
}

#[test]
fn nothing_begins_before_this_nodes_own_start() {
    let change = FilesChanged {
        start_after: Duration::from_secs(50),
        ..change(false, true)
    };
    let mut node = Node::new(change, &[(FIRST_SLOT, 7)]);
    let first = node.next_order(100).unwrap();
    assert_eq!(first, (150, vec!["acquire 7".to_owned()]));
}

#[test]
fn a_forced_restart_needs_neither_a_drain_nor_locks() {
    let mut node = Node::new(change(false, true), &[(FIRST_SLOT, 7), (SECOND_SLOT, 8)]);
    node.is_locked_by_neighbour = true;
    node.set_phase(SECOND_SLOT, Phase::Connecting);
    let first = node.next_order(100).unwrap();
    assert_eq!(first, (1_100, vec!["restart wrn0".to_owned()]));
    node.set_phase(FIRST_SLOT, Phase::Closing);
    node.check(1_102, &[]);
    node.check(1_103, &["restart wrn1"]);
}
