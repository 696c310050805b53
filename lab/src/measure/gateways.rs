//! Measures what a node gets from the router in front of it: from a scripted UPnP gateway with one fault at a time, and from a real
//! miniupnpd that speaks one protocol only.

use crate::{
    Lab, Options,
    nat_router::{MappingProtocols, NODE_ADDRESS, NatRouter, ROUTER_ADDRESS},
    node::Node,
    process::run,
    progress::{progress, seconds},
    scripted_gateway::{
        ScriptedGateway,
        faults::{self, EXTERNAL_ADDRESS, GatewayFaults},
    },
    wait::wait_until,
};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::{Duration, Instant},
};
use wire::control::{STATUS_PATH, StatusDocument};

/// Longest wait until both ports are announced, or the reason is reported why not.
const RESULT_TIMEOUT: Duration = Duration::from_secs(40);
/// Longest wait until a change of the gateway is noticed.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// The time within which a change of the gateway must be noticed.
const MAX_CHANGE_TIME: f64 = 30.0;
/// The external address of a gateway after its restart.
const CHANGED_ADDRESS: &str = "45.67.2.99";
/// The address of another device on the LAN, which answers searches faster than the gateway and then hangs.
const OTHER_DEVICE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 9);
/// Longest time that ip(8) may take.
const IP_TIMEOUT: Duration = Duration::from_secs(5);
/// The ports that a node wants to have mapped: one by UDP, and one by TCP.
const PORTS: usize = 2;

/// Cases that are no fault of the scripted gateway alone.
const OTHER_DEVICE_HANGS: &str = "other-device-hangs";
const RESTARTED: &str = "restarted";
const RESTARTED_ELSEWHERE: &str = "restarted-with-another-address";
const NODE_KILLED: &str = "node-killed";
const MINIUPNPD: [(&str, MappingProtocols); 4] = [
    ("miniupnpd", MappingProtocols::All),
    ("miniupnpd-upnp-only", MappingProtocols::UpnpOnly),
    ("miniupnpd-pcp-only", MappingProtocols::PcpOnly),
    ("miniupnpd-nat-pmp-only", MappingProtocols::NatPmpOnly),
];

/// One gateway, and what the node made of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GatewayCase {
    /// The name of the fault.
    fault: String,
    /// The number of ports that the node announced at the gateway's address.
    mapped_ports: usize,
    /// Whether these are as many as the gateway can map.
    is_as_expected: bool,
    /// Time from the start of the daemon, or from the change of the gateway, until both ports were announced.
    seconds_to_announce: Option<f64>,
    /// Why a port is not mapped, as `warren status` says it.
    reason: Option<String>,
    /// Mappings on the gateway after the daemon was stopped.
    mappings_left: usize,
    /// Addresses that the node announced as the gateway's, and that are not.
    wrong_addresses: usize,
}

/// The output of `measure gateways`.
#[derive(Clone, Debug, Serialize)]
pub struct Gateways {
    /// Load of the machine over the last minute, after the measurement.
    load_average: String,
    /// All cases, in the order of their measurement.
    pub cases: Vec<GatewayCase>,
    /// Cases in which fewer or more ports were mapped than can be, or too late.
    pub failed: usize,
    /// Cases in which a port was not mapped, and nothing was reported.
    pub silent: usize,
    /// Mappings that were left on the gateways after the daemon was stopped.
    pub mappings_left: usize,
    /// Addresses that were announced as those of gateways, and are not.
    pub wrong_addresses: usize,
    /// Longest time until a restarted gateway was noticed and the ports were announced again.
    pub restart_seconds_max: f64,
}

/// The node, and its router.
struct Site<'a> {
    node: &'a Node,
    router: &'a NatRouter,
    /// Addresses that the node announced as mapped.
    announced: BTreeSet<IpAddr>,
}

/// Measures the faults of these names, or all.
///
/// # Errors
/// Fails if there is no such fault, if the lab cannot be built, or if a daemon does not start or stop.
pub fn measure(only: &[String]) -> Result<Gateways> {
    let scripted = faults::all();
    let own = [
        OTHER_DEVICE_HANGS,
        RESTARTED,
        RESTARTED_ELSEWHERE,
        NODE_KILLED,
    ];
    let known: Vec<&str> = scripted
        .iter()
        .map(|gateway| gateway.name)
        .chain(own)
        .chain(MINIUPNPD.map(|(name, _)| name))
        .collect();
    for name in only {
        ensure!(
            known.contains(&name.as_str()),
            "there is no fault {name}: expected one of {}",
            known.join(", ")
        );
    }
    let is_wanted = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    let lab = Lab::build_joined(Options {
        nodes_behind_nat: BTreeSet::from([0]),
        ..Options::with_nodes(1)
    })?;
    let node = lab.node(0)?;
    node.configure("log", "info,actors=debug")?;
    let mut site = Site {
        node,
        router: lab.nat_routers().first().context("there is no router")?,
        announced: BTreeSet::new(),
    };
    site.router.stop_miniupnpd();
    let mut cases = Vec::new();
    let mut add = |case: GatewayCase| {
        progress(format!("{case:?}"));
        cases.push(case);
    };
    for gateway in scripted
        .into_iter()
        .filter(|gateway| is_wanted(gateway.name))
    {
        add(site.measure_scripted(gateway.name, gateway.faults, gateway.can_map)?);
    }
    for name in own.into_iter().filter(|name| is_wanted(name)) {
        add(site.measure_event(name)?);
    }
    for (name, protocols) in MINIUPNPD.into_iter().filter(|(name, _)| is_wanted(name)) {
        add(site.measure_miniupnpd(name, protocols)?);
    }
    summarize(cases)
}

fn summarize(cases: Vec<GatewayCase>) -> Result<Gateways> {
    let load = fs::read_to_string("/proc/loadavg").context("cannot read the load")?;
    let restarts = cases
        .iter()
        .filter(|case| case.fault.starts_with(RESTARTED));
    let restarts = restarts.filter_map(|case| case.seconds_to_announce);
    let is_silent = |case: &&GatewayCase| case.mapped_ports < PORTS && case.reason.is_none();
    Ok(Gateways {
        load_average: load.split(' ').next().unwrap_or_default().to_owned(),
        failed: cases.iter().filter(|case| !case.is_as_expected).count(),
        silent: cases.iter().filter(is_silent).count(),
        mappings_left: cases.iter().map(|case| case.mappings_left).sum(),
        wrong_addresses: cases.iter().map(|case| case.wrong_addresses).sum(),
        restart_seconds_max: restarts.fold(0.0, f64::max),
        cases,
    })
}

impl Site<'_> {
    /// Measures a scripted gateway with a fault.
    fn measure_scripted(
        &mut self,
        name: &str,
        faults: GatewayFaults,
        can_map: bool,
    ) -> Result<GatewayCase> {
        let gateway = self.start_gateway(faults)?;
        let mut case = self.start_node(name, EXTERNAL_ADDRESS)?;
        self.stop_node(&mut case, || Ok(gateway.mappings().len()))?;
        self.judge(&mut case, can_map, &[EXTERNAL_ADDRESS]);
        Ok(case)
    }

    /// Measures what happens between a node and a scripted gateway without faults.
    fn measure_event(&mut self, name: &str) -> Result<GatewayCase> {
        if name == OTHER_DEVICE_HANGS {
            return self.measure_other_device();
        }
        let gateway = self.start_gateway(GatewayFaults::default())?;
        let mut case = self.start_node(name, EXTERNAL_ADDRESS)?;
        if name == NODE_KILLED {
            self.node.kill();
            case = self.start_node(name, EXTERNAL_ADDRESS)?;
            case.mappings_left = gateway.mappings().len().saturating_sub(PORTS);
        } else {
            let address = if name == RESTARTED {
                EXTERNAL_ADDRESS
            } else {
                CHANGED_ADDRESS
            };
            let since = Instant::now();
            gateway.restart(address);
            let is_restored = || {
                let mapped = self.mapped_ports(address)?;
                (mapped == PORTS && gateway.mappings().len() == PORTS).then_some(mapped)
            };
            let restored = wait_until(CHANGE_TIMEOUT, is_restored);
            case.mapped_ports = restored.unwrap_or(0);
            case.seconds_to_announce = restored.map(|_| seconds(since.elapsed()));
        }
        let left = case.mappings_left;
        self.stop_node(&mut case, || Ok(left + gateway.mappings().len()))?;
        self.judge(&mut case, true, &[EXTERNAL_ADDRESS, CHANGED_ADDRESS]);
        let is_late = |time: f64| time > MAX_CHANGE_TIME;
        case.is_as_expected &= !case.seconds_to_announce.is_some_and(is_late);
        Ok(case)
    }

    fn measure_other_device(&mut self) -> Result<GatewayCase> {
        let namespace = self.router.namespace();
        let change_address = |verb: &str| {
            let address = format!("{OTHER_DEVICE}/24");
            let arguments = ["addr", verb, &address, "dev", "lan0"];
            run(namespace, Path::new("ip"), arguments, IP_TIMEOUT)
        };
        change_address("add")?;
        let hanging = GatewayFaults {
            document_delay: Duration::from_secs(60),
            ..GatewayFaults::default()
        };
        let slow = GatewayFaults {
            search_delay: Duration::from_millis(500),
            ..GatewayFaults::default()
        };
        let other = ScriptedGateway::start(namespace, OTHER_DEVICE, hanging)?;
        let case = self.measure_scripted(OTHER_DEVICE_HANGS, slow, true)?;
        drop(other);
        change_address("del")?;
        Ok(case)
    }

    /// Measures miniupnpd with these protocols.
    fn measure_miniupnpd(
        &mut self,
        name: &str,
        protocols: MappingProtocols,
    ) -> Result<GatewayCase> {
        self.router.start_miniupnpd(protocols)?;
        let mut case = self.start_node(name, EXTERNAL_ADDRESS)?;
        let router = self.router;
        self.stop_node(&mut case, || Ok(router.mappings()?.len()))?;
        self.router.stop_miniupnpd();
        self.judge(&mut case, true, &[EXTERNAL_ADDRESS]);
        Ok(case)
    }

    fn start_gateway(&self, faults: GatewayFaults) -> Result<ScriptedGateway> {
        let address = ROUTER_ADDRESS.parse()?;
        ScriptedGateway::start(self.router.namespace(), address, faults)
    }

    /// Starts the node, and waits until both ports are announced, or the node reports why not.
    fn start_node(&mut self, name: &str, address: &str) -> Result<GatewayCase> {
        self.announced.clear();
        let ledger = self.node.root().join("var/lib/warren/leases.json");
        if name != NODE_KILLED && ledger.exists() {
            fs::remove_file(&ledger).context("cannot remove the ledger of leases")?;
        }
        let since = Instant::now();
        self.node.start()?;
        let outcome = wait_until(RESULT_TIMEOUT, || {
            let mapped = self.mapped_ports(address)?;
            let reason = self.reason();
            (mapped == PORTS || reason.is_some()).then_some((mapped, reason))
        });
        let (mapped_ports, reason) = outcome.unwrap_or((0, None));
        Ok(GatewayCase {
            fault: name.to_owned(),
            mapped_ports,
            seconds_to_announce: (mapped_ports == PORTS).then(|| seconds(since.elapsed())),
            reason,
            ..GatewayCase::default()
        })
    }

    /// Stops the node, and counts the mappings that are left after that.
    fn stop_node(
        &self,
        case: &mut GatewayCase,
        count_mappings: impl Fn() -> Result<usize>,
    ) -> Result<()> {
        self.node.stop_cleanly()?;
        case.mappings_left = count_mappings()?;
        Ok(())
    }

    /// Counts the wrong addresses, and decides whether the case is as it should be.
    fn judge(&self, case: &mut GatewayCase, can_map: bool, addresses: &[&str]) {
        let is_right = |address: &&IpAddr| addresses.contains(&address.to_string().as_str());
        case.wrong_addresses = self.announced.iter().filter(|a| !is_right(a)).count();
        let expected = if can_map { PORTS } else { 0 };
        case.is_as_expected = case.mapped_ports == expected;
    }

    /// Returns how many mapped ports the node announces at this address, and remembers all addresses; `None` if it does not answer.
    fn mapped_ports(&mut self, address: &str) -> Option<usize> {
        let status: StatusDocument = self.node.control_document(STATUS_PATH).ok()?;
        let mapped = status.endpoints.iter();
        let mapped = mapped.filter(|entry| entry.source == "port-mapping");
        let addresses: Vec<_> = mapped
            .filter_map(|entry| {
                let (_, socket) = entry.endpoint.split_once(':')?;
                Some(socket.parse::<std::net::SocketAddr>().ok()?.ip())
            })
            .collect();
        self.announced.extend(&addresses);
        let own: IpAddr = NODE_ADDRESS.into();
        let wanted: IpAddr = address.parse().ok()?;
        let at_gateway = addresses
            .iter()
            .filter(|found| **found == wanted && **found != own);
        Some(at_gateway.count())
    }

    /// Returns why a port is not mapped, as the node reports it.
    fn reason(&self) -> Option<String> {
        let status: StatusDocument = self.node.control_document(STATUS_PATH).ok()?;
        let mut findings = status.health.findings.into_iter();
        let found = findings.find(|finding| finding.id == "port_mapping_missing");
        found.map(|finding| format!("{}: {}", finding.severity, finding.seen))
    }
}
