//! Each fault of a healthy node leads to the finding of its kind, and to no other.

mod healthy_node;
mod host;
mod router;

use super::*;
use crate::{
    live_settings::LiveSettings,
    messages::{ActorRestarted, RegistryContacted, UnusedEndpoint},
};
use healthy_node::*;
use membership::documents::PrivateEndpointError;
use os::process::ProcessReading;
use policies::{
    names::Slot,
    observation::{Candidate, INFINITY, ProbeReading},
    parameters::Parameters,
    probe::{ProbePace, Probing},
};
use std::{collections::BTreeMap, sync::Arc};

/// The findings after a change of the healthy node, as `id: what was seen`.
#[track_caller]
fn check(change: impl Fn(&mut Snapshot), expected: &[&str]) {
    let mut node = healthy();
    change(&mut node);
    let shown = |finding: &Finding| format!("{}: {}", finding.id.label(), finding.seen);
    let health = assess(&node, NOW);
    let findings: Vec<_> = health.findings.iter().map(shown).collect();
    assert_eq!(findings, expected);
}

#[test]
fn a_healthy_node_has_no_finding() {
    check(|_| {}, &[]);
    assert!(assess(&healthy(), NOW).is_ready());
}

#[test]
fn a_disconnected_node_is_not_ready() {
    let mut node = healthy();
    for (seconds, is_ready) in [(8, true), (9, false)] {
        node.at = NOW + Duration::from_secs(seconds);
        node.read_times.routes = Some(node.at);
        assert_eq!(assess(&node, node.at).is_ready(), is_ready, "{seconds}");
    }
    let health = assess(&node, node.at);
    assert_eq!(
        health.findings[0].seen,
        "nothing was received by 1 tunnel for 9 s"
    );
    check(
        |node| node.on_links_sampled(no_links()),
        &["no_tunnel: no tunnel is up; of 1 peer known, dials to 0 failed"],
    );
    check(
        |node| {
            node.on_links_sampled(no_links());
            node.on_registry_contacted(contact(Some("no answer")));
        },
        &[
            "no_tunnel: no tunnel is up; of 1 peer known, dials to 0 failed",
            "registry_away: no answer; its last answer came 0 s ago",
        ],
    );
    check(
        |node| node.on_routes_read(routes(INFINITY)),
        &["no_route: babeld has no route to any node, with 1 tunnel up"],
    );
}

#[test]
fn a_node_whose_neighbours_do_not_answer_its_questions_is_not_ready() {
    let mut node = healthy();
    node.asked_at = Some(NOW + Duration::from_secs(3));
    for (milliseconds, is_ready) in [(3_200, true), (3_500, false)] {
        node.at = NOW + Duration::from_millis(milliseconds);
        node.read_times.routes = Some(node.at);
        assert_eq!(
            assess(&node, node.at).is_ready(),
            is_ready,
            "{milliseconds}"
        );
    }
    // A frame since the last question shows that the node is reached.
    node.asked_at = Some(Uptime::from_secs(3_599));
    assert!(assess(&node, node.at).is_ready());
}

#[test]
fn a_peer_that_may_be_metered_may_be_silent_for_longer() {
    let mut node = healthy();
    let leaf = Candidate {
        transit_cost: INFINITY,
        ..candidate(9)
    };
    node.peers = peers(vec![leaf], vec![]);
    node.at = NOW + Duration::from_secs(40);
    node.read_times.routes = Some(node.at);
    assert!(assess(&node, node.at).is_ready());
}

#[test]
fn the_first_node_waits_for_others_and_is_ready() {
    let alone = |node: &mut Snapshot| {
        node.on_links_sampled(no_links());
        node.peers = peers(vec![], vec![]);
        node.on_registry_contacted(RegistryContacted {
            listed_peers: Some(0),
            ..contact(None)
        });
    };
    check(
        alone,
        &["waiting_for_others: this is the only node of its network so far; it waits for others"],
    );
    let mut node = healthy();
    alone(&mut node);
    assert!(assess(&node, NOW).is_ready());
    node.on_registry_contacted(contact(Some("no answer")));
    assert!(!assess(&node, NOW).is_ready());
}

#[test]
fn babeld_and_the_servers_must_run() {
    let stopped = |name: &str, failure: Option<&str>| ProcessReading {
        pid: None,
        ready: false,
        failure: failure.map(str::to_owned),
        ..process(name, 1)
    };
    check(
        |node| {
            node.is_babel_answering = false;
            let babeld = stopped("babeld", Some("it exited with 1"));
            node.on_processes_read(processes(vec![babeld, process("server-udp", 1)]));
        },
        &["babeld_down: babeld does not run: it exited with 1"],
    );
    check(
        |node| node.is_babel_answering = false,
        &["babeld_down: babeld (pid 42) does not answer"],
    );
    check(
        |node| {
            let server = stopped("server-udp", Some("the port is taken"));
            node.on_processes_read(processes(vec![process("babeld", 1), server]));
        },
        &["server_down: server-udp does not run: the port is taken"],
    );
    check(
        |node| {
            for starts in 2..=4 {
                let server = process("server-udp", starts);
                node.on_processes_read(processes(vec![process("babeld", 1), server]));
            }
        },
        &["process_restarting: server-udp was restarted 3 times within 10 min 0 s"],
    );
}

#[test]
fn a_certificate_must_be_valid_and_renewed_in_time() {
    check(
        |node| node.certificate = expiring(3 * DAY_S),
        &[
            "certificate_expires: the certificate of this node expires in 3 d 0 h and was not renewed",
        ],
    );
    check(|node| node.certificate = expiring(8 * DAY_S), &[]);
    check(
        |node| node.certificate = expiring(0),
        &["certificate_expired: the certificate of this node expired 0 s ago"],
    );
    check(
        |node| {
            node.on_registry_contacted(RegistryContacted {
                is_certificate_rejected: true,
                ..contact(Some("certificate rejected"))
            });
        },
        &[
            "revoked: the registry rejects the certificate of this node: it is revoked, unknown or expired",
        ],
    );
}

#[test]
fn a_wrong_clock_is_reported_with_its_direction() {
    let offset = |seconds| {
        move |node: &mut Snapshot| {
            node.on_registry_contacted(RegistryContacted {
                clock_offset_s: Some(seconds),
                ..contact(None)
            });
        }
    };
    check(offset(-30), &[]);
    check(
        offset(90),
        &["clock_off: the clock of this host is 1 min 30 s behind the registry's"],
    );
    check(
        offset(-90),
        &["clock_off: the clock of this host is 1 min 30 s ahead of the registry's"],
    );
}

#[test]
fn the_endpoints_and_transports_are_judged() {
    check(
        |node| {
            node.on_links_sampled(links(NOW, "tcp:192.0.2.9:1194", 7));
        },
        &["udp_blocked: 1 dialled tunnel by TCP only, although the peers offer UDP, too"],
    );
    check(
        |node| node.reached.clear(),
        &["not_reached: no other node got through to the 1 endpoint of this one in 58 min 20 s"],
    );
    check(
        |node| node.own_endpoints = Arc::default(),
        &["no_endpoint: no endpoint is announced, so no other node can dial this one"],
    );
    check(
        |node| {
            let unused = UnusedEndpoint {
                peer: prefix(9),
                endpoint: "udp:192.168.7.7:1194".parse().unwrap(),
                reason: PrivateEndpointError::Elsewhere,
            };
            node.peers = peers(vec![], vec![unused]);
        },
        &[&format!(
            "private_endpoints_only: other nodes are known by private endpoints only: 9/16: {}",
            PrivateEndpointError::Elsewhere
        )],
    );
}

#[test]
fn a_node_without_a_tunnel_that_nobody_can_dial_is_degraded() {
    for (has_endpoint, id) in [
        (true, FindingId::NotReached),
        (false, FindingId::NoEndpoint),
    ] {
        for (has_tunnel, expected) in [(true, Severity::Information), (false, Severity::Degraded)] {
            let mut node = healthy();
            node.reached.clear();
            if !has_endpoint {
                node.own_endpoints = Arc::default();
            }
            if !has_tunnel {
                node.on_links_sampled(no_links());
            }
            let health = assess(&node, NOW);
            let finding = health.findings.iter().find(|finding| finding.id == id);
            assert_eq!(finding.map(|finding| finding.severity), Some(expected));
        }
    }
}

#[test]
fn a_tunnel_that_carries_small_packets_only_is_reported() {
    use policies::path_mtu::FullSize as F;
    let probed = |full_size| {
        move |node: &mut Snapshot| {
            let probing = Probing::new(ProbePace::new(&Parameters::default(), 0), NOW);
            let reading = probing.reading(Slot::Dialling(0), NOW);
            let probes = BTreeMap::from([(
                reading.slot,
                ProbeReading {
                    full_size,
                    ..reading
                },
            )]);
            node.probes = Arc::new(probes);
        }
    };
    for full_size in [F::Unknown, F::Carried, F::Fragmented] {
        check(probed(full_size), &[]);
    }
    check(
        probed(F::Lost),
        &["narrow_path: the path of 1 tunnel drops large packets and their fragments: 9/16"],
    );
}

#[test]
fn nodes_are_shown_by_name_and_prefix() {
    let names = membership::node_names::NodeNames::default();
    names.learn(prefix(9), "web".parse().ok(), 100);
    let failed = |number| Candidate {
        failures: 1,
        ..candidate(number)
    };
    let change = |node: &mut Snapshot| {
        node.names = names.load();
        node.on_links_sampled(no_links());
        node.peers = peers([9, 10, 11, 12].map(failed).into(), vec![]);
    };
    check(
        change,
        &[
            "no_tunnel: no tunnel is up; of 4 peers known, dials to 4 failed: web (9/16), 10/16, 11/16, …",
        ],
    );
}

#[test]
fn what_an_operator_may_want_to_know_leaves_the_node_healthy() {
    let settings = LiveSettings {
        pending_restart: vec!["listen".into(), "upnp".into()],
        mode: crate::live_settings::Mode::Watch,
        ..LiveSettings::default()
    };
    let change = |node: &mut Snapshot| {
        node.on_settings_changed(&settings);
        node.on_actor_restarted(&ActorRestarted { actor: "policy" });
    };
    check(
        change,
        &[
            "restart_pending: the new values of these keys need a restart: listen, upnp",
            "dry_run: decisions of the policy are logged and not carried out",
            "actor_restarted: parts of the daemon were restarted after a panic: policy",
        ],
    );
    let mut node = healthy();
    change(&mut node);
    assert_eq!(assess(&node, NOW).severity(), Severity::Information);
}

#[test]
fn old_figures_are_reported() {
    let health = assess(&healthy(), NOW + Duration::from_secs(11));
    let ids: Vec<_> = health.findings.iter().map(|finding| finding.id).collect();
    assert_eq!(ids, [FindingId::StaleTelemetry]);
}

#[test]
fn findings_are_listed_worst_first() {
    let severities: Vec<_> = FindingId::ALL.iter().map(|id| id.severity()).collect();
    assert!(severities.is_sorted());
}
