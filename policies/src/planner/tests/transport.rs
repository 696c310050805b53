//! Small observations, each made to show one rule about tunnels by TCP.

use super::fixtures::{DIAL, candidate, link, observation, orders_but_dials, peer, planner, route};
use crate::{
    observation::{CandidateRtt, LinkReading, Observation, Phase, Route},
    orders::{CloseReason, Order},
    units::Uptime,
};
use std::time::Duration;

const BY_TCP: &str = "tcp:192.0.2.1:1194";

fn up(slot: usize, number: u32, endpoint: &str) -> LinkReading {
    let mut link = link(DIAL[slot], number, Phase::Up, 5);
    link.tunnel.endpoint = Some(endpoint.parse().unwrap());
    link
}

/// An observation of two tunnels to peers that are reached by either, the first of which was probed by UDP at `probed`.
fn probed(endpoint: &str, probed: u64, answered: bool) -> Observation {
    let links = vec![up(0, 30, endpoint), up(1, 31, BY_TCP)];
    let candidates = vec![candidate(30, Some(1)), candidate(31, Some(1))];
    let other_way = |number: u32, slot, via: u32| Route {
        via: peer(via),
        ..route(number, slot, false)
    };
    let routes = vec![
        route(30, DIAL[0], true),
        route(31, DIAL[1], true),
        other_way(30, DIAL[1], 31),
        other_way(31, DIAL[0], 30),
    ];
    let measured = CandidateRtt {
        peer: peer(30),
        at: Uptime::from_secs(probed),
        rtt: answered.then_some(Duration::from_millis(3)),
    };
    Observation {
        candidate_rtts: vec![measured],
        ..observation(20, links, routes, candidates)
    }
}

#[test]
fn a_tunnel_by_tcp_is_closed_once_its_peer_answers_by_udp() {
    let expected = Order::Drain {
        slot: DIAL[0],
        reason: CloseReason::UdpAnswers,
    };
    let answered = probed(BY_TCP, 10, true);
    assert_eq!(
        orders_but_dials(&mut planner(1, &[]), &answered),
        [expected]
    );
    // Pinned, silent, answered before the tunnel came up, and by UDP already.
    assert_eq!(orders_but_dials(&mut planner(1, &[30]), &answered), []);
    for kept in [
        probed(BY_TCP, 10, false),
        probed(BY_TCP, 4, true),
        probed("udp:192.0.2.1:1194", 10, true),
    ] {
        assert_eq!(orders_but_dials(&mut planner(1, &[]), &kept), []);
    }
}

#[test]
fn a_tunnel_by_tcp_stays_while_it_is_the_only_route() {
    let mut alone = probed(BY_TCP, 10, true);
    let mut table = (*alone.babel.unwrap()).clone();
    table.routes.retain(|route| route.installed);
    alone.babel = Some(table.into());
    assert_eq!(orders_but_dials(&mut planner(1, &[]), &alone), []);
}
