//! Checks of the kernel and of settings of the host that warren needs, or that others may change behind its back.

use super::{Check, Daemon, Examined, is_root};
use os::kernel::{AcceptingKind, Kernel};
use std::{fs, io::Read, os::unix::fs::FileTypeExt};

/// Longest configuration of a kernel that is read, in bytes.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

pub(super) async fn checks(examined: &Examined) -> Vec<Check> {
    vec![
        tun(examined),
        ipv6(examined),
        source_routing(examined),
        accepting(examined).await,
        forwarding(examined),
        reverse_path_filter(examined),
        router_advertisements(examined),
        networkd(examined),
        network_manager(examined),
        clock_synchronised(examined),
    ]
}

fn tun(examined: &Examined) -> Check {
    let path = examined.system.join("dev/net/tun");
    match fs::metadata(&path) {
        Ok(found) if found.file_type().is_char_device() => {
            Check::ok("tun", "/dev/net/tun is there")
        }
        Ok(_) => Check::failed(
            "tun",
            "/dev/net/tun is no device",
            "remove it, then: modprobe tun",
        ),
        Err(error) => Check::failed(
            "tun",
            format!("/dev/net/tun: {error}"),
            "load the kernel module: modprobe tun; in a container, pass the device in",
        ),
    }
}

fn ipv6(examined: &Examined) -> Check {
    match examined
        .read("proc/sys/net/ipv6/conf/all/disable_ipv6")
        .as_deref()
    {
        Some("0") => Check::ok("ipv6", "IPv6 is enabled"),
        Some(_) => Check::warning(
            "ipv6",
            "IPv6 is disabled (net.ipv6.conf.all.disable_ipv6); the daemon enables it on lo and its own links only",
            "nothing, unless the node should be dialled by IPv6: sysctl net.ipv6.conf.all.disable_ipv6=0",
        ),
        None => Check::failed(
            "ipv6",
            "the kernel has no IPv6",
            "boot a kernel with IPv6, without ipv6.disable=1",
        ),
    }
}

/// Returns whether the kernel can choose routes by source address, which exit gateways need.
fn source_routing(examined: &Examined) -> Check {
    let release = examined
        .read("proc/sys/kernel/osrelease")
        .unwrap_or_default();
    let config = examined.read(&format!("boot/config-{release}"));
    let Some(config) = config.or_else(|| compressed_config(examined)) else {
        return Check::skipped(
            "source_routing",
            "the configuration of the kernel is not known",
        );
    };
    if config.lines().any(|line| line == "CONFIG_IPV6_SUBTREES=y") {
        Check::ok("source_routing", "the kernel has CONFIG_IPV6_SUBTREES")
    } else {
        Check::warning(
            "source_routing",
            "the kernel has no CONFIG_IPV6_SUBTREES",
            "use a kernel with it if this node uses exit gateways",
        )
    }
}

/// Returns the configuration of the running kernel, if the kernel shows it.
fn compressed_config(examined: &Examined) -> Option<String> {
    let file = fs::File::open(examined.system.join("proc/config.gz")).ok()?;
    let mut text = String::new();
    let mut reader = flate2::read::GzDecoder::new(file).take(MAX_CONFIG_BYTES);
    reader.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Finds out by a temporary link whether the kernel can separate the clients of a server.
async fn accepting(examined: &Examined) -> Check {
    const ID: &str = "accepting_slots";
    if !is_root() {
        return Check::skipped(ID, "needs root");
    }
    let kind = match Kernel::open(examined.paths.root()) {
        Ok(kernel) => kernel.accepting_kind().await,
        Err(error) => return Check::skipped(ID, wire::errors::Chain(&error).to_string()),
    };
    match kind {
        Some(AcceptingKind::Vlan) => Check::ok(ID, "the kernel has VLAN links (8021q)"),
        Some(AcceptingKind::Macvlan) => Check::ok(ID, "the kernel has macvlan links and BPF"),
        None => Check::warning(
            ID,
            "no tunnel can be accepted: the kernel has neither VLAN links nor macvlans with BPF",
            "load the kernel module 8021q; without it the node only dials",
        ),
    }
}

fn forwarding(examined: &Examined) -> Check {
    const ID: &str = "forwarding";
    let is_on = examined
        .read("proc/sys/net/ipv6/conf/all/forwarding")
        .as_deref()
        == Some("1");
    match (&examined.daemon, is_on) {
        (_, true) => Check::ok(ID, "IPv6 forwarding is on"),
        (Daemon::Running { .. }, false) => Check::failed(
            ID,
            "IPv6 forwarding is off, although the daemon turned it on",
            "the daemon turns it on again within seconds; if it stays off, see journalctl -u warren",
        ),
        (Daemon::NotRunning | Daemon::Unknown(_), false) => {
            Check::ok(ID, "IPv6 forwarding is off; the daemon turns it on")
        }
    }
}

fn reverse_path_filter(examined: &Examined) -> Check {
    let strict = ["all", "default"].into_iter().filter(|name| {
        let path = format!("proc/sys/net/ipv4/conf/{name}/rp_filter");
        examined.read(&path).as_deref() == Some("1")
    });
    let strict: Vec<_> = strict.collect();
    if strict.is_empty() {
        Check::ok("rp_filter", "the reverse path filter is off or loose")
    } else {
        Check::warning(
            "rp_filter",
            format!(
                "the reverse path filter is strict for IPv4: {}",
                strict.join(", ")
            ),
            "if the network carries IPv4: sysctl net.ipv4.conf.all.rp_filter=2, and for default",
        )
    }
}

/// Returns the links of IPv6 default routes, from `/proc/net/ipv6_route`.
pub(super) fn default_links(examined: &Examined) -> Vec<String> {
    let routes = examined.read("proc/net/ipv6_route").unwrap_or_default();
    let link = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_default = fields.get(1) == Some(&"00") && fields.get(4) != fields.first();
        fields
            .last()
            .filter(|_| is_default)
            .map(ToString::to_string)
    };
    let mut links: Vec<_> = routes.lines().filter_map(link).collect();
    links.sort();
    links.dedup();
    links.retain(|link| link != "lo");
    links
}

fn router_advertisements(examined: &Examined) -> Check {
    const ID: &str = "accept_ra";
    let value =
        |link: &str, name: &str| examined.read(&format!("proc/sys/net/ipv6/conf/{link}/{name}"));
    let ignores = |link: &String| {
        value(link, "accept_ra").as_deref() == Some("1")
            && value(link, "forwarding").as_deref() == Some("1")
    };
    let links: Vec<_> = default_links(examined)
        .into_iter()
        .filter(ignores)
        .collect();
    if links.is_empty() {
        return Check::ok(
            ID,
            "no uplink depends on router advertisements that it ignores",
        );
    }
    let seen = format!(
        "with forwarding, these uplinks ignore router advertisements: {}",
        links.join(", ")
    );
    Check::warning(
        ID,
        seen,
        "sysctl net.ipv6.conf.LINK.accept_ra=2 for each of them",
    )
}

fn networkd(examined: &Examined) -> Check {
    const ID: &str = "systemd_networkd";
    if !examined.runs("systemd-network") {
        return Check::ok(ID, "systemd-networkd does not run");
    }
    let mut files = vec!["etc/systemd/networkd.conf".to_owned()];
    let folder = "etc/systemd/networkd.conf.d";
    files.extend(
        examined
            .list(folder)
            .iter()
            .map(|name| format!("{folder}/{name}")),
    );
    let texts: Vec<_> = files
        .iter()
        .filter_map(|file| examined.read(file))
        .collect();
    let is_off = |key: &str| {
        let mut lines = texts.iter().flat_map(|text| text.lines());
        lines.any(|line| line.replace(' ', "") == format!("{key}=no"))
    };
    if is_off("ManageForeignRoutes") && is_off("ManageForeignRoutingPolicyRules") {
        return Check::ok(
            ID,
            "systemd-networkd leaves the routes and rules of others alone",
        );
    }
    Check::warning(
        ID,
        "systemd-networkd removes the routes and rules of other programs when it restarts; the daemon restores its own",
        "set ManageForeignRoutes=no and ManageForeignRoutingPolicyRules=no in /etc/systemd/networkd.conf",
    )
}

fn network_manager(examined: &Examined) -> Check {
    const ID: &str = "network_manager";
    if !examined.runs("NetworkManager") {
        return Check::ok(ID, "NetworkManager does not run");
    }
    let folder = "etc/NetworkManager/conf.d";
    let mut texts = examined
        .list(folder)
        .into_iter()
        .filter_map(|name| examined.read(&format!("{folder}/{name}")));
    if texts.any(|text| text.contains("unmanaged-devices") && text.contains("wrn")) {
        return Check::ok(ID, "NetworkManager leaves the links wrn* alone");
    }
    Check::warning(
        ID,
        "NetworkManager may change the links wrn* of the node",
        "put into /etc/NetworkManager/conf.d/warren.conf: [keyfile] unmanaged-devices=interface-name:wrn*",
    )
}

fn clock_synchronised(examined: &Examined) -> Check {
    const ID: &str = "clock_synchronised";
    if examined
        .system
        .join("run/systemd/timesync/synchronized")
        .exists()
    {
        return Check::ok(ID, "systemd-timesyncd has synchronised the clock");
    }
    let services = ["chronyd", "ntpd", "openntpd", "systemd-timesyn", "ptp4l"];
    match services.into_iter().find(|name| examined.runs(name)) {
        Some("systemd-timesyn") => Check::warning(
            ID,
            "systemd-timesyncd has not synchronised the clock yet",
            "check that NTP servers can be reached: timedatectl timesync-status",
        ),
        Some(service) => Check::ok(ID, format!("{service} runs")),
        None => Check::skipped(ID, "no service for NTP is known to run"),
    }
}
