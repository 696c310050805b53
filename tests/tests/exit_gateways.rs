//! Packets leave the network by the gateways that its document names, by no others, and the host's own way stays.
//!
//! Five nodes in a line: 0, a gateway; 1; 2, named as one in the end but unwilling; 3, who asks, with a default
//! route of its own that leads nowhere; 4, a gateway.

use anyhow::{Context, Result};
use lab::{
    Lab, Node, Options, host_snapshot::Host, ip, is_left_out, measure::pause, process::wait_until,
};
use std::{
    net::{SocketAddrV6, UdpSocket},
    time::Duration,
};
use wire::{
    babel_packet::{GROUP, PORT},
    control::{
        DefaultEntry, ROUTES_PATH, RoutesDocument, STATUS_PATH, StatusDocument, TUNNELS_PATH,
        TunnelsDocument,
    },
    overlay::{Network, router_id},
};

const NODES: usize = 5;
const FIRST: usize = 0;
const UNWILLING: usize = 2;
const ASKER: usize = 3;
const SECOND: usize = 4;
/// A host on the internet that no node has on its own link, and the lab's router towards it.
const OUTSIDE: &str = "2a0c:5c82::1";
const ROUTER: &str = "2a0c:5c81::1";
/// Nodes start their babeld anew within half a minute, and a line is whole only when all have.
const RESTART: Duration = Duration::from_secs(120);

#[test]
fn packets_leave_by_registered_and_willing_gateways_only_and_the_next_one_takes_over() -> Result<()>
{
    if is_left_out("gateways") {
        return Ok(());
    }
    let lab = line()?;
    let (asker, befores) = (lab.node(ASKER)?, before(&lab)?);
    lab::measure::start_whole(&lab)?;
    assert!(!reaches_outside(asker), "no gateway is named yet");
    let own = asker.command("ip", &["-6", "route", "get", OUTSIDE])?;

    set_gateways(&lab, &[FIRST])?;
    wait_for(&lab, ASKER, Some(FIRST), RESTART)?;
    wait_until(RESTART, || reaches_outside(asker).then_some(()))
        .context("no answer from outside")?;
    assert_eq!(
        asker.command("ip", &["-6", "route", "get", OUTSIDE])?,
        own,
        "the host's own way"
    );
    let copy = ip::read(asker.namespace(), &["-6", "route", "show", "table", "200"])?;
    assert!(copy.starts_with("default via fe80::"), "{copy}");
    wait_for(&lab, SECOND, Some(FIRST), RESTART).context("a willing node that is not named")?;
    is_no_node(&lab)?;

    an_impostor_is_heard_and_not_believed(&lab)?;
    set_gateways(&lab, &[FIRST, UNWILLING, SECOND])?;
    wait_for(&lab, ASKER, Some(SECOND), RESTART)?;
    the_unwilling_is_none(&lab)?;
    wait_until(RESTART, || reaches_outside(asker).then_some(())).context("none by the second")?;
    the_same_words_of_a_named_node_are_believed(&lab)?;

    wait_for(&lab, ASKER, Some(SECOND), RESTART)?;
    assert!(
        lab.node(SECOND)?
            .stop()
            .is_some_and(|status| status.success())
    );
    wait_for(&lab, ASKER, Some(FIRST), Duration::from_secs(30))?;
    wait_until(Duration::from_secs(30), || {
        reaches_outside(asker).then_some(())
    })
    .context("none by the first")?;

    a_gateway_without_a_way_out_is_none(&lab)?;
    set_gateways(&lab, &[])?;
    let rules = || ip::read(asker.namespace(), &["-6", "rule"]);
    wait_until(RESTART, || {
        rules().ok().filter(|rules| !rules.contains("lookup 199"))
    })
    .context("the rules stay")?;
    assert_eq!(lab.stop_all(), [0; 0]);
    for (node, before) in lab.nodes().iter().zip(befores) {
        assert_eq!(
            before.changes(&Host::of(node.namespace())?),
            [""; 0],
            "node {}",
            node.index()
        );
    }
    Ok(())
}

/// Nodes that have joined, each of which can dial its neighbours in the line and no others; the internet.
fn line() -> Result<Lab> {
    let lab = Lab::joined(Options {
        nodes: NODES,
        dial: Some(1),
        ..Options::default()
    })?;
    let underlay = |index: usize| [format!("45.67.1.{}", index + 1), address(index)];
    for (index, node) in lab.nodes().iter().enumerate() {
        let mut lines = format!("addr add {}/64 dev eth0 nodad\n", address(index));
        for distant in (0..NODES).filter(|distant| distant.abs_diff(index) > 1) {
            lines.extend(
                underlay(distant).map(|address| format!("route add blackhole {address}\n")),
            );
        }
        ip::batch(Some(node.namespace()), &lines)?;
        if let Some(previous) = index.checked_sub(1) {
            node.configure("neighbours", &format!("[{}]", prefix(&lab, previous)?))?;
        }
    }
    for (index, router) in [
        (FIRST, ROUTER),
        (ASKER, "2a0c:5c81::dead"),
        (SECOND, ROUTER),
    ] {
        let default = format!("route add default via {router} dev eth0\n");
        ip::batch(Some(lab.node(index)?.namespace()), &default)?;
    }
    for index in [FIRST, SECOND] {
        lab.node(index)?.configure("gateway", "true")?;
    }
    Ok(lab)
}

/// The hosts before anything ran on them. The internet gets its addresses, and its way back by the first gateway.
fn before(lab: &Lab) -> Result<Vec<Host>> {
    let lines = format!(
        "addr add {ROUTER}/64 dev internet nodad\naddr add {OUTSIDE}/128 dev lo\nroute add {} via {}\n",
        network(lab)?.range(),
        address(FIRST)
    );
    ip::batch(Some(&lab.internet_namespace()), &lines)?;
    lab.nodes()
        .iter()
        .map(|node| Host::of(node.namespace()))
        .collect()
}

/// What the lab's registry made: a /48.
fn network(lab: &Lab) -> Result<Network> {
    let [a, b, c, ..] = lab.node(FIRST)?.identity()?.address.segments();
    Network::new(format!("{a:x}:{b:x}:{c:x}::/48").parse()?).context("no network")
}

/// The node's address on the internet.
fn address(index: usize) -> String {
    format!("2a0c:5c81::1{index}")
}

fn prefix(lab: &Lab, index: usize) -> Result<String> {
    Ok(lab.node(index)?.identity()?.prefix.clone())
}

fn set_gateways(lab: &Lab, gateways: &[usize]) -> Result<()> {
    let prefixes = gateways
        .iter()
        .map(|index| prefix(lab, *index))
        .collect::<Result<Vec<_>>>()?;
    lab.registry_command("set", &["gateways".to_owned(), prefixes.join(",")])
        .map(drop)
}

/// Waits until that node says that its packets leave the network by that one.
fn wait_for(lab: &Lab, index: usize, gateway: Option<usize>, patience: Duration) -> Result<()> {
    let node = lab.node(index)?;
    let wanted = gateway.map(|gateway| prefix(lab, gateway)).transpose()?;
    let says = || {
        node.ask::<StatusDocument>(STATUS_PATH)
            .ok()
            .filter(|status| status.gateway == wanted)
    };
    wait_until(patience, says).map(drop).with_context(|| {
        let is = node
            .ask::<StatusDocument>(STATUS_PATH)
            .map(|status| status.gateway);
        format!(
            "node {index} should leave by {wanted:?} and does by {is:?}; {:?}",
            defaults(node)
        )
    })
}

fn reaches_outside(node: &Node) -> bool {
    let Ok(identity) = node.identity() else {
        return false;
    };
    let from = identity.address.to_string();
    node.command(
        "ping",
        &["-6", "-n", "-c", "1", "-W", "1", "-I", &from, OUTSIDE],
    )
    .is_ok()
}

fn defaults(node: &Node) -> Result<Vec<DefaultEntry>> {
    Ok(node.ask::<RoutesDocument>(ROUTES_PATH)?.defaults)
}

/// The default route counts neither as a node nor as served by a tunnel.
fn is_no_node(lab: &Lab) -> Result<()> {
    let others = u64::try_from(NODES - 1)?;
    for node in lab.nodes() {
        let right = || {
            let status: StatusDocument = node.ask(STATUS_PATH).ok()?;
            let tunnels: TunnelsDocument = node.ask(TUNNELS_PATH).ok()?;
            let served: u64 = tunnels
                .tunnels
                .iter()
                .map(|tunnel| tunnel.nodes_served)
                .sum();
            (status.nodes_known == others && served == others && status.routes_installed == others)
                .then_some(())
        };
        wait_until(RESTART, right)
            .with_context(|| format!("node {} counts others", node.index()))?;
    }
    Ok(())
}

/// A node that is not named says by packets of its own that it leads outside. Its neighbour hears it and goes on as
/// before.
fn an_impostor_is_heard_and_not_believed(lab: &Lab) -> Result<()> {
    let (asker, liar) = (lab.node(ASKER)?, prefix(lab, SECOND)?);
    let heard = || {
        lie(lab, SECOND).ok()?;
        let all = defaults(asker).ok()?;
        all.into_iter().find(|default| default.gateway == liar)
    };
    let seen = wait_until(RESTART, heard).context("the lie was not heard")?;
    assert_eq!((seen.metric, seen.installed), (u16::MAX, false), "{seen:?}");
    wait_for(lab, ASKER, Some(FIRST), Duration::ZERO)?;
    assert!(reaches_outside(asker));
    Ok(())
}

/// A node that is named knows of the others, and leads nobody outside that did not say so itself.
fn the_unwilling_is_none(lab: &Lab) -> Result<()> {
    let (node, second) = (lab.node(UNWILLING)?, prefix(lab, SECOND)?);
    let knows = || {
        defaults(node)
            .ok()?
            .into_iter()
            .find(|default| default.gateway == second)
    };
    wait_until(RESTART, knows).context("it does not know of the second")?;
    let status: StatusDocument = node.ask(STATUS_PATH)?;
    assert!(
        status
            .gateway
            .is_some_and(|gateway| gateway != status.prefix)
    );
    Ok(())
}

fn the_same_words_of_a_named_node_are_believed(lab: &Lab) -> Result<()> {
    let (asker, liar) = (lab.node(ASKER)?, prefix(lab, UNWILLING)?);
    let believes = || {
        let all = defaults(asker).ok()?;
        Some(
            all.into_iter()
                .any(|default| default.gateway == liar && default.metric != u16::MAX),
        )
    };
    let taken = || {
        lie(lab, UNWILLING).ok()?;
        believes()?.then_some(())
    };
    wait_until(RESTART, taken).context("a named node is not believed")?;
    // A default route for everybody's packets is nobody's to give.
    for table in ["197", "199"] {
        let routes = ip::read(asker.namespace(), &["-6", "route", "show", "table", table])?;
        let all = routes
            .lines()
            .filter(|line| line.contains("default") && !line.contains(" from "));
        assert_eq!(all.collect::<Vec<_>>(), [""; 0]);
    }
    let forgotten = || (!believes()?).then_some(());
    wait_until(RESTART, forgotten).context("its words are still believed")
}

/// Sends, through all tunnels of that node, Updates (RFC 8966, section 4.6.9) of a default route under its
/// own router id: one for packets from the network's range (RFC 9079), one for all.
fn lie(lab: &Lab, index: usize) -> Result<()> {
    let (node, range) = (lab.node(index)?, network(lab)?.range());
    let id = router_id(prefix(lab, index)?.parse().ok().context("no prefix")?);
    let mut body = [&[6, 10, 0, 0], &id[..]].concat();
    let update = |length: u8| {
        [
            8,
            length,
            2,
            0,
            0,
            0,
            400u16.to_be_bytes()[0],
            144,
            0,
            1,
            0,
            0,
        ]
    };
    body.extend(update(19).into_iter().chain([128, 7, 48]));
    body.extend(range.network().octets().into_iter().take(6));
    body.extend(update(10));
    let packet = [&[42, 2, 0, u8::try_from(body.len())?], &body[..]].concat();
    let tunnels: TunnelsDocument = node.ask(TUNNELS_PATH)?;
    for tunnel in tunnels.tunnels.iter().filter(|tunnel| tunnel.phase == "up") {
        let link = ip::read(
            node.namespace(),
            &["-o", "link", "show", "dev", &tunnel.slot],
        )?;
        let link: u32 = link.split(':').next().context("no index")?.parse()?;
        ip::inside(node.namespace(), || {
            let socket = UdpSocket::bind("[::]:0")?;
            socket.set_multicast_loop_v6(false)?;
            socket.send_to(&packet, SocketAddrV6::new(GROUP, PORT, 0, link))?;
            Ok(())
        })?;
    }
    pause(Duration::from_millis(250));
    Ok(())
}

/// babeld would let its neighbours believe in it for minutes.
fn a_gateway_without_a_way_out_is_none(lab: &Lab) -> Result<()> {
    let (gateway, asker) = (lab.node(FIRST)?, lab.node(ASKER)?);
    gateway.command("ip", &["-6", "route", "del", "default"])?;
    wait_for(lab, ASKER, None, Duration::from_secs(15))?;
    assert!(!reaches_outside(asker));
    ip::batch(
        Some(gateway.namespace()),
        &format!("route add default via {ROUTER} dev eth0\n"),
    )?;
    wait_for(lab, ASKER, Some(FIRST), Duration::from_secs(30))?;
    wait_until(Duration::from_secs(30), || {
        reaches_outside(asker).then_some(())
    })
    .context("none again")
}
