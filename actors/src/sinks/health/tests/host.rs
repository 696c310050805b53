//! Tests of the findings about what other programs do to the host.

use super::{ago, check};
use crate::{
    messages::{HostCompared, HostRepaired},
    sinks::telemetry::Snapshot,
};
use os::kernel::{Repair, RepairKind};
use policies::units::Uptime;
use std::sync::Arc;

#[test]
fn what_other_programs_do_to_the_host_is_reported() {
    let compared = |comparison: HostCompared| {
        move |node: &mut Snapshot| Arc::make_mut(&mut node.host).comparison = comparison.clone()
    };
    let diversion = Some("leave by wt0, by a route of table 7120".to_owned());
    check(
        compared(HostCompared {
            earlier_rules: vec![105, 110],
            diversion,
            ..HostCompared::default()
        }),
        &[
            "routes_diverted: packets to nodes that babeld has a route to leave by wt0, by a route of table 7120",
            "earlier_rules: routing rules of other programs are consulted first: 105, 110",
        ],
    );
    check(
        compared(HostCompared {
            ipv4_overlap: Some("10.0.0.0/8 overlaps 10.0.2.0/24 (eth0)".into()),
            is_transit_blocked: true,
            other_babel_uid: Some(0),
            failure: Some("cannot set forwarding".into()),
            ..HostCompared::default()
        }),
        &[
            "ipv4_overlap: this node has no IPv4 in the network: its range 10.0.0.0/8 overlaps 10.0.2.0/24 (eth0)",
            "transit_blocked: a firewall of this host drops packets that the node should forward for others, so it carries no transit traffic",
            "another_babeld: another program of user 0 shares babeld's UDP port 6696",
            "host_not_restored: cannot set forwarding",
        ],
    );
    let repaired = |at: Uptime| HostRepaired {
        at,
        repairs: vec![Repair {
            kind: RepairKind::Rule,
            object: "rule of priority 32000".into(),
        }],
    };
    check(|node| node.on_host_repaired(repaired(ago(1))), &[]);
    check(
        |node| {
            [601, 2, 1]
                .into_iter()
                .for_each(|s| node.on_host_repaired(repaired(ago(s))))
        },
        &[
            "host_changed: another program changed the node's part of this host 2 times within 10 min 0 s, at last: rule of priority 32000",
        ],
    );
}
