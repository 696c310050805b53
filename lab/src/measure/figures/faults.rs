//! The ten faults during which figures are compared.

use super::{FigureRecord, observe};
use crate::{
    Lab, Options, PingSchedule,
    actor_panics::make_panic,
    faults::liar::{Announcement, Liar, network_of},
    node::Node,
    progress::progress,
    wait::pause,
};
use anyhow::Result;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{ops::Range, thread, time::Duration};
use wire::overlay;

/// Nodes of the network; the last one joins without running, and lies.
const NODES: usize = 6;
const RUNNING: usize = 5;
/// The part that is split off, and the node that all other faults hit.
const SPLIT_PART: Range<usize> = 0..2;
const HIT: usize = 0;
const VICTIM: usize = 2;
/// For how long figures are compared after each fault, and after its repair.
const FAULT_SPAN: Duration = Duration::from_secs(11);
const REPAIR_SPAN: Duration = Duration::from_secs(7);
/// Interval of the pings between all pairs.
const PING_INTERVAL: Duration = Duration::from_millis(100);
/// Rate of the slow line, and the share of packets that the bad one loses, in percent.
const SLOW_RATE: &str = "2mbit";
const LOSS_PERCENT: u8 = 5;
/// How often OpenVPN is killed.
const KILLS: usize = 5;
/// Datagrams that a server does not read in time.
const FLOOD: usize = 6_000;
/// How often the false route is announced, and the interval.
const LIES: u16 = 40;
const LIE_INTERVAL: Duration = Duration::from_millis(250);

/// Compares figures during each fault and after its repair.
pub(super) fn measure() -> Result<Vec<FigureRecord>> {
    let lab = Lab::build_joined(Options::with_nodes(NODES))?;
    lab.nodes().iter().take(RUNNING).try_for_each(Node::start)?;
    pause(REPAIR_SPAN);
    let _load = lab.start_pings(PingSchedule::Every(PING_INTERVAL))?;
    let mut records = Vec::new();
    let node = lab.node(HIT)?;
    let mut during =
        |fault: &'static str, inject: &dyn Fn() -> Result<()>, repair: &dyn Fn() -> Result<()>| {
            progress(fault);
            inject()?;
            let mut found = observe(&lab, fault, FAULT_SPAN)?;
            repair()?;
            let after = observe(&lab, fault, REPAIR_SPAN)?;
            for (record, after) in found.iter_mut().zip(after) {
                let longest = record.longest_difference_s.max(after.longest_difference_s);
                *record = FigureRecord {
                    longest_difference_s: longest,
                    ..after
                };
            }
            for record in found
                .iter()
                .filter(|record| record.longest_difference_s > 0.0)
            {
                let (metric, longest) = (record.metric, record.longest_difference_s);
                progress(format!(
                    "{metric}: differed for {longest} s, {:?}",
                    record.shown_and_true
                ));
            }
            records.extend(found);
            Ok::<(), anyhow::Error>(())
        };
    let nothing = || Ok(());
    during("split", &|| lab.split(SPLIT_PART), &|| {
        lab.join_parts(SPLIT_PART)
    })?;
    during("prefix theft", &|| start_lying(&lab), &nothing)?;
    during(
        "daemon killed",
        &|| {
            node.kill();
            Ok(())
        },
        &|| node.start(),
    )?;
    during(
        "OpenVPN killed five times",
        &|| node.kill_child_repeatedly("server-udp", KILLS),
        &nothing,
    )?;
    during("disconnected", &|| lab.split(HIT..HIT + 1), &|| {
        lab.join_parts(HIT..HIT + 1)
    })?;
    during("slow line", &|| node.slow_uplink(Some(SLOW_RATE)), &|| {
        node.slow_uplink(None)
    })?;
    during("5 % loss", &|| node.lose_packets(LOSS_PERCENT), &|| {
        node.lose_packets(0)
    })?;
    during(
        "telemetry panics",
        &|| make_panic(node, "telemetry"),
        &nothing,
    )?;
    during("babeld hangs", &|| stop_babeld(node), &nothing)?;
    during(
        "registry away",
        &|| {
            lab.stop_registry();
            Ok(())
        },
        &|| lab.start_registry(),
    )?;
    let other = lab.node(1)?;
    let address = lab.uplink_address(1);
    during(
        "server does not read",
        &|| other.overflow_server(node.namespace(), &address, FLOOD),
        &nothing,
    )?;
    Ok(records)
}

/// Lets the node that does not run announce the range of another one for ten seconds, while others go on.
fn start_lying(lab: &Lab) -> Result<()> {
    let liar = Liar::connect(lab, RUNNING, HIT)?;
    let announcement = Announcement {
        range: network_of(lab)?
            .node_range(lab.node(VICTIM)?.prefix()?.parse()?)
            .into(),
        router_id: overlay::router_id(liar.prefix()),
        metric: 0,
        seqno: 1,
    };
    thread::spawn(move || {
        for seqno in 0..LIES {
            // The tunnel is closed at the first lie, and the TAP stays.
            liar.announce(&[Announcement {
                seqno,
                ..announcement
            }])
            .ok();
            pause(LIE_INTERVAL);
        }
    });
    Ok(())
}

fn stop_babeld(node: &Node) -> Result<()> {
    let pid = node.wait_for_child("babeld", None)?;
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGSTOP)?;
    Ok(())
}
