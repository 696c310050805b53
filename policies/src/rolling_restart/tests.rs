//! Each transition of a rolling restart, and its deadlines.

use super::*;

const FIRST: Slot = Slot::Dialling(0);
const SECOND: Slot = Slot::Dialling(1);
const ACCEPTED: Slot = Slot::Accepting(Transport::Udp, 2);
const UDP: Transport = Transport::Udp;
const RENEWED: Phase = Phase::Draining {
    reason: CloseReason::Renewed,
};
/// When the files change in all tests.
const CHANGED: u64 = 100;

fn node(number: u32) -> Prefix {
    Prefix::new(number, 16).unwrap()
}

fn nodes(numbers: &[u32]) -> BTreeSet<Prefix> {
    numbers.iter().copied().map(node).collect()
}

fn at(second: u64) -> Uptime {
    Uptime::from_secs(second)
}

fn change(servers: bool, dials: bool) -> FilesChanged {
    FilesChanged {
        at: at(CHANGED),
        network_version: 5,
        servers,
        dials,
        start_after: Duration::ZERO,
        force_after: Duration::from_secs(1_000),
    }
}

/// Node 1 with what a step sees of it.
struct Node {
    restart: RollingRestart,
    tunnels: BTreeMap<Slot, TunnelReading>,
    dials: BTreeMap<Slot, Uptime>,
    servers: BTreeMap<Transport, ServerReading>,
    routes: Vec<Route>,
    drained: BTreeMap<Slot, bool>,
    lock_holder: Option<Prefix>,
}

impl Node {
    /// These tunnels are up with old files; accepted ones belong to a server by UDP.
    fn new(change: FilesChanged, tunnels: &[(Slot, u32)]) -> Self {
        let mut node = Self {
            restart: RollingRestart::default(),
            tunnels: BTreeMap::new(),
            dials: BTreeMap::new(),
            servers: BTreeMap::new(),
            routes: Vec::new(),
            drained: BTreeMap::new(),
            lock_holder: None,
        };
        node.restart.on_files_changed(&change);
        for (slot, peer) in tunnels {
            node.open(*slot, *peer);
        }
        node
    }

    fn open(&mut self, slot: Slot, peer: u32) {
        let started_at = at(1);
        let tunnel = TunnelReading {
            slot,
            peer: node(peer),
            phase: Phase::Up,
            since: at(2),
            up_since: Some(at(2)),
            endpoint: None,
        };
        self.tunnels.insert(slot, tunnel);
        match slot {
            Slot::Dialling(_) => {
                self.dials.insert(slot, started_at);
            }
            Slot::Accepting(transport, _) => {
                let slots = BTreeSet::new();
                let server = ServerReading { started_at, slots };
                let server = self.servers.entry(transport).or_insert(server);
                server.slots.insert(slot);
            }
        }
    }

    /// A server without clients.
    fn with_idle_server(mut self) -> Self {
        let slots = BTreeSet::new();
        let started_at = at(1);
        self.servers
            .insert(UDP, ServerReading { started_at, slots });
        self
    }

    fn set_phase(&mut self, slot: Slot, phase: Phase) {
        self.tunnels.get_mut(&slot).unwrap().phase = phase;
    }

    /// The tunnel has closed, and another one with new files stands in its place.
    fn redial(&mut self, slot: Slot, second: u64) {
        self.dials.insert(slot, at(second));
        self.set_phase(slot, Phase::Up);
    }

    fn step(&mut self, second: u64) -> Vec<RestartOrder> {
        let seen = RestartObservation {
            now: at(second),
            me: node(1),
            tunnels: &self.tunnels,
            dials: &self.dials,
            servers: &self.servers,
            routes: Some(&self.routes),
            drained: &self.drained,
            lock_holder: self.lock_holder,
        };
        self.restart.step(&seen)
    }

    fn answer(&mut self, granted: bool, neighbours: &[u32], second: u64) {
        let mut rng = Rng::new(1);
        self.restart
            .on_lock_answer(granted, nodes(neighbours), at(second), &mut rng);
    }

    /// What a step orders, in short.
    #[track_caller]
    fn check(&mut self, second: u64, expected: &[&str]) {
        let orders: Vec<_> = self.step(second).iter().map(short).collect();
        assert_eq!(orders, expected, "second {second}");
    }

    /// The first second from `from` on in which something is ordered.
    fn next_order(&mut self, from: u64) -> Option<(u64, Vec<String>)> {
        (from..from + 2_000).find_map(|second| {
            let orders: Vec<_> = self.step(second).iter().map(short).collect();
            (!orders.is_empty()).then_some((second, orders))
        })
    }

    /// Requests the locks of these neighbours at that second, and gets them.
    #[track_caller]
    fn lock(&mut self, neighbours: &[u32], second: u64) {
        let expected = RestartOrder::AcquireLocks {
            neighbours: nodes(neighbours),
        };
        assert_eq!(self.step(second), [expected]);
        self.answer(true, neighbours, second);
    }
}

fn short(order: &RestartOrder) -> String {
    let list = |nodes: &BTreeSet<Prefix>| {
        let numbers: Vec<_> = nodes.iter().map(|node| node.number().to_string()).collect();
        numbers.join(",")
    };
    match order {
        RestartOrder::AcquireLocks { neighbours } => format!("acquire {}", list(neighbours)),
        RestartOrder::ReleaseLocks { neighbours } => format!("release {}", list(neighbours)),
        RestartOrder::Tunnel(decision) => {
            let order = &decision.order;
            format!(
                "{} {} {}",
                order.label(),
                order.slot(),
                order.reason_label()
            )
        }
        RestartOrder::StopAccepting { transport } => format!("stop accepting {transport}"),
        RestartOrder::AcceptAgain { transport } => format!("accept again {transport}"),
        RestartOrder::RestartServer {
            transport,
            closings,
            ..
        } => format!("restart {transport} with {}", closings.len()),
        RestartOrder::ReportPostponed { transport, node } => {
            format!("postponed {transport} for {node}")
        }
        RestartOrder::ReportApplied { network_version } => format!("applied {network_version}"),
    }
}

fn route(number: u32, slot: Slot) -> Route {
    Route {
        node: node(number),
        slot,
        via: node(number),
        installed: true,
        metric: 96,
        refmetric: 0,
    }
}

#[test]
fn a_node_whose_processes_all_run_with_the_present_files_reports_the_version() {
    let mut node = Node::new(change(false, false), &[(FIRST, 7), (ACCEPTED, 8)]);
    node.check(100, &["applied 5"]);
    node.check(101, &["applied 5"]);
}

#[test]
fn a_dialled_tunnel_is_drained_once_all_locks_are_held() {
    let mut node = Node::new(change(true, true), &[(FIRST, 7), (SECOND, 8)]);
    node.check(100, &["acquire 7,8"]);
    node.check(101, &[]);
    node.answer(true, &[7, 8], 101);
    node.check(102, &["drain wrn0 renewed"]);
    node.set_phase(FIRST, RENEWED);
    node.check(103, &[]);
}

#[test]
fn locks_are_released_when_all_tunnels_have_been_up_again_for_three_seconds() {
    let mut node = Node::new(change(true, true), &[(FIRST, 7)]);
    node.lock(&[7], 100);
    node.check(101, &["drain wrn0 renewed"]);
    node.set_phase(FIRST, RENEWED);
    node.check(102, &[]);
    node.tunnels.remove(&FIRST);
    node.check(104, &[]);
    node.open(FIRST, 7);
    node.redial(FIRST, 105);
    node.set_phase(FIRST, Phase::Connecting);
    node.check(105, &[]);
    node.set_phase(FIRST, Phase::Up);
    node.check(106, &[]);
    node.check(108, &[]);
    node.check(109, &["release 7", "applied 5"]);
}

#[test]
fn the_settling_begins_anew_when_a_tunnel_goes_down_meanwhile() {
    let mut node = Node::new(change(true, true), &[(FIRST, 7), (SECOND, 8)]);
    node.dials.insert(SECOND, at(CHANGED));
    node.lock(&[7, 8], 100);
    node.check(101, &["drain wrn0 renewed"]);
    node.redial(FIRST, 102);
    node.check(102, &[]);
    node.set_phase(SECOND, Phase::Connecting);
    node.check(104, &[]);
    node.set_phase(SECOND, Phase::Up);
    node.check(105, &[]);
    node.check(107, &[]);
    node.check(108, &["release 7,8", "applied 5"]);
}

#[test]
fn a_peer_that_does_not_come_back_is_waited_for_until_the_deadline() {
    let mut node = Node::new(change(true, true), &[(FIRST, 7), (SECOND, 8)]);
    node.dials.insert(SECOND, at(CHANGED));
    node.lock(&[7, 8], 100);
    node.check(101, &["drain wrn0 renewed"]);
    node.tunnels.remove(&FIRST);
    node.dials.remove(&FIRST);
    // The longest drain, and the longest wait for peers.
    let released = node.next_order(102).unwrap();
    let orders = ["release 7,8", "applied 5"].map(str::to_owned).to_vec();
    assert_eq!(released, (101 + 20 + 15, orders));
}

#[test]
fn the_next_process_follows_after_a_pause() {
    let mut node = Node::new(change(true, true), &[(FIRST, 7), (SECOND, 8)]);
    node.lock(&[7, 8], 100);
    node.check(100, &["drain wrn0 renewed"]);
    node.redial(FIRST, 101);
    node.check(101, &[]);
    node.check(104, &["release 7,8"]);
    node.check(106, &[]);
    node.lock(&[7, 8], 107);
    node.check(107, &["drain wrn1 renewed"]);
}

#[test]
fn a_tunnel_whose_drain_was_given_up_is_tried_again_after_half_a_minute() {
    let mut node = Node::new(change(true, true), &[(FIRST, 7)]);
    node.lock(&[7], 100);
    node.check(100, &["drain wrn0 renewed"]);
    node.set_phase(FIRST, RENEWED);
    node.check(110, &[]);
    // The planner has given it up.
    node.set_phase(FIRST, Phase::Up);
    node.check(111, &[]);
    node.check(114, &["release 7"]);
    let again = node.next_order(115).unwrap();
    assert_eq!(again, (130, vec!["acquire 7".to_owned()]));
}

#[test]
fn locks_that_nothing_can_be_restarted_with_are_released() {
    let mut node = Node::new(change(true, true), &[(FIRST, 7)]);
    node.check(100, &["acquire 7"]);
    node.restart.attempts.insert(FIRST, at(100));
    node.answer(true, &[7], 101);
    node.check(101, &["release 7"]);
}

#[test]
fn rejected_locks_are_requested_again_after_one_to_three_seconds() {
    for seed in 0..50 {
        let mut node = Node::new(change(true, true), &[(FIRST, 7)]);
        node.check(100, &["acquire 7"]);
        let mut rng = Rng::new(seed);
        node.restart
            .on_lock_answer(false, nodes(&[7]), at(100), &mut rng);
        let pause = node.restart.paused_until.since(at(100));
        let range = Duration::from_secs(1)..=Duration::from_secs(3);
        assert!(range.contains(&pause), "{pause:?}");
        node.check(100, &[]);
        node.check(103, &["acquire 7"]);
    }
}

#[test]
fn a_request_without_an_answer_is_repeated_after_thirty_seconds() {
    let mut node = Node::new(change(true, true), &[(FIRST, 7)]);
    node.check(100, &["acquire 7"]);
    node.check(129, &[]);
    node.check(130, &["acquire 7"]);
}

#[test]
fn a_late_answer_to_a_lock_request_does_not_disturb_a_restart_under_way() {
    let mut node = Node::new(change(true, true), &[(FIRST, 7)]);
    node.lock(&[7], 100);
    node.check(100, &["drain wrn0 renewed"]);
    let settling = node.restart.locks.clone();
    node.answer(false, &[7], 101);
    assert_eq!(node.restart.locks, settling);
    node.answer(true, &[7], 101);
    assert_eq!(node.restart.locks, settling);
}

#[test]
fn no_locks_are_requested_while_a_neighbour_holds_ours() {
    let mut node = Node::new(change(true, true), &[(FIRST, 7)]);
    node.lock_holder = Some(self::node(7));
    node.check(100, &[]);
    node.lock_holder = Some(self::node(1));
    node.check(101, &["acquire 7"]);
}

#[test]
fn nothing_begins_while_a_tunnel_is_not_up() {
    for phase in [Phase::Connecting, RENEWED, Phase::Closing] {
        let mut node = Node::new(change(true, true), &[(FIRST, 7), (SECOND, 8)]);
        node.set_phase(SECOND, phase);
        node.check(100, &[]);
        node.set_phase(SECOND, Phase::Up);
        node.check(101, &["acquire 7,8"]);
    }
}

#[test]
fn nothing_begins_before_this_nodes_own_start() {
    let change = FilesChanged {
        start_after: Duration::from_secs(50),
        ..change(true, true)
    };
    let mut node = Node::new(change, &[(FIRST, 7)]);
    let first = node.next_order(100).unwrap();
    assert_eq!(first, (150, vec!["acquire 7".to_owned()]));
}

#[test]
fn a_forced_restart_closes_a_dialled_tunnel_without_drain_and_without_locks() {
    let mut node = Node::new(change(true, true), &[(FIRST, 7), (SECOND, 8)]);
    node.lock_holder = Some(self::node(7));
    node.set_phase(SECOND, Phase::Connecting);
    let first = node.next_order(100).unwrap();
    assert_eq!(first, (1_100, vec!["close wrn0 renewed".to_owned()]));
    node.set_phase(FIRST, Phase::Closing);
    node.check(1_102, &[]);
    node.check(1_103, &["close wrn1 renewed"]);
}

#[test]
fn a_server_restarts_before_dialled_tunnels() {
    let mut node = Node::new(change(true, true), &[(FIRST, 7), (ACCEPTED, 8)]);
    node.lock(&[7, 8], 100);
    node.check(100, &["drain wrnu.2 renewed", "stop accepting udp"]);
}

#[test]
fn a_server_without_tunnels_restarts_at_once_and_without_locks() {
    let mut node = Node::new(change(true, true), &[(FIRST, 7)]).with_idle_server();
    node.lock_holder = Some(self::node(7));
    node.check(100, &["stop accepting udp"]);
    node.check(100, &["restart udp with 0"]);
    node.servers.get_mut(&UDP).unwrap().started_at = at(100);
    node.lock_holder = None;
    node.check(102, &[]);
    node.check(103, &["acquire 7"]);
}

/// A server that has been draining since second 100.
fn draining_server(change: FilesChanged) -> Node {
    let mut node = Node::new(change, &[(ACCEPTED, 8)]);
    node.lock(&[8], 100);
    node.check(100, &["drain wrnu.2 renewed", "stop accepting udp"]);
    node.set_phase(ACCEPTED, RENEWED);
    node
}

#[test]
fn a_drained_server_restarts_no_earlier_than_after_three_seconds() {
    let mut node = draining_server(change(true, true));
    node.drained.insert(ACCEPTED, true);
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
    let (slot, reason) = (ACCEPTED, CloseReason::Renewed);
    assert_eq!(orders, [Order::Close { slot, reason }]);
}

#[test]
fn locks_are_released_once_the_clients_of_a_restarted_server_are_back() {
    let mut node = draining_server(change(true, true));
    node.drained.insert(ACCEPTED, true);
    node.check(103, &["restart udp with 1"]);
    node.servers.get_mut(&UDP).unwrap().started_at = at(103);
    let tunnel = node.tunnels.remove(&ACCEPTED).unwrap();
    node.check(107, &[]);
    node.tunnels.insert(ACCEPTED, tunnel);
    node.set_phase(ACCEPTED, Phase::Up);
    node.check(108, &[]);
    node.check(111, &["release 8", "applied 5"]);
}

#[test]
fn clients_that_do_not_come_back_are_waited_for_fifteen_seconds() {
    let mut node = draining_server(change(true, true));
    node.drained.insert(ACCEPTED, true);
    node.check(103, &["restart udp with 1"]);
    node.servers.get_mut(&UDP).unwrap().started_at = at(103);
    node.tunnels.clear();
    let released = node.next_order(104).unwrap().0;
    assert_eq!(released, 118);
}

#[test]
fn a_server_whose_traffic_stays_is_kept_and_tried_again_after_half_a_minute() {
    let mut node = draining_server(change(true, true));
    node.drained.insert(ACCEPTED, false);
    node.check(119, &[]);
    let orders = ["accept again udp", "undrain wrnu.2 deadline", "release 8"];
    node.check(120, &orders);
    node.set_phase(ACCEPTED, Phase::Up);
    let again = node.next_order(121).unwrap();
    assert_eq!(again, (150, vec!["acquire 8".to_owned()]));
}

#[test]
fn a_tunnel_that_drains_for_a_revocation_is_not_taken_back_with_the_server() {
    let mut node = draining_server(change(true, true));
    let reason = CloseReason::Revoked;
    node.set_phase(ACCEPTED, Phase::Draining { reason });
    node.check(120, &["accept again udp", "release 8"]);
}

#[test]
fn a_forced_server_restarts_although_traffic_stays() {
    let change = FilesChanged {
        force_after: Duration::from_secs(10),
        ..change(true, true)
    };
    let mut node = draining_server(change);
    node.drained.insert(ACCEPTED, false);
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
    let mut node = Node::new(change(true, true), &[(ACCEPTED, 8), (FIRST, 7)]);
    node.dials.insert(FIRST, at(CHANGED));
    node.routes = vec![route(7, FIRST), route(8, ACCEPTED)];
    node.lock(&[7, 8], 100);
    node.check(100, &["postponed udp for 8/16", "release 7,8"]);
    node.check(129, &[]);
    node.lock(&[7, 8], 130);
    node.check(130, &["postponed udp for 8/16", "release 7,8"]);
    node.check(1_100, &["drain wrnu.2 renewed", "stop accepting udp"]);
}

#[test]
fn a_server_is_not_the_only_route_where_a_dialled_tunnel_leads_there_too() {
    let mut node = Node::new(change(true, true), &[(ACCEPTED, 8), (FIRST, 7)]);
    let other = Route {
        installed: false,
        ..route(8, FIRST)
    };
    node.routes = vec![route(8, ACCEPTED), other];
    node.lock(&[7, 8], 100);
    node.check(100, &["drain wrnu.2 renewed", "stop accepting udp"]);
}

#[test]
fn only_tunnels_that_are_up_are_drained_with_a_server() {
    let mut node = Node::new(change(true, true), &[(ACCEPTED, 8)]);
    let other = Slot::Accepting(UDP, 3);
    node.open(other, 9);
    node.set_phase(other, Phase::Connecting);
    node.check(1_100, &["drain wrnu.2 renewed", "stop accepting udp"]);
}

#[test]
fn new_files_meanwhile_restart_the_same_process_again_without_waiting() {
    let mut node = Node::new(change(true, true), &[(FIRST, 7)]);
    node.lock(&[7], 100);
    node.check(100, &["drain wrn0 renewed"]);
    node.restart.on_files_changed(&FilesChanged {
        at: at(110),
        network_version: 6,
        ..change(false, true)
    });
    node.redial(FIRST, 105);
    node.check(110, &[]);
    node.check(113, &["release 7"]);
    node.lock(&[7], 116);
    node.check(116, &["drain wrn0 renewed"]);
}

#[test]
fn a_change_of_server_files_alone_leaves_dialled_tunnels_alone() {
    let mut node = Node::new(change(true, false), &[(FIRST, 7)]);
    node.check(100, &["applied 5"]);
    assert!(node.restart.is_server_outdated(at(99)));
    assert!(!node.restart.is_server_outdated(at(100)));
    assert!(!node.restart.is_dial_outdated(at(99)));
}

#[test]
fn each_tunnel_order_says_why_in_plain_words() {
    let mut node = Node::new(change(true, true), &[(FIRST, 7)]);
    node.lock(&[7], 100);
    for order in node.step(100) {
        if let RestartOrder::Tunnel(decision) = order {
            let terms =
                "OpenVPN runs with old certificates or keys and has to restart; running_for=99 s";
            assert_eq!(decision.terms, terms);
        }
    }
}
