//! Checks of ports, of the registry, and of how this host reaches others and is reached.

use super::{Check, Daemon, Examined, host_checks::default_links};
use crate::{errors::StartError, host::check_ports};
use config::Settings;
use membership::{
    certificate::MAX_CREDENTIAL_BYTES, credentials::NodeCredentials,
    registry_api::RegistryApiClient,
};
use os::clock::{Clock, wall};
use policies::names::Transport;
use std::time::SystemTime;
use wire::{control::TunnelEntry, errors::Chain, registry::Bootstrap};

/// Largest deviation of the host's clock from the registry's that is no fault, in seconds.
const MAX_CLOCK_OFFSET_S: u64 = 30;

/// The MTU of the uplink from which frames of tunnels (1400 bytes) fit into one packet.
const MIN_MTU: u32 = 1492;

pub(super) async fn checks(examined: &Examined, settings: Option<&Settings>) -> Vec<Check> {
    let mut checks = vec![ports(examined, settings), mtu(examined)];
    checks.extend(registry(examined, settings).await);
    checks.push(transports(examined));
    checks.push(endpoints(examined));
    checks
}

fn ports(examined: &Examined, settings: Option<&Settings>) -> Check {
    const ID: &str = "ports";
    if matches!(examined.daemon, Daemon::Running { .. }) {
        return Check::ok(ID, "the daemon has its ports");
    }
    let usual = [1194];
    let (udp, tcp) = settings.map_or((&usual[..], &usual[..]), |settings| {
        (&settings.listen_udp[..], &settings.listen_tcp[..])
    });
    let ports_of = |transport, ports: &[u16]| ports.iter().map(|port| (transport, *port)).collect();
    let all: Vec<Vec<_>> = vec![ports_of(Transport::Udp, udp), ports_of(Transport::Tcp, tcp)];
    let names = all
        .iter()
        .flatten()
        .map(|(transport, port)| format!("{transport} {port}"));
    let names: Vec<_> = names.collect();
    match check_ports(&all.concat()) {
        Ok(()) => Check::ok(ID, format!("free: {}, and 6696 of Babel", names.join(", "))),
        Err(error @ StartError::AnotherBabeld) => Check::failed(
            ID,
            Chain(&error).to_string(),
            "systemctl disable --now babeld",
        ),
        Err(error) => Check::failed(
            ID,
            Chain(&error).to_string(),
            "find the program (ss -lpn), or give other ports under listen",
        ),
    }
}

fn mtu(examined: &Examined) -> Check {
    const ID: &str = "mtu";
    let mut links = default_links(examined);
    let routes = examined.read("proc/net/route").unwrap_or_default();
    let of_ipv4 = routes.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let link = fields.next()?;
        (fields.next()? == "00000000").then(|| link.to_owned())
    });
    links.extend(of_ipv4);
    let read = |link: &String| {
        let mtu = examined.read(&format!("sys/class/net/{link}/mtu"))?;
        Some((link.clone(), mtu.parse::<u32>().ok()?))
    };
    let Some((link, mtu)) = links.iter().filter_map(read).min_by_key(|(_, mtu)| *mtu) else {
        return Check::skipped(ID, "the uplink is not known");
    };
    let seen = format!("the uplink {link} has an MTU of {mtu}");
    if mtu < MIN_MTU {
        Check::warning(
            ID,
            seen,
            "large packets of tunnels are fragmented; raise it if the line allows",
        )
    } else {
        Check::ok(ID, seen)
    }
}

/// Calls the registry with the certificate of the node, and compares the clocks.
async fn registry(examined: &Examined, settings: Option<&Settings>) -> Vec<Check> {
    const ID: &str = "registry";
    let Some(settings) = settings.filter(|_| examined.has_joined()) else {
        return vec![Check::skipped(ID, "this machine has not joined a network")];
    };
    let client = match client(examined, &settings.registry) {
        Ok(client) => client,
        Err(reason) => return vec![Check::skipped(ID, reason)],
    };
    let clock = Clock::boottime();
    let start = clock.now();
    match client.get::<Bootstrap>("/v1/bootstrap?count=1").await {
        Ok(_) => {
            let millis = clock.now().since(start).as_millis();
            let seen = format!("{} answers by TLS within {millis} ms", settings.registry);
            let mut checks = vec![Check::ok(ID, seen)];
            checks.extend(client.date().map(clock_offset));
            checks
        }
        Err(error) if error.is_certificate_rejected() => vec![Check::failed(
            ID,
            Chain(&error).to_string(),
            "the node is revoked or unknown; join again with an invitation: warren join --replace -",
        )],
        Err(error) => vec![Check::failed(
            ID,
            Chain(&error).to_string(),
            "check the address under registry, the firewall, and that the registry runs",
        )],
    }
}

fn client(examined: &Examined, url: &str) -> Result<RegistryApiClient, String> {
    let paths = &examined.paths;
    let read = |path: std::path::PathBuf| {
        files::read(&path, MAX_CREDENTIAL_BYTES)
            .map_err(|error| format!("{}: {error}", path.display()))
    };
    let (ca, certificate) = (read(paths.ca())?, read(paths.certificate())?);
    let credentials = NodeCredentials::from_pem(&ca, &certificate, &read(paths.key())?)
        .map_err(|error| Chain(&error).to_string())?;
    RegistryApiClient::with_credentials(url, &credentials)
        .map_err(|error| Chain(&error).to_string())
}

fn clock_offset(registry: SystemTime) -> Check {
    const ID: &str = "clock";
    let registry = registry.duration_since(SystemTime::UNIX_EPOCH);
    let (registry, own) = (registry.unwrap_or_default(), wall());
    let seconds = registry.abs_diff(own).as_secs();
    let direction = if own > registry { "ahead of" } else { "behind" };
    if seconds > MAX_CLOCK_OFFSET_S {
        let seen = format!("the clock of this host is {seconds} s {direction} the registry's");
        Check::failed(ID, seen, "synchronise the clock: timedatectl set-ntp true")
    } else {
        Check::ok(ID, "the clock agrees with the registry's")
    }
}

fn transports(examined: &Examined) -> Check {
    const ID: &str = "transports";
    let Daemon::Running { tunnels, .. } = &examined.daemon else {
        return Check::skipped(
            ID,
            "the daemon does not run, so nothing is known of tunnels",
        );
    };
    let is_up = |tunnel: &&TunnelEntry| tunnel.phase == "up" && tunnel.role == "dialled";
    let count = |transport: &str| {
        let up = tunnels.tunnels.iter().filter(is_up);
        up.filter(|tunnel| tunnel.transport.as_deref() == Some(transport))
            .count()
    };
    let (udp, tcp) = (count("udp"), count("tcp"));
    if (udp, tcp) == (0, 0) {
        return Check::skipped(ID, "no tunnel that this node dialled is up");
    }
    let seen = format!("dialled tunnels: {udp} by UDP, {tcp} by TCP");
    if has_finding(examined, "udp_blocked") {
        let advice = "let UDP out to the ports of other nodes (1194 by default)";
        Check::warning(ID, seen, advice)
    } else {
        Check::ok(ID, seen)
    }
}

/// Returns whether the running daemon reports this finding.
fn has_finding(examined: &Examined, id: &str) -> bool {
    let status = examined.daemon.status();
    status.is_some_and(|status| {
        let mut findings = status.health.findings.iter();
        findings.any(|finding| finding.id == id)
    })
}

fn endpoints(examined: &Examined) -> Check {
    const ID: &str = "endpoints";
    let Some(status) = examined.daemon.status() else {
        return Check::skipped(
            ID,
            "the daemon does not run, so nothing is known of endpoints",
        );
    };
    let reached = status
        .endpoints
        .iter()
        .filter(|entry| entry.reached_seconds_ago.is_some());
    let (reached, all) = (reached.count(), status.endpoints.len());
    let has = |id: &str| has_finding(examined, id);
    let seen = format!("others got through to {reached} of {all} announced endpoints");
    if has("no_endpoint") || has("not_reached") {
        let advice = "open the ports of listen in firewalls, and forward them on the router";
        Check::warning(ID, seen, advice)
    } else {
        Check::ok(ID, seen)
    }
}
