//! A member announces ranges that are not its own: how soon it is seen and disconnected, and what the others lose.

use super::{
    Figure, Outcome,
    liar::{Announcement, Liar},
    square::{LogWatch, NEIGHBOUR, RUNNING, Square, VICTIM},
};
use crate::{ip, progress::progress, wait::pause};
use anyhow::{Context, Result, ensure};
use ipnet::{IpNet, Ipv6Net};
use policies::names::Prefix;
use std::time::Duration;
use wire::overlay;

/// Promised time from the first lie until a daemon logs it.
const SEEN: Duration = Duration::from_secs(2);
/// Promised time from the first lie until the liar has no tunnel.
const DISCONNECTED: Duration = Duration::from_secs(5);
/// Promised time from the first lie until no ping is lost.
const RECOVERED: Duration = Duration::from_secs(10);
/// Pings that may be lost from the first lie to the end, in percent of all.
const MAX_LOST_PERCENT: f64 = 1.0;
/// Time for which the liar repeats its lie.
const LIE_SPAN: Duration = Duration::from_secs(9);
/// Time from the first lie in which pings are counted.
const OBSERVATION: Duration = Duration::from_secs(12);
/// Time after the last lie in which an honest node could still lose a tunnel for what it forwarded.
const AFTERMATH: Duration = Duration::from_secs(20);
/// Interval between two lies.
const LIE_INTERVAL: Duration = Duration::from_millis(250);
/// Interval between two looks into the logs.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Sequence numbers, one of which is newer than any present one (RFC 8966, section 3.2.1).
const SEQNOS: [u16; 3] = [1, 21_846, 43_691];
/// The table to which babeld exports routes.
const BABEL_TABLE: &str = "197";

/// Whose router id a lie has.
#[derive(Clone, Copy)]
enum Origin {
    Liar,
    Victim,
    Nobody,
}

/// The number of a node that does not exist.
const ABSENT_NODE: u32 = 777;

/// Which ranges are announced.
#[derive(Clone, Copy)]
enum Ranges {
    /// The liar's own, and nothing else.
    None,
    Victim,
    /// A part of the victim's.
    VictimPart,
    VictimAddress,
    Neighbour,
    /// That of a node that does not exist, so that honest nodes forward the lie.
    Absent,
    /// The network, half of it, and more than it.
    Network,
    /// Most of the internet, over IPv6 and IPv4.
    Internet,
}

/// One lie, which one member tries.
struct Lie {
    id: &'static str,
    fault: &'static str,
    ranges: Ranges,
    origin: Origin,
    metric: u16,
}

/// The lies in their order. That with a newer sequence number is early, since its effect would show after 70 to 105 s.
const LIES: &[Lie] = &[
    Lie {
        id: "honest-member",
        fault: "a member announces its own range only (the others must keep its tunnel)",
        ranges: Ranges::None,
        origin: Origin::Liar,
        metric: 0,
    },
    Lie {
        id: "router-id-of-victim",
        fault: "another node's range under its router id, with a newer sequence number",
        ranges: Ranges::Victim,
        origin: Origin::Victim,
        metric: 0,
    },
    Lie {
        id: "same-length",
        fault: "another node's range as its own",
        ranges: Ranges::Victim,
        origin: Origin::Liar,
        metric: 0,
    },
    Lie {
        id: "longer",
        fault: "a part of another node's range",
        ranges: Ranges::VictimPart,
        origin: Origin::Liar,
        metric: 0,
    },
    Lie {
        id: "host-route",
        fault: "another node's address",
        ranges: Ranges::VictimAddress,
        origin: Origin::Liar,
        metric: 0,
    },
    Lie {
        id: "shorter",
        fault: "the network, half of it, and more than it",
        ranges: Ranges::Network,
        origin: Origin::Liar,
        metric: 0,
    },
    Lie {
        id: "internet",
        fault: "ranges outside the network, IPv6 and IPv4",
        ranges: Ranges::Internet,
        origin: Origin::Liar,
        metric: 0,
    },
    Lie {
        id: "neighbour",
        fault: "the range of the neighbour itself",
        ranges: Ranges::Neighbour,
        origin: Origin::Liar,
        metric: 0,
    },
    Lie {
        id: "router-id-of-nobody",
        fault: "another node's range under a router id that no node has",
        ranges: Ranges::Victim,
        origin: Origin::Nobody,
        metric: 0,
    },
    Lie {
        id: "one-hop-away",
        fault: "another node's range under the liar's router id, as if one hop away",
        ranges: Ranges::Victim,
        origin: Origin::Liar,
        metric: 96,
    },
    Lie {
        id: "two-hops-away",
        fault: "the same, as if two hops away",
        ranges: Ranges::Victim,
        origin: Origin::Liar,
        metric: 192,
    },
    Lie {
        id: "forwarded",
        fault: "a range that no node has, under the liar's router id, as if one hop away: honest nodes forward it",
        ranges: Ranges::Absent,
        origin: Origin::Liar,
        metric: 96,
    },
];

impl Lie {
    fn announcements(&self, square: &Square, liar: Prefix) -> Result<Vec<Announcement>> {
        let (victim, neighbour) = (square.prefix(VICTIM)?, square.prefix(NEIGHBOUR)?);
        let network = square.network;
        let range = network.node_range(victim);
        let address = network.node_address(victim);
        let part =
            |length| Ok::<IpNet, anyhow::Error>(Ipv6Net::new(range.network(), length)?.into());
        let whole = |length| {
            let range = Ipv6Net::new(network.range().network(), length)?;
            Ok::<IpNet, anyhow::Error>(range.trunc().into())
        };
        let ranges: Vec<IpNet> = match self.ranges {
            Ranges::None => Vec::new(),
            Ranges::Victim => vec![range.into()],
            Ranges::VictimPart => vec![part(80)?],
            Ranges::VictimAddress => vec![Ipv6Net::new(address, 128)?.into()],
            Ranges::Neighbour => vec![network.node_range(neighbour).into()],
            Ranges::Absent => {
                let absent = Prefix::new(ABSENT_NODE, 16).context("no prefix")?;
                vec![network.node_range(absent).into()]
            }
            Ranges::Network => vec![whole(49)?, whole(48)?, whole(47)?],
            Ranges::Internet => vec![
                "2000::/3".parse()?,
                "::ffff:45.67.0.0/112".parse()?,
                "0.0.0.0/1".parse()?,
                "45.67.0.0/16".parse()?,
            ],
        };
        let router_id = match self.origin {
            Origin::Liar => overlay::router_id(liar),
            Origin::Victim => overlay::router_id(victim),
            Origin::Nobody => [2, 0, 0, 0, 0, 0, 0xbe, 0xef],
        };
        let metric = self.metric;
        let announcement = |range| {
            SEQNOS.map(|seqno| Announcement {
                range,
                router_id,
                metric,
                seqno,
            })
        };
        Ok(ranges.into_iter().flat_map(announcement).collect())
    }

    fn is_honest(&self) -> bool {
        matches!(self.ranges, Ranges::None)
    }
}

/// Tries each lie several times, each time by a member of its own.
pub(super) fn run(tries: usize) -> Result<Vec<Outcome>> {
    let square = Square::build(LIES.len() * tries)?;
    let start = square.pinger.now();
    let logs: Vec<_> = square.running_nodes().map(LogWatch::start).collect();
    let mut outcomes = Vec::new();
    for lie in LIES {
        let mut outcome = try_lie(&square, lie)?;
        for _ in 1..tries {
            outcome.add(try_lie(&square, lie)?);
        }
        outcomes.push(outcome);
    }
    pause(AFTERMATH);
    let closed = |log: &LogWatch<'_>| {
        let running = (0..RUNNING).filter_map(|index| square.prefix(index).ok());
        let closed = running.map(|peer| {
            log.count(&[
                "tunnel closed",
                "reason=false_routes",
                &format!("peer={peer} "),
            ])
        });
        closed.sum::<usize>()
    };
    let honest_closed = u64::try_from(logs.iter().map(closed).sum::<usize>())?;
    let pings = square.pings(start, square.pinger.now());
    outcomes.push(Outcome {
        id: "all-lies",
        fault: "all of these, one after the other, since some show their effect only minutes later",
        tries: LIES.len() * tries,
        figures: vec![
            Figure::count("honest tunnels closed", honest_closed, 0),
            Figure::lost(pings, MAX_LOST_PERCENT),
        ],
    });
    Ok(outcomes)
}

fn try_lie(square: &Square, lie: &Lie) -> Result<Outcome> {
    progress(format!("a member announces: {}", lie.fault));
    let liar = square.connect_liar()?;
    let announcements = lie.announcements(square, liar.prefix())?;
    for _ in 0..4 {
        liar.announce(&[])?;
        pause(LIE_INTERVAL);
    }
    let logs: Vec<_> = square.running_nodes().map(LogWatch::start).collect();
    let start = square.pinger.now();
    let watched = repeat_lie(square, &liar, &announcements, &logs, start)?;
    let foreign_routes = count_foreign_routes(square)?;
    drop(liar);
    let end = start + OBSERVATION;
    let pings = square.pings(start, end);
    let recovered = square
        .last_loss(start, end)
        .map_or(Duration::ZERO, |moment| moment.saturating_sub(start));
    let honest_disconnected = watched.honest_disconnected;
    let mut figures = vec![
        Figure::count("honest tunnels closed", honest_disconnected, 0),
        Figure::count("foreign routes", foreign_routes, 0),
    ];
    if lie.is_honest() {
        let closed = u64::from(watched.disconnected.is_some());
        figures.push(Figure::count("its tunnel closed", closed, 0));
        figures.push(Figure::lost(pings, 0.0));
    } else {
        figures.push(Figure::time("seen", watched.seen, SEEN));
        figures.push(Figure::time(
            "disconnected",
            watched.disconnected,
            DISCONNECTED,
        ));
        figures.push(Figure::time("last ping lost", Some(recovered), RECOVERED));
    }
    progress(format!("lost {} of {} pings", pings.lost, pings.sent));
    Ok(Outcome {
        id: lie.id,
        fault: lie.fault,
        tries: 1,
        figures,
    })
}

/// What the daemons did while the lie was repeated; times since the first lie.
#[derive(Default)]
struct Reaction {
    seen: Option<Duration>,
    disconnected: Option<Duration>,
    /// Tunnels between honest nodes that were closed because of false routes.
    honest_disconnected: u64,
}

fn repeat_lie(
    square: &Square,
    liar: &Liar,
    announcements: &[Announcement],
    logs: &[LogWatch<'_>],
    start: Duration,
) -> Result<Reaction> {
    let mut reaction = Reaction::default();
    let liar_name = format!("peer={} ", liar.prefix());
    let neighbour = logs.get(NEIGHBOUR);
    let mut next = start;
    loop {
        let elapsed = square.pinger.now().saturating_sub(start);
        if elapsed >= LIE_SPAN {
            break;
        }
        if start + elapsed >= next {
            liar.announce(announcements)?;
            next += LIE_INTERVAL;
        }
        let is_logged = |words: &[&str]| neighbour.is_some_and(|log| log.count(words) > 0);
        if reaction.seen.is_none() && is_logged(&["false route", &liar_name]) {
            reaction.seen = Some(elapsed);
        }
        if reaction.disconnected.is_none() && is_logged(&["tunnel closed", &liar_name]) {
            reaction.disconnected = Some(elapsed);
        }
        pause(POLL_INTERVAL);
    }
    let closed = |log: &LogWatch<'_>| {
        let all = log.count(&["tunnel closed", "reason=false_routes"]);
        all.saturating_sub(log.count(&["tunnel closed", "reason=false_routes", &liar_name]))
    };
    let honest: usize = logs.iter().map(closed).sum();
    reaction.honest_disconnected = u64::try_from(honest)?;
    ensure!(
        square.lab.node(NEIGHBOUR)?.exit_status().is_none(),
        "the daemon of the neighbour has exited"
    );
    Ok(reaction)
}

/// The routes of all running nodes from babeld that lead to no node's range.
fn count_foreign_routes(square: &Square) -> Result<u64> {
    let mut count = 0;
    for node in square.running_nodes() {
        let list = |family| {
            // Without a route the table does not exist, and the listing fails.
            let words = [family, "route", "show", "table", BABEL_TABLE];
            ip::output(node.namespace(), &words).unwrap_or_default()
        };
        let is_foreign = |line: &&str| {
            let range = line
                .split_whitespace()
                .find_map(|word| word.parse::<Ipv6Net>().ok());
            let node = range.and_then(|range| square.network.node_of_range(range));
            // The members of a lab have prefixes of 16 bits.
            node.is_none_or(|node| node.length() != 16)
        };
        count += list("-6").lines().filter(is_foreign).count();
        count += list("-4").lines().count();
    }
    Ok(u64::try_from(count)?)
}
