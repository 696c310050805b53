//! Servers: drained with all their tunnels, restarted, or kept for now.

use super::*;
use crate::orders::Order;

#[test]
fn a_server_restarts_before_dialled_tunnels() {
    let mut node = Node::new(change(true, true), &[(FIRST_SLOT, 7), (ACCEPTED_SLOT, 8)]);
    node.lock(&[7, 8], 100);
    node.check(100, &["drain wrnu.2 renewed", "stop accepting udp"]);
}

#[test]
fn a_server_without_tunnels_does_not_wait_for_another_with_some() {
    let mut node = Node::new(change(true, true), &[(ACCEPTED_SLOT, 8)]);
    let (started_at, slots) = (at(1), BTreeSet::new());
    let idle = ServerReading { started_at, slots };
    node.servers.insert(Transport::Tcp, idle);
    node.is_locked_by_neighbour = true;
    node.check(100, &["stop accepting tcp"]);
    node.check(100, &["restart tcp with 0"]);
}

#[test]
fn a_server_without_tunnels_restarts_at_once_and_without_locks() {
    let mut node = Node::new(change(true, true), &[(FIRST_SLOT, 7)]).with_idle_server();
    node.is_locked_by_neighbour = true;
    node.check(100, &["stop accepting udp"]);
    node.check(100, &["restart udp with 0"]);
    node.servers.get_mut(&UDP).unwrap().started_at = at(100);
    node.is_locked_by_neighbour = false;
    node.check(159, &[]);
    node.check(160, &["acquire 7"]);
}

/// A server that has been draining since second 100.
fn draining_server(change: FilesChanged) -> Node {
    let mut node = Node::new(change, &[(ACCEPTED_SLOT, 8)]);
    node.lock(&[8], 100);
    node.check(100, &["drain wrnu.2 renewed", "stop accepting udp"]);
    node.set_phase(ACCEPTED_SLOT, RENEWED);
    node
}

#[test]
fn a_drained_server_restarts_no_earlier_than_after_three_seconds() {
    let mut node = draining_server(change(true, true));
    node.drained.insert(ACCEPTED_SLOT, true);
    node.check(102, &[]);
    let restart = node.step(103);
    let [
        RestartOrder::RestartServer {
            transport: UDP,
            drained_for,
            closings,
        },
    ] = &restart[..]
    else {
        panic!("{restart:?}")
    };
    assert_eq!(*drained_for, Duration::from_secs(3));
    let orders: Vec<_> = closings
        .iter()
        .map(|closing| closing.order.clone())
        .collect();
    let (slot, reason) = (ACCEPTED_SLOT, CloseReason::Renewed);
    assert_eq!(orders, [Order::Close { slot, reason }]);
}

#[test]
fn locks_are_released_once_the_clients_of_a_restarted_server_are_back() {
    let mut node = draining_server(change(true, true));
    node.drained.insert(ACCEPTED_SLOT, true);
    node.check(103, &["restart udp with 1"]);
    node.servers.get_mut(&UDP).unwrap().started_at = at(103);
    let tunnel = node.tunnels.remove(&ACCEPTED_SLOT).unwrap();
    node.check(107, &[]);
    node.tunnels.insert(ACCEPTED_SLOT, tunnel);
    node.set_phase(ACCEPTED_SLOT, Phase::Up);
    node.check(108, &[]);
    node.check(111, &["release 8", "applied 5"]);
}

#[test]
fn clients_that_do_not_come_back_are_waited_for_fifteen_seconds() {
    let mut node = draining_server(change(true, true));
    node.drained.insert(ACCEPTED_SLOT, true);
    node.check(103, &["restart udp with 1"]);
    node.servers.get_mut(&UDP).unwrap().started_at = at(103);
    node.tunnels.clear();
    let released = node.next_order(104).unwrap().0;
    assert_eq!(released, 118);
}

#[test]
fn a_server_whose_traffic_stays_is_kept_and_tried_again_after_ten_seconds() {
    let mut node = draining_server(change(true, true));
    node.drained.insert(ACCEPTED_SLOT, false);
    node.check(106, &[]);
    let orders = ["accept again udp", "undrain wrnu.2 deadline", "release 8"];
    node.check(107, &orders);
    node.set_phase(ACCEPTED_SLOT, Phase::Up);
    let again = node.next_order(108).unwrap();
    assert_eq!(again, (117, vec!["acquire 8".to_owned()]));
}

#[test]
fn a_server_that_a_node_comes_to_need_meanwhile_is_kept() {
    let mut node = draining_server(change(true, true));
    node.drained.insert(ACCEPTED_SLOT, false);
    let alternative = Route {
        installed: false,
        ..route(8, FIRST_SLOT)
    };
    node.routes = vec![route(8, ACCEPTED_SLOT), alternative];
    node.check(105, &[]);
    node.routes.pop();
    node.check(106, &[]);
    let orders = ["accept again udp", "undrain wrnu.2 only_route", "release 8"];
    node.check(107, &orders);
}

#[test]
fn a_tunnel_that_drains_for_a_revocation_is_not_taken_back_with_the_server() {
    let mut node = draining_server(change(true, true));
    let reason = CloseReason::Revoked;
    node.set_phase(ACCEPTED_SLOT, Phase::Draining { reason });
    node.check(107, &["accept again udp", "release 8"]);
}

#[test]
fn a_forced_server_restarts_although_traffic_stays() {
    let change = FilesChanged {
        force_after: Duration::from_secs(5),
        ..change(true, true)
    };
    let mut node = draining_server(change);
    node.drained.insert(ACCEPTED_SLOT, false);
    node.check(106, &[]);
    node.check(107, &["restart udp with 1"]);
}

#[test]
fn a_server_whose_clients_have_all_left_restarts_at_once() {
    let mut node = draining_server(change(true, true));
    node.tunnels.clear();
    node.servers.get_mut(&UDP).unwrap().slots.clear();
    node.check(101, &["restart udp with 0"]);
}

#[test]
fn a_server_that_is_not_run_any_more_is_not_waited_for() {
    let mut node = draining_server(change(true, true));
    node.servers.clear();
    node.check(101, &[]);
    node.tunnels.clear();
    node.check(102, &["release 8", "applied 5"]);
}

#[test]
fn a_server_that_is_the_only_route_to_a_node_is_tried_ever_more_rarely() {
    let tunnels = [(ACCEPTED_SLOT, 8), (FIRST_SLOT, 7)];
    let mut node = Node::new(change(true, false), &tunnels);
    node.routes = vec![route(7, FIRST_SLOT), route(8, ACCEPTED_SLOT)];
    for second in [100, 113, 136, 179, 262] {
        node.lock(&[7, 8], second);
        node.check(second, &["drain wrnu.2 renewed", "stop accepting udp"]);
        node.set_phase(ACCEPTED_SLOT, RENEWED);
        node.check(second + 1, &[]);
        node.check(second + 2, &[]);
        let orders = [
            "accept again udp",
            "undrain wrnu.2 only_route",
            "release 7,8",
        ];
        node.check(second + 3, &orders);
        node.set_phase(ACCEPTED_SLOT, Phase::Up);
    }
    assert_eq!(node.next_order(266).unwrap().0, 262 + 3 + 160);
}

#[test]
fn dialled_tunnels_do_not_wait_for_a_server_that_is_tried_later() {
    let tunnels = [(ACCEPTED_SLOT, 8), (FIRST_SLOT, 7)];
    let mut node = Node::new(change(true, true), &tunnels);
    let server = Attempted::Server(UDP);
    node.restart.attempts.note(server, at(159));
    let first = node.next_order(100).unwrap();
    assert_eq!(first, (160, vec!["acquire 7,8".to_owned()]));
    node.answer(true, &[7, 8], 160);
    node.check(161, &["drain wrn0 renewed"]);
}

#[test]
fn only_tunnels_that_are_up_are_drained_with_a_server() {
    let mut node = Node::new(change(true, true), &[(ACCEPTED_SLOT, 8)]);
    let connecting = Slot::Accepting(UDP, 3);
    node.open(connecting, 9);
    node.set_phase(connecting, Phase::Connecting);
    node.check(1_100, &["drain wrnu.2 renewed", "stop accepting udp"]);
}

#[test]
fn a_change_of_server_files_alone_leaves_dialled_tunnels_alone() {
    let mut node = Node::new(change(true, false), &[(FIRST_SLOT, 7)]);
    node.check(100, &["applied 5"]);
    assert!(node.restart.is_server_outdated(at(99)));
    assert!(!node.restart.is_server_outdated(at(100)));
    assert!(!node.restart.is_dial_outdated(at(99)));
}
