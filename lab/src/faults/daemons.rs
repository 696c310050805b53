//! Faults of a daemon that its children outlive: it is replaced while traffic flows, stands still, or one of its actors panics; and
//! children that hang.

use super::{Figure, Outcome};
use crate::{
    Lab, Options, PingSchedule,
    actor_panics::make_each_panic,
    measure::{
        hang,
        restart::{self, Losses},
    },
    ping_record::LOST_AFTER,
    pinger::all_pairs,
    progress::progress,
    wait::pause,
};
use anyhow::Result;
use std::time::Duration;

/// Nodes that are restarted in place, one after the other.
const RESTARTED: usize = 3;
/// Time for which a daemon stands still, in seconds.
const FREEZE_SECONDS: u64 = 60;
/// Promised time without a daemon during a restart in place.
const WITHOUT_DAEMON: Duration = Duration::from_secs(1);
/// Promised time until a daemon has noticed that a child hangs, and until the node is well again.
const HANG_NOTICED: Duration = Duration::from_secs(15);
const WELL_AGAIN: Duration = Duration::from_secs(30);
/// Promised time until an actor that panicked is restarted.
const ACTOR_RESTARTED: Duration = Duration::from_secs(5);
/// Time after the last panic in which the new actors have made their first readings.
const SETTLING_TIME: Duration = Duration::from_secs(10);

pub(super) fn run() -> Result<Vec<Outcome>> {
    let mut outcomes = restart_and_freeze()?;
    outcomes.push(hang_children()?);
    outcomes.push(panic_actors()?);
    Ok(outcomes)
}

/// The pings and packets of a stream that were lost beyond what as many lost while nothing happened: a busy machine drops some.
fn lost(quiet: Losses, losses: Losses) -> [Figure; 2] {
    let beyond = |[lost, sent]: [u64; 2], [quiet_lost, quiet_sent]: [u64; 2]| {
        let usual = quiet_lost.saturating_mul(sent) / quiet_sent.max(1);
        lost.saturating_sub(usual)
    };
    let pings = beyond(
        [losses.pings_lost, losses.pings_sent],
        [quiet.pings_lost, quiet.pings_sent],
    );
    let packets = beyond(
        [losses.packets_lost, losses.packets_sent],
        [quiet.packets_lost, quiet.packets_sent],
    );
    [
        Figure::count("pings lost", pings, 0),
        Figure::count("packets lost at 100 Mbit/s", packets, 0),
    ]
}

fn restart_and_freeze() -> Result<Vec<Outcome>> {
    progress("daemons are restarted in place, and one stands still");
    let found = restart::measure(RESTARTED, 1, FREEZE_SECONDS)?;
    let without = Duration::from_millis(found.milliseconds_without_daemon_max);
    let mut figures = lost(found.quiet, found.restarted).to_vec();
    let children_lost = u64::try_from(found.children_lost)?;
    figures.push(Figure::count("children lost", children_lost, 0));
    figures.push(Figure::time(
        "without a daemon",
        Some(without),
        WITHOUT_DAEMON,
    ));
    Ok(vec![
        Outcome {
            id: "restart-in-place",
            fault: "a daemon executes its program again, as for an upgrade, while 100 Mbit/s pass",
            tries: found.restarts,
            figures,
        },
        Outcome {
            id: "freeze-daemon",
            fault: "SIGSTOP of a daemon for 60 s while 100 Mbit/s pass",
            tries: 1,
            figures: lost(found.quiet, found.frozen).to_vec(),
        },
    ])
}

fn hang_children() -> Result<Outcome> {
    progress("babeld, both servers and a client of a node hang");
    let found = hang::measure()?;
    let seconds = |value: f64| Some(Duration::from_secs_f64(value));
    Ok(Outcome {
        id: "hung-child",
        fault: "SIGSTOP of babeld, of the UDP server, of the TCP server, and of a client",
        tries: found.children.len(),
        figures: vec![
            Figure::time("noticed", seconds(found.noticed_seconds_max), HANG_NOTICED),
            Figure::time(
                "node well again",
                seconds(found.well_seconds_max),
                WELL_AGAIN,
            ),
            Figure::count("pings lost by pairs of others", found.lost_elsewhere, 0),
        ],
    })
}

fn panic_actors() -> Result<Outcome> {
    let fault = "each actor of a daemon panics once";
    progress(fault);
    let lab = Lab::build_converged(Options::with_nodes(4))?;
    let pinger = lab.start_pings(PingSchedule::STEADY)?;
    let start = pinger.now();
    let (actors, longest) = make_each_panic(lab.node(0)?)?;
    pause(SETTLING_TIME);
    let end = pinger.now();
    pause(LOST_AFTER);
    let pings = pinger.summarize(start, end, all_pairs);
    Ok(Outcome {
        id: "actor-panics",
        fault,
        tries: actors,
        figures: vec![
            Figure::time("actor restarted", Some(longest), ACTOR_RESTARTED),
            Figure::count("pings lost", pings.lost, 0),
        ],
    })
}
