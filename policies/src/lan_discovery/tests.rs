//! Tests of the search for nodes on links.

use super::*;

const LINK: u32 = 2;

/// A message that came by IPv4 on that link.
fn on(link: u32) -> Arrival {
    Arrival {
        link,
        is_ipv4: true,
    }
}

fn prefix(number: u32) -> Prefix {
    Prefix::new(number, 16).unwrap()
}

fn at(seconds: u64) -> Uptime {
    Uptime::from_secs(1_000 + seconds)
}

fn node(number: u32) -> LanDiscovery {
    LanDiscovery::new(prefix(number), number.into())
}

/// The message that a node sends now.
fn message(from: &LanDiscovery, answer: Option<Answer>) -> LanMessage {
    LanMessage {
        sender: from.me,
        nonce: from.nonce(),
        answers: answer.map(|answer| answer.to),
        wants_answer: answer.is_none_or(|answer| answer.wants_answer),
        udp_port: 1194,
        tcp_port: 443,
        addresses: vec![IpAddr::from([192, 168, 1, 7])],
    }
}

/// Lets a node receive a message, and compares the verdict; returns the node's answer.
#[track_caller]
fn check(
    receiver: &mut LanDiscovery,
    second: u64,
    message: &LanMessage,
    expected: Verdict,
) -> Option<LanMessage> {
    let (verdict, answer) =
        receiver.receive(at(second), on(LINK), message, message.endpoints(|_| true));
    assert_eq!(verdict, expected);
    answer.map(|answer| self::message(receiver, Some(answer)))
}

#[test]
fn two_nodes_know_each_other_after_one_search_and_two_answers() {
    let (mut one, mut other) = (node(1), node(2));
    assert!(one.start_search(at(0)));
    let search = message(&one, None);
    let answer = check(&mut other, 0, &search, Verdict::Searched).unwrap();
    assert!(answer.wants_answer && other.nodes().is_empty());
    let last = check(&mut one, 0, &answer, Verdict::Believed).unwrap();
    assert!(!last.wants_answer);
    assert_eq!(check(&mut other, 0, &last, Verdict::Believed), None);
    for (node, peer) in [(&one, 2), (&other, 1)] {
        let known = &node.nodes()[&prefix(peer)];
        let endpoints: Vec<_> = known.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(endpoints, ["udp:192.168.1.7:1194", "tcp:192.168.1.7:443"]);
    }
    // A node that is known is not asked back.
    assert!(one.start_search(at(2)));
    let answer = check(&mut other, 2, &message(&one, None), Verdict::Searched).unwrap();
    assert!(!answer.wants_answer);
}

#[test]
fn a_nodes_first_two_addresses_on_the_link_are_dialled() {
    let message = LanMessage {
        tcp_port: 0,
        addresses: ["10.0.0.9", "192.168.1.7", "fd00::7", "fd00::8"]
            .map(|address| address.parse().unwrap())
            .to_vec(),
        ..message(&node(1), None)
    };
    let endpoints = message.endpoints(|address| address != IpAddr::from([10, 0, 0, 9]));
    let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(endpoints, ["udp:192.168.1.7:1194", "udp:[fd00::7]:1194"]);
}

#[test]
fn a_recorded_answer_is_believed_no_more_after_two_searches() {
    let (mut one, mut other) = (node(1), node(2));
    one.start_search(at(0));
    let answer = check(&mut other, 0, &message(&one, None), Verdict::Searched).unwrap();
    one.start_search(at(2));
    check(&mut one, 2, &answer, Verdict::Believed);
    one.start_search(at(6));
    assert_eq!(check(&mut one, 6, &answer, Verdict::Stale), None);
}

#[test]
fn a_copy_of_a_node_is_recognised_once_it_answers() {
    let (mut one, mut copy) = (node(1), LanDiscovery::new(prefix(1), 99));
    copy.start_search(at(0));
    let search = message(&copy, None);
    let answer = check(&mut one, 0, &search, Verdict::Searched).unwrap();
    assert!(answer.wants_answer);
    let last = check(&mut copy, 0, &answer, Verdict::OwnPrefix).unwrap();
    assert_eq!(check(&mut one, 0, &last, Verdict::OwnPrefix), None);
    assert!(one.nodes().is_empty() && copy.nodes().is_empty());
}

#[test]
fn recorded_messages_of_a_node_make_it_believe_in_no_copy() {
    let (mut one, mut other) = (node(1), node(2));
    one.start_search(at(0));
    let search = message(&one, None);
    let wish = check(&mut other, 0, &search, Verdict::Searched).unwrap();
    let answer = check(&mut one, 0, &wish, Verdict::Believed).unwrap();
    for second in [40, 80] {
        one.start_search(at(second));
    }
    // Nobody has another answer to the question than the node itself.
    let question = check(&mut one, 81, &search, Verdict::Searched).unwrap();
    assert_eq!(check(&mut one, 81, &question, Verdict::Own), None);
    assert_eq!(check(&mut one, 82, &search, Verdict::Searched), None);
    assert_eq!(check(&mut one, 82, &answer, Verdict::Stale), None);
}

#[test]
fn a_host_with_two_links_into_one_lan_is_no_copy_of_itself() {
    let mut one = node(1);
    one.start_search(at(0));
    let search = message(&one, None);
    one.start_search(at(1));
    assert_eq!(check(&mut one, 1, &search, Verdict::Own), None);
}

#[test]
fn a_node_keeps_its_endpoints_on_each_link_until_it_answers_there_no_more() {
    let (mut one, other) = (node(1), node(2));
    let hear = |one: &mut LanDiscovery, second, link: u32| {
        let answer = Answer {
            to: one.nonce(),
            wants_answer: false,
        };
        let message = LanMessage {
            addresses: vec![format!("192.168.{link}.7").parse().unwrap()],
            ..message(&other, Some(answer))
        };
        let endpoints = message.endpoints(|_| true);
        one.receive(at(second), on(link), &message, endpoints);
    };
    let endpoints = |one: &LanDiscovery| -> Vec<String> {
        let node = &one.nodes()[&prefix(2)];
        node.endpoints.iter().map(ToString::to_string).collect()
    };
    let both = [
        "udp:192.168.3.7:1194",
        "udp:192.168.4.7:1194",
        "tcp:192.168.3.7:443",
        "tcp:192.168.4.7:443",
    ];
    one.start_search(at(0));
    for (second, link) in [(0, 4), (0, 3), (1, 4), (1, 3), (1, 4)] {
        hear(&mut one, second, link);
    }
    assert_eq!(endpoints(&one), both);
    one.start_search(at(60));
    hear(&mut one, 60, 3);
    assert_eq!(endpoints(&one), both);
    one.start_search(at(120));
    assert_eq!(endpoints(&one), [both[0], both[2]]);
    hear(&mut one, 120, 4);
    one.on_links_changed(&[4]);
    assert_eq!(endpoints(&one), [both[1], both[3]]);
}

#[test]
fn searches_are_answered_at_a_limited_rate() {
    let mut one = node(1);
    let mut nonce = 0;
    let mut answered = |second| {
        let answers = (0..1_000).filter(|_| {
            nonce += 1;
            let search = LanMessage {
                nonce,
                ..message(&node(2), None)
            };
            let (_, answer) = one.receive(at(second), on(LINK), &search, Vec::new());
            answer.is_some()
        });
        answers.count()
    };
    assert_eq!([0, 0, 1, 100].map(&mut answered), [64, 0, 10, 64]);
}

#[test]
fn a_replayed_search_is_answered_once_by_each_link_and_family() {
    let mut one = node(1);
    let search = message(&node(2), None);
    let paths = [(2, true), (2, false), (3, true)];
    let mut answered = |second| {
        let answers = paths.into_iter().filter(|(link, is_ipv4)| {
            let arrival = Arrival {
                link: *link,
                is_ipv4: *is_ipv4,
            };
            let (_, answer) = one.receive(at(second), arrival, &search, Vec::new());
            answer.is_some()
        });
        answers.count()
    };
    assert_eq!([0, 0, 100].map(&mut answered), [3, 0, 0]);
}

#[test]
fn a_limited_number_of_nodes_is_remembered() {
    let mut one = node(1);
    one.start_search(at(0));
    for number in 2..1_000 {
        let answer = Answer {
            to: one.nonce(),
            wants_answer: false,
        };
        let answer = message(&node(number), Some(answer));
        one.receive(at(0), on(LINK), &answer, answer.endpoints(|_| true));
    }
    assert_eq!(one.nodes().len(), MAX_NODES);
}

/// The seconds at which a node that knows that many others searches, within ten minutes.
fn searches(known: u32) -> Vec<u64> {
    let mut one = node(1);
    let mut seconds = Vec::new();
    for second in 0..600 {
        if one.start_search(at(second)) {
            seconds.push(second);
            for number in 2..2 + known {
                let answer = Answer {
                    to: one.nonce(),
                    wants_answer: false,
                };
                let answer = message(&node(number), Some(answer));
                one.receive(at(second), on(LINK), &answer, Vec::new());
            }
        }
    }
    seconds
}

#[test]
fn searches_become_rarer_and_rarer_still_with_many_nodes() {
    let few = searches(3);
    assert!(few.starts_with(&[0, 2]), "{few:?}");
    assert!((17..=24).contains(&few.len()), "{few:?}");
    let many = searches(100);
    assert!((5..=7).contains(&many.len()), "{many:?}");
}

#[test]
fn a_node_is_forgotten_with_its_link_or_after_three_searches_without_an_answer() {
    let (mut one, other) = (node(1), node(2));
    let hear = |one: &mut LanDiscovery, second| {
        let answer = Answer {
            to: one.nonce(),
            wants_answer: false,
        };
        let answer = message(&other, Some(answer));
        check(one, second, &answer, Verdict::Believed);
    };
    one.start_search(at(0));
    hear(&mut one, 0);
    one.start_search(at(89));
    assert_eq!(one.nodes().len(), 1);
    one.start_search(at(130));
    assert_eq!(one.nodes().len(), 0);
    hear(&mut one, 130);
    one.on_links_changed(&[LINK, 7]);
    assert!(one.nodes().len() == 1 && one.start_search(at(130)));
    one.on_links_changed(&[7]);
    assert_eq!(one.nodes().len(), 0);
}
