//! What members can do to a neighbour beside Babel: lies on the link, and pushed options.

use super::{
    Figure, Outcome,
    forged_icmp::{neighbour_advertisement, redirect, router_advertisement},
    liar::{Announcement, Liar, packets},
    pushed_options::{count_changes, host_state, push_options},
    square::{LogWatch, MIDDLE, NEIGHBOUR, RUNNING, Square, VICTIM},
};
use crate::{Node, ip, netns, progress::progress, wait::pause};
use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    time::{Duration, Instant},
};
use wire::{babel_packet, overlay};

/// Length of each attack of a client.
const ATTACK_SPAN: Duration = Duration::from_secs(10);
/// Interval between two lies.
const LIE_INTERVAL: Duration = Duration::from_millis(250);
/// Time after an attack in which pings are counted, too.
const AFTERMATH: Duration = Duration::from_secs(4);
/// Tries each attack once.
pub(super) fn run() -> Result<Vec<Outcome>> {
    let square = Square::build(1)?;
    let lies = lie_on_link(&square)?;
    drop(square);
    Ok(vec![lies, push_options()?])
}

/// Lets a member take other nodes' addresses on its link, and send router and neighbour advertisements and redirects.
fn lie_on_link(square: &Square) -> Result<Outcome> {
    let fault = "a member sends router advertisements, forged neighbour advertisements and redirects, and Babel from the addresses and with the MAC of others";
    progress(fault);
    let node = square.lab.node(NEIGHBOUR)?;
    let liar = square.connect_liar()?;
    let namespace = square.liar_namespace()?;
    liar.announce(&[])?;
    let before = host_state(node)?;
    let logs: Vec<_> = square.running_nodes().map(LogWatch::start).collect();
    let victims = [MIDDLE, VICTIM, NEIGHBOUR];
    let victims = victims.map(|victim| square.prefix(victim).map(overlay::link_local));
    let victims = victims.into_iter().collect::<Result<Vec<_>>>()?;
    let start = square.pinger.now();
    send_forged_icmp(&namespace, &victims)?;
    let link_changes = count_changes(&before, &host_state(node)?);
    speak_as_others(&namespace, square, &liar, &victims)?;
    let pings = square.pings(start, square.pinger.now() + AFTERMATH);
    let closed = honest_closings(square, &logs);
    Ok(Outcome {
        id: "lies-on-link",
        fault,
        tries: 1,
        figures: vec![
            Figure::count("changed routes and addresses", link_changes, 0),
            Figure::count("honest tunnels closed", u64::try_from(closed)?, 0),
            Figure::lost(pings, 0.0),
        ],
    })
}

/// Sends router advertisements, neighbour advertisements for these addresses, and redirects, for a while.
fn send_forged_icmp(namespace: &str, victims: &[Ipv6Addr]) -> Result<()> {
    netns::run_inside(namespace, || {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.bind_device(Some(Liar::LINK.as_bytes()))?;
        // Receivers drop such packets with a smaller hop limit (RFC 4861).
        socket.set_multicast_hops_v6(255)?;
        let group = SocketAddr::from((Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0));
        let start = Instant::now();
        while start.elapsed() < ATTACK_SPAN / 2 {
            socket.send_to(&router_advertisement(), &group.into())?;
            for victim in victims {
                socket.send_to(&neighbour_advertisement(*victim), &group.into())?;
                socket.send_to(&redirect(*victim), &group.into())?;
            }
            pause(LIE_INTERVAL);
        }
        Ok(())
    })
}

/// Sends Babel packets from the link-local addresses of others, with the MAC of one of them.
fn speak_as_others(
    namespace: &str,
    square: &Square,
    liar: &Liar,
    victims: &[Ipv6Addr],
) -> Result<()> {
    let link = Liar::LINK;
    let mac = mac_of_first_slot(square.lab.node(MIDDLE)?)?;
    ip::batch(Some(namespace), &format!("link set {link} address {mac}\n"))?;
    for victim in victims {
        ip::batch(
            Some(namespace),
            &format!("addr add {victim}/64 dev {link} nodad\n"),
        )?;
    }
    let own = Announcement::own(square.network, liar.prefix());
    let index = netns::run_inside(namespace, || Ok(nix::net::if_::if_nametoindex(link)?))?;
    let start = Instant::now();
    while start.elapsed() < ATTACK_SPAN / 2 {
        for victim in victims {
            netns::run_inside(namespace, || {
                let from = SocketAddrV6::new(*victim, babel_packet::PORT, 0, index);
                let socket = std::net::UdpSocket::bind(from)?;
                let to = SocketAddrV6::new(babel_packet::GROUP, babel_packet::PORT, 0, index);
                for packet in packets(&[own]) {
                    // The link goes away once the neighbour has closed the tunnel.
                    drop(socket.send_to(&packet, to));
                }
                Ok(())
            })?;
        }
        if liar.was_rejected() {
            break;
        }
        pause(LIE_INTERVAL);
    }
    Ok(())
}

/// The MAC of the first dialling slot of a node.
fn mac_of_first_slot(node: &Node) -> Result<String> {
    let listing = ip::output(node.namespace(), &["-o", "link", "show", "wrn0"])?;
    let mut words = listing.split_whitespace();
    words.find(|word| *word == "link/ether");
    let mac = words.next().context("wrn0 has no MAC")?;
    Ok(mac.to_owned())
}

/// The tunnels between running nodes that were up and were closed, for whatever reason but that there were two. A node whose peer closed a
/// tunnel is not counted, since the peer is.
pub(super) fn honest_closings(square: &Square, logs: &[LogWatch<'_>]) -> usize {
    let running = (0..RUNNING).filter_map(|index| square.prefix(index).ok());
    let count = |log: &LogWatch<'_>, peer: &str| {
        let with = |reason: &str| log.count(&["tunnel closed", peer, reason]);
        let reactions = ["dial_failed", "duplicate", "peer_closed"];
        let reactions = reactions.map(|reason| with(&format!("reason={reason}")));
        with("reason=") - reactions.iter().sum::<usize>()
    };
    let peers = running.map(|peer| format!("peer={peer} "));
    let closings = peers.map(|peer| logs.iter().map(|log| count(log, &peer)).sum::<usize>());
    closings.sum()
}
