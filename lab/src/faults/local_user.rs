//! A local user without rights sends Babel packets and drain notices by the slots of a node.

use super::{
    Figure, Outcome, exposure,
    liar::{Announcement, packets},
    square::{MIDDLE, NEIGHBOUR, NOBODY, Square, VICTIM},
};
use crate::{netns, progress::progress, wait::pause};
use anyhow::{Context, Result};
use ipnet::Ipv6Net;
use nix::unistd::{Uid, setfsuid};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    net::{Ipv6Addr, SocketAddrV6},
    time::{Duration, Instant},
};
use wire::{babel_packet, drain_notice::DRAIN_NOTICE, overlay, suspicion};

/// Time for which each attack lasts.
const ATTACK_SPAN: Duration = Duration::from_secs(8);
/// Time after the attack in which pings are counted, too.
const AFTERMATH: Duration = Duration::from_secs(3);
/// Interval between two packets.
const PACKET_INTERVAL: Duration = Duration::from_millis(200);
/// Sequence numbers, one of which is newer than any present one (RFC 8966, section 3.2.1).
const SEQNOS: [u16; 3] = [1, 21_846, 43_691];

/// Packets of one attack, and where they are sent.
struct Attack {
    id: &'static str,
    fault: &'static str,
    packets: Vec<Vec<u8>>,
    /// The receiver: Babel's group, or the peer.
    to: (Ipv6Addr, u16),
}

/// Tries each attack once.
pub(super) fn run() -> Result<Vec<Outcome>> {
    let square = Square::build(0)?;
    let attacks = attacks(&square)?;
    let outcomes = attacks.iter().map(|attack| try_attack(&square, attack));
    let mut outcomes = outcomes.collect::<Result<Vec<_>>>()?;
    outcomes.extend(exposure::run(&square)?);
    Ok(outcomes)
}

fn attacks(square: &Square) -> Result<Vec<Attack>> {
    let network = square.network;
    let (own, victim) = (square.prefix(NEIGHBOUR)?, square.prefix(VICTIM)?);
    let range = network.node_range(victim);
    let announce = |range: Ipv6Net, origin, metric| {
        SEQNOS.map(|seqno| Announcement {
            range: range.into(),
            router_id: overlay::router_id(origin),
            metric,
            seqno,
        })
    };
    let group = (babel_packet::GROUP, babel_packet::PORT);
    let part = Ipv6Net::new(range.network(), 80)?;
    let ranges = [announce(range, victim, 0), announce(part, victim, 0)].concat();
    let retraction = announce(network.node_range(own), own, u16::MAX);
    let peer = overlay::link_local(square.prefix(MIDDLE)?);
    Ok(vec![
        Attack {
            id: "local-user-range",
            fault: "a local user announces another node's range, and a part of it, to a neighbour",
            packets: packets(&ranges),
            to: group,
        },
        Attack {
            id: "local-user-retraction",
            fault: "a local user retracts the node's own range at a neighbour",
            packets: packets(&retraction),
            to: group,
        },
        Attack {
            id: "local-user-drain",
            fault: "a local user notifies a neighbour that the tunnel drains",
            packets: vec![DRAIN_NOTICE.to_vec()],
            to: (peer, suspicion::PORT),
        },
    ])
}

fn try_attack(square: &Square, attack: &Attack) -> Result<Outcome> {
    progress(attack.fault);
    let slot = square.slot(NEIGHBOUR, MIDDLE)?;
    let from = overlay::link_local(square.prefix(NEIGHBOUR)?);
    let namespace = square.lab.node(NEIGHBOUR)?.namespace();
    let start = square.pinger.now();
    let (sent, rejected) = netns::run_inside(namespace, || send_as_nobody(attack, &slot, from))?;
    let end = square.pinger.now() + AFTERMATH;
    let pings = square.pings(start, end);
    progress(format!(
        "{sent} packets were sent and {rejected} rejected; lost {} of {} pings",
        pings.lost, pings.sent
    ));
    Ok(Outcome {
        id: attack.id,
        fault: attack.fault,
        tries: 1,
        figures: vec![
            Figure::count("packets sent", sent, 0),
            Figure::lost(pings, 0.0),
        ],
    })
}

/// Sends the packets again and again; returns how many the kernel took, and how many it rejected.
fn send_as_nobody(attack: &Attack, slot: &str, from: Ipv6Addr) -> Result<(u64, u64)> {
    let link =
        nix::net::if_::if_nametoindex(slot).with_context(|| format!("the slot {slot} is gone"))?;
    // The kernel takes the owner of a socket from the user id for files of the thread that opens it.
    let root = setfsuid(Uid::from_raw(NOBODY));
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP));
    setfsuid(root);
    let socket = socket?;
    socket.set_reuse_address(true)?;
    socket.set_multicast_if_v6(link)?;
    // babeld takes packets from any port.
    socket.bind(&SocketAddrV6::new(from, 0, 0, link).into())?;
    let (address, port) = attack.to;
    let to = SocketAddrV6::new(address, port, 0, link);
    let (mut sent, mut rejected) = (0, 0);
    let start = Instant::now();
    while start.elapsed() < ATTACK_SPAN {
        for packet in &attack.packets {
            match socket.send_to(packet, &to.into()) {
                Ok(_) => sent += 1,
                Err(_) => rejected += 1,
            }
        }
        pause(PACKET_INTERVAL);
    }
    Ok((sent, rejected))
}
