//! Packets leave the network through the exit gateways that the network document names, and through no others; the
//! host's own default route stays.
//!
//! Five nodes form a line. Node 0 is a gateway. Node 2 is named as a gateway later, but is not configured as one. Node 3
//! sends packets outside, and its host has a default route that leads nowhere. Node 4 is a gateway, too.

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Node, Options,
    host_snapshot::HostSnapshot,
    ip, is_skipped_without_root, netns,
    wait::{pause, wait_until},
};
use std::{
    net::{SocketAddrV6, UdpSocket},
    time::Duration,
};
use wire::{
    babel_packet::{GROUP, PORT},
    control::{
        ExitRouteEntry, ROUTES_PATH, RoutesDocument, STATUS_PATH, StatusDocument, TUNNELS_PATH,
        TunnelsDocument,
    },
    overlay::{Network, router_id},
};

const NODES: usize = 5;
const FIRST_GATEWAY: usize = 0;
const UNWILLING: usize = 2;
const SENDER: usize = 3;
const SECOND_GATEWAY: usize = 4;
/// An address on the internet that no node has on its own link.
const OUTSIDE: &str = "2a0c:5c82::1";
/// The lab's router towards it.
const ROUTER: &str = "2a0c:5c81::1";
/// An address at which there is no router.
const NO_ROUTER: &str = "2a0c:5c81::dead";
/// Interval that the announced default routes carry, in centiseconds.
const UPDATE_INTERVAL_CENTISECONDS: u16 = 400;
/// Longest wait for new routes: nodes restart their babeld within half a minute, and a line is complete only when all
/// have.
const RESTART_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest wait until another gateway takes over.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait until a gateway that lost its own default route is no longer used.
const WITHDRAWAL_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait for a reply while the exit gateway stays the same: a single packet may be lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

#[test]
fn packets_leave_only_by_named_and_willing_gateways_and_the_next_one_takes_over() -> Result<()> {
    if is_skipped_without_root("exit_gateways") {
        return Ok(());
    }
    let lab = build_line()?;
    connect_internet(&lab)?;
    let hosts_before = lab
        .nodes()
        .iter()
        .map(|node| HostSnapshot::take(node.namespace()))
        .collect::<Result<Vec<_>>>()?;
    lab.start_and_converge()?;

    the_first_gateway_is_used_once_it_is_named(&lab)?;
    default_routes_count_as_no_node(&lab)?;
    a_default_route_of_an_unnamed_node_is_received_but_not_used(&lab)?;
    name_gateways(&lab, &[FIRST_GATEWAY, UNWILLING, SECOND_GATEWAY])?;
    wait_for_exit_gateway(&lab, SENDER, Some(SECOND_GATEWAY), RESTART_TIMEOUT)?;
    an_unwilling_node_is_no_gateway(&lab)?;
    wait_until_outside_answers(&lab, RESTART_TIMEOUT).context("by the second gateway")?;
    a_default_route_of_a_named_node_is_used(&lab)?;
    the_first_gateway_takes_over(&lab)?;
    a_gateway_without_a_default_route_is_not_used(&lab)?;
    without_gateways_the_rules_are_removed(&lab)?;

    assert_eq!(lab.stop_nodes(), [0; 0]);
    for (node, before) in lab.nodes().iter().zip(hosts_before) {
        let changes = before.changes_to(&HostSnapshot::take(node.namespace())?);
        assert_eq!(changes, [""; 0], "node {}", node.index());
    }
    Ok(())
}

/// Builds a lab of nodes that have joined, each of which can dial only its neighbours in the line.
fn build_line() -> Result<Lab> {
    let lab = Lab::build_joined(Options {
        nodes: NODES,
        tunnels_to_dial: Some(1),
        ..Options::default()
    })?;
    let underlay_addresses = |index: usize| [format!("45.67.1.{}", index + 1), address(index)];
    for (index, node) in lab.nodes().iter().enumerate() {
        let mut lines = format!("addr add {}/64 dev eth0 nodad\n", address(index));
        for distant in (0..NODES).filter(|distant| distant.abs_diff(index) > 1) {
            let addresses = underlay_addresses(distant).into_iter();
            lines.extend(addresses.map(|address| format!("route add blackhole {address}\n")));
        }
        ip::batch(Some(node.namespace()), &lines)?;
        if let Some(previous) = index.checked_sub(1) {
            let neighbour = lab.node(previous)?.prefix()?;
            node.configure("neighbours", &format!("[{neighbour}]"))?;
        }
    }
    for (index, router) in [
        (FIRST_GATEWAY, ROUTER),
        (SENDER, NO_ROUTER),
        (SECOND_GATEWAY, ROUTER),
    ] {
        add_default_route(lab.node(index)?, router)?;
    }
    for index in [FIRST_GATEWAY, SECOND_GATEWAY] {
        lab.node(index)?.configure("gateway", "true")?;
    }
    Ok(lab)
}

/// Gives the internet its addresses, and a route back to the network by the first gateway.
fn connect_internet(lab: &Lab) -> Result<()> {
    let lines = format!(
        "addr add {ROUTER}/64 dev internet nodad\naddr add {OUTSIDE}/128 dev lo\nroute add {} via {}\n",
        network(lab)?.range(),
        address(FIRST_GATEWAY)
    );
    ip::batch(Some(&lab.internet_namespace()), &lines)
}

/// The network's range, which the lab's registry has chosen: a /48.
fn network(lab: &Lab) -> Result<Network> {
    let [a, b, c, ..] = lab.node(FIRST_GATEWAY)?.identity()?.address.segments();
    let range = format!("{a:x}:{b:x}:{c:x}::/48").parse()?;
    Network::new(range).context("the range is no network")
}

/// The node's IPv6 address on the internet.
fn address(index: usize) -> String {
    format!("2a0c:5c81::1{index}")
}

fn add_default_route(node: &Node, router: &str) -> Result<()> {
    let line = format!("route add default via {router} dev eth0\n");
    ip::batch(Some(node.namespace()), &line)
}

fn name_gateways(lab: &Lab, gateways: &[usize]) -> Result<()> {
    let prefixes = gateways
        .iter()
        .map(|index| lab.node(*index)?.prefix())
        .collect::<Result<Vec<_>>>()?;
    lab.registry_command("set", &["gateways", &prefixes.join(",")])
        .map(drop)
}

fn exit_gateway(node: &Node) -> Result<Option<String>> {
    let status: StatusDocument = node.control_document(STATUS_PATH)?;
    Ok(status.exit_gateway)
}

fn exit_routes(node: &Node) -> Result<Vec<ExitRouteEntry>> {
    let document: RoutesDocument = node.control_document(ROUTES_PATH)?;
    Ok(document.exit_routes)
}

/// Waits until the node reports that its packets leave the network by this gateway, or by none.
fn wait_for_exit_gateway(
    lab: &Lab,
    index: usize,
    gateway: Option<usize>,
    timeout: Duration,
) -> Result<()> {
    let node = lab.node(index)?;
    let expected = match gateway {
        Some(gateway) => Some(lab.node(gateway)?.prefix()?),
        None => None,
    };
    let is_as_expected = || {
        let actual = exit_gateway(node).ok()?;
        (actual.as_deref() == expected).then_some(())
    };
    wait_until(timeout, is_as_expected).with_context(|| {
        format!(
            "node {index} should use exit gateway {expected:?} and uses {:?}; its exit routes: {:?}",
            exit_gateway(node),
            exit_routes(node)
        )
    })
}

/// Whether the sender gets a reply from outside the network.
fn reaches_outside(lab: &Lab) -> Result<bool> {
    let node = lab.node(SENDER)?;
    let from = node.identity()?.address.to_string();
    let arguments = ["-6", "-n", "-c", "1", "-W", "1", "-I", &from, OUTSIDE];
    Ok(node.command("ping", &arguments).is_ok())
}

fn wait_until_outside_answers(lab: &Lab, timeout: Duration) -> Result<()> {
    wait_until(timeout, || reaches_outside(lab).ok()?.then_some(()))
        .context("no reply from outside the network")
}

fn the_first_gateway_is_used_once_it_is_named(lab: &Lab) -> Result<()> {
    let sender = lab.node(SENDER)?;
    ensure!(!reaches_outside(lab)?, "no gateway is named yet");
    let host_route = || sender.command("ip", &["-6", "route", "get", OUTSIDE]);
    let host_route_before = host_route()?;
    name_gateways(lab, &[FIRST_GATEWAY])?;
    wait_for_exit_gateway(lab, SENDER, Some(FIRST_GATEWAY), RESTART_TIMEOUT)?;
    wait_until_outside_answers(lab, RESTART_TIMEOUT)?;
    assert_eq!(host_route()?, host_route_before, "the host's own route");
    let fallback = ip::output(sender.namespace(), &["-6", "route", "show", "table", "200"])?;
    assert!(fallback.starts_with("default via fe80::"), "{fallback}");
    wait_for_exit_gateway(lab, SECOND_GATEWAY, Some(FIRST_GATEWAY), RESTART_TIMEOUT)
        .context("a willing node that is not named uses the first gateway itself")
}

/// A default route counts neither as a node nor as a destination that a tunnel serves.
fn default_routes_count_as_no_node(lab: &Lab) -> Result<()> {
    let others = u64::try_from(NODES - 1)?;
    for node in lab.nodes() {
        let counts_are_right = || {
            let status: StatusDocument = node.control_document(STATUS_PATH).ok()?;
            let tunnels: TunnelsDocument = node.control_document(TUNNELS_PATH).ok()?;
            let served = tunnels.tunnels.iter().map(|tunnel| tunnel.nodes_served);
            let counts = [status.nodes_known, served.sum(), status.routes_installed];
            (counts == [others; 3]).then_some(())
        };
        wait_until(RESTART_TIMEOUT, counts_are_right)
            .with_context(|| format!("node {} does not count {others} nodes", node.index()))?;
    }
    Ok(())
}

/// A node that is not named announces a default route in packets of its own. Its neighbour receives it and goes on as
/// before.
fn a_default_route_of_an_unnamed_node_is_received_but_not_used(lab: &Lab) -> Result<()> {
    let sender = lab.node(SENDER)?;
    let impostor = lab.node(SECOND_GATEWAY)?.prefix()?;
    let received = || {
        announce_default_routes(lab, SECOND_GATEWAY).ok()?;
        let mut routes = exit_routes(sender).ok()?.into_iter();
        routes.find(|route| route.gateway == impostor)
    };
    let route = wait_until(RESTART_TIMEOUT, received)
        .context("the impostor's default route was not received")?;
    assert_eq!(
        (route.metric, route.installed),
        (u16::MAX, false),
        "{route:?}"
    );
    wait_for_exit_gateway(lab, SENDER, Some(FIRST_GATEWAY), Duration::ZERO)?;
    wait_until_outside_answers(lab, ANSWER_TIMEOUT).context("by the gateway that is named")
}

/// A node that is named, but not configured as a gateway, knows the others and is no gateway.
fn an_unwilling_node_is_no_gateway(lab: &Lab) -> Result<()> {
    let node = lab.node(UNWILLING)?;
    let second = lab.node(SECOND_GATEWAY)?.prefix()?;
    let knows_second = || {
        let mut routes = exit_routes(node).ok()?.into_iter();
        routes.find(|route| route.gateway == second)
    };
    wait_until(RESTART_TIMEOUT, knows_second)
        .context("the unwilling node has no route to the second gateway")?;
    let gateway = wait_until(RESTART_TIMEOUT, || exit_gateway(node).ok()?)
        .context("the unwilling node has no exit gateway")?;
    assert_ne!(gateway, node.prefix()?);
    Ok(())
}

/// The packets that are not believed from an unnamed node are believed from a named one.
fn a_default_route_of_a_named_node_is_used(lab: &Lab) -> Result<()> {
    let sender = lab.node(SENDER)?;
    let announcer = lab.node(UNWILLING)?.prefix()?;
    let is_usable = || {
        let routes = exit_routes(sender).ok()?;
        let mut usable = routes.iter().filter(|route| route.metric != u16::MAX);
        Some(usable.any(|route| route.gateway == announcer))
    };
    let becomes_usable = || {
        announce_default_routes(lab, UNWILLING).ok()?;
        is_usable()?.then_some(())
    };
    wait_until(RESTART_TIMEOUT, becomes_usable)
        .context("the default route of a named node was not used")?;
    // No node may announce a default route for packets that are not from the network.
    for table in ["197", "199"] {
        let arguments = ["-6", "route", "show", "table", table];
        let routes = ip::output(sender.namespace(), &arguments)?;
        let unspecific = routes
            .lines()
            .filter(|line| line.contains("default") && !line.contains(" from "));
        assert_eq!(unspecific.collect::<Vec<_>>(), [""; 0]);
    }
    let expires = || (!is_usable()?).then_some(());
    wait_until(RESTART_TIMEOUT, expires)
        .context("the default route is still used, although it is no longer announced")
}

fn the_first_gateway_takes_over(lab: &Lab) -> Result<()> {
    wait_for_exit_gateway(lab, SENDER, Some(SECOND_GATEWAY), RESTART_TIMEOUT)?;
    lab.node(SECOND_GATEWAY)?.stop_cleanly()?;
    wait_for_exit_gateway(lab, SENDER, Some(FIRST_GATEWAY), TAKEOVER_TIMEOUT)?;
    wait_until_outside_answers(lab, TAKEOVER_TIMEOUT).context("by the first gateway")
}

/// A gateway whose host loses its default route withdraws its own at once; babeld alone would keep it for minutes.
fn a_gateway_without_a_default_route_is_not_used(lab: &Lab) -> Result<()> {
    let gateway = lab.node(FIRST_GATEWAY)?;
    gateway.command("ip", &["-6", "route", "del", "default"])?;
    wait_for_exit_gateway(lab, SENDER, None, WITHDRAWAL_TIMEOUT)?;
    assert!(!reaches_outside(lab)?);
    add_default_route(gateway, ROUTER)?;
    wait_for_exit_gateway(lab, SENDER, Some(FIRST_GATEWAY), TAKEOVER_TIMEOUT)?;
    wait_until_outside_answers(lab, TAKEOVER_TIMEOUT)
        .context("after the gateway's default route was added again")
}

fn without_gateways_the_rules_are_removed(lab: &Lab) -> Result<()> {
    let sender = lab.node(SENDER)?;
    name_gateways(lab, &[])?;
    let rules_are_removed = || {
        let rules = ip::output(sender.namespace(), &["-6", "rule"]).ok()?;
        (!rules.contains("lookup 199")).then_some(())
    };
    wait_until(RESTART_TIMEOUT, rules_are_removed).context("the rules of the exit routes stay")
}

/// Sends, through all tunnels of the node, Updates (RFC 8966, section 4.6.9) of two default routes under the node's own
/// router id: one for packets from the network's range (RFC 9079), one for all packets.
fn announce_default_routes(lab: &Lab, index: usize) -> Result<()> {
    let node = lab.node(index)?;
    let packet = default_route_packet(lab, node)?;
    let tunnels: TunnelsDocument = node.control_document(TUNNELS_PATH)?;
    for tunnel in tunnels.tunnels.iter().filter(|tunnel| tunnel.phase == "up") {
        let arguments = ["-o", "link", "show", "dev", &tunnel.slot];
        let link = ip::output(node.namespace(), &arguments)?;
        let link_index = link.split(':').next().context("the link has no index")?;
        let target = SocketAddrV6::new(GROUP, PORT, 0, link_index.parse()?);
        netns::run_inside(node.namespace(), || {
            let socket = UdpSocket::bind("[::]:0")?;
            socket.set_multicast_loop_v6(false)?;
            socket.send_to(&packet, target)?;
            Ok(())
        })?;
    }
    pause(Duration::from_millis(250));
    Ok(())
}

/// A Babel packet with a Router-Id TLV and two Update TLVs, one of them with a source prefix.
fn default_route_packet(lab: &Lab, node: &Node) -> Result<Vec<u8>> {
    let range = network(lab)?.range();
    let prefix = node.prefix()?.parse().ok().context("no prefix")?;
    let mut body = [&[6, 10, 0, 0], &router_id(prefix)[..]].concat();
    let [interval_high, interval_low] = UPDATE_INTERVAL_CENTISECONDS.to_be_bytes();
    // Type, length, address encoding (IPv6), flags, prefix length, omitted bytes; interval; sequence number 1; metric 0.
    let update = |length: u8| {
        let head = [8, length, 2, 0, 0, 0];
        [&head[..], &[interval_high, interval_low, 0, 1, 0, 0]].concat()
    };
    // The source prefix sub-TLV has type 128.
    body.extend(update(19).into_iter().chain([128, 7, 48]));
    body.extend(range.network().octets().into_iter().take(6));
    body.extend(update(10));
    let header = [42, 2, 0, u8::try_from(body.len())?];
    Ok([&header, &body[..]].concat())
}
