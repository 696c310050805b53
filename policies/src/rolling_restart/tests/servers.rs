//! Servers: drained with all their tunnels, restarted, or kept for now.

use super::*;

#[test]
fn a_server_restarts_before_dialled_tunnels() {
    let mut node = Node::new(change(true, true), &[(FIRST_SLOT, 7), (ACCEPTED_SLOT, 8)]);
    node.lock(&[7, 8], 100);
    node.check(100, &["drain wrnu.2 renewed", "stop accepting udp"]);
}

#[test]
fn a_server_without_tunnels_restarts_at_once_and_without_locks() {
    let mut node = Node::new(change(true, true), &[(FIRST_SLOT, 7)]).with_idle_server();
    node.lock_holder = Some(super::node(7));
    node.check(100, &["stop accepting udp"]);
    node.check(100, &["restart udp with 0"]);
    node.servers.get_mut(&UDP).unwrap().started_at = at(100);
    node.lock_holder = None;
    node.check(102, &[]);
    node.check(103, &["acquire 7"]);
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
fn a_server_whose_traffic_stays_is_kept_and_tried_again_after_half_a_minute() {
    let mut node = draining_server(change(true, true));
    node.drained.insert(ACCEPTED_SLOT, false);
    node.check(119, &[]);
    let orders = ["accept again udp", "undrain wrnu.2 deadline", "release 8"];
    node.check(120, &orders);
    node.set_phase(ACCEPTED_SLOT, Phase::Up);
    let again = node.next_order(121).unwrap();
    assert_eq!(again, (150, vec!["acquire 8".to_owned()]));
}

#[test]
fn a_tunnel_that_drains_for_a_revocation_is_not_taken_back_with_the_server() {
    let mut node = draining_server(change(true, true));
    let reason = CloseReason::Revoked;
    node.set_phase(ACCEPTED_SLOT, Phase::Draining { reason });
    node.check(120, &["accept again udp", "release 8"]);
}

#[test]
fn a_forced_server_restarts_although_traffic_stays() {
    let change = FilesChanged {
        force_after: Duration::from_secs(10),
        ..change(true, true)
    };
    let mut node = draining_server(change);
    node.drained.insert(ACCEPTED_SLOT, false);
    node.check(119, &[]);
    node.check(120, &["restart udp with 1"]);
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
fn a_server_that_is_the_only_route_to_a_node_waits_until_the_restart_is_forced() {
    let mut node = Node::new(change(true, true), &[(ACCEPTED_SLOT, 8), (FIRST_SLOT, 7)]);
    node.dials.insert(FIRST_SLOT, at(CHANGED));
    node.routes = vec![route(7, FIRST_SLOT), route(8, ACCEPTED_SLOT)];
    node.lock(&[7, 8], 100);
    node.check(100, &["postponed udp for 8/16", "release 7,8"]);
    node.check(129, &[]);
    node.lock(&[7, 8], 130);
    node.check(130, &["postponed udp for 8/16", "release 7,8"]);
    node.check(1_100, &["drain wrnu.2 renewed", "stop accepting udp"]);
}

#[test]
fn a_server_is_not_the_only_route_where_a_dialled_tunnel_leads_there_too() {
    let mut node = Node::new(change(true, true), &[(ACCEPTED_SLOT, 8), (FIRST_SLOT, 7)]);
    let alternative = Route {
        installed: false,
        ..route(8, FIRST_SLOT)
    };
    node.routes = vec![route(8, ACCEPTED_SLOT), alternative];
    node.lock(&[7, 8], 100);
    node.check(100, &["drain wrnu.2 renewed", "stop accepting udp"]);
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
