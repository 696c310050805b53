//! Tests of the findings about the router in front of the host.

use super::{NOW, check, healthy_node::healthy};
use crate::{
    messages::{
        EndpointSource, HolePunchesRead, LeasesRead, MissingLease, MissingReason, OwnEndpointsRead,
        PinholesRead,
    },
    sinks::{
        health::{FindingId, Severity, assess},
        telemetry::Snapshot,
    },
};
use policies::{
    hole_punching::{NatMapping, PunchResult},
    names::Prefix,
};
use std::sync::Arc;

/// Checks the severity of a missing port mapping of a node that announces this endpoint.
#[track_caller]
fn check_missing_mapping(
    endpoint: (&str, EndpointSource),
    reason: MissingReason,
    is_reached: bool,
    expected: Option<Severity>,
) {
    let mut node = healthy();
    if !is_reached {
        node.reached.clear();
    }
    let (endpoint, source) = (endpoint.0.parse().unwrap(), endpoint.1);
    node.own_endpoints = Arc::new(OwnEndpointsRead {
        endpoints: vec![(endpoint, source)],
    });
    node.leases = Arc::new(LeasesRead {
        at: NOW,
        leases: vec![],
        missing: Some(MissingLease {
            reason,
            text: "because".into(),
        }),
    });
    let health = assess(&node, NOW);
    let mut found = health.findings.iter();
    let found = found.find(|finding| finding.id == FindingId::PortMappingMissing);
    assert_eq!(found.map(|finding| finding.severity), expected);
    let seen = found.map(|finding| finding.seen.as_str());
    assert!(seen.is_none_or(|seen| seen == "the router maps no port to this host: because"));
}

#[test]
fn a_missing_port_mapping_is_reported_unless_the_node_can_be_reached_without_it() {
    use EndpointSource as S;
    use MissingReason as R;
    let lan = ("udp:192.168.7.2:1194", S::HostAddress);
    check_missing_mapping(lan, R::Rejected, true, Some(Severity::Degraded));
    check_missing_mapping(lan, R::CarrierNat, false, Some(Severity::Degraded));
    check_missing_mapping(lan, R::NoAnswer, false, Some(Severity::Degraded));
    check_missing_mapping(lan, R::NoAnswer, true, Some(Severity::Information));
    check_missing_mapping(lan, R::NoGateway, false, None);
    check_missing_mapping(lan, R::NotNeeded, false, None);
    let public = ("udp:45.67.0.1:1194", S::HostAddress);
    check_missing_mapping(public, R::Rejected, false, None);
    let forwarded = ("udp:45.67.0.1:1194", S::Configured);
    check_missing_mapping(forwarded, R::NoAnswer, false, None);
}

#[test]
fn a_router_that_does_not_open_its_firewall_is_reported_unless_it_has_none() {
    let missing = |reason| {
        Arc::new(PinholesRead {
            pinholes: vec![],
            missing: Some(MissingLease {
                reason,
                text: "because".into(),
            }),
        })
    };
    let seen = "ipv6_firewall_closed: the router opens its firewall for no IPv6 endpoint of this node: because";
    check(
        |node| node.pinholes = missing(MissingReason::Rejected),
        &[seen],
    );
    check(
        |node| node.pinholes = missing(MissingReason::NotNeeded),
        &[],
    );
    for (is_reached, expected) in [(true, Severity::Information), (false, Severity::Degraded)] {
        let mut node = healthy();
        node.pinholes = missing(MissingReason::Rejected);
        if !is_reached {
            node.reached.clear();
        }
        assert_eq!(assess(&node, NOW).severity(), expected);
    }
}

#[test]
fn a_symmetric_nat_is_reported_with_the_nodes_that_it_keeps_away_unless_others_reach_this_one() {
    let change = |mapping, is_reached: bool| {
        move |node: &mut Snapshot| {
            node.hole_punches = Arc::new(HolePunchesRead {
                mapping,
                results: [
                    (
                        Prefix::new(8, 16).unwrap(),
                        PunchResult::EndpointDependentNat,
                    ),
                    (Prefix::new(9, 16).unwrap(), PunchResult::Declined),
                ]
                .into(),
                ..HolePunchesRead::default()
            });
            if !is_reached {
                node.reached.clear();
            }
        }
    };
    let seen = "endpoint_dependent_nat: the NAT in front of this host maps each destination to another port (symmetric); hole punching failed with 1 node: 8/16";
    let not_reached =
        "not_reached: no other node got through to the 1 endpoint of this one in 58 min 20 s";
    check(
        change(NatMapping::EndpointDependent, false),
        &[not_reached, seen],
    );
    check(change(NatMapping::EndpointDependent, true), &[]);
    check(
        change(NatMapping::EndpointIndependent, false),
        &[not_reached],
    );
}
