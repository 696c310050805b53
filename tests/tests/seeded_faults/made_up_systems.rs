//! Faults of hosts that are made up: folders with the files that `warren doctor` reads, such as `proc` and `etc`.

use crate::shown::{Table, examined, warren_here, write};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// A fault of a host: its name, what is changed, and the check that must show it, with its outcome.
type Fault = (
    &'static str,
    fn(&System) -> Result<()>,
    &'static str,
    &'static str,
);

/// A made-up host without a fault.
struct System(PathBuf);

impl System {
    fn new(folder: PathBuf) -> Result<Self> {
        let system = Self(folder);
        for (file, text) in [
            ("proc/sys/kernel/osrelease", "6.1.0"),
            ("boot/config-6.1.0", "CONFIG_IPV6_SUBTREES=y"),
            ("proc/sys/net/ipv6/conf/all/disable_ipv6", "0"),
            ("proc/sys/net/ipv6/conf/all/forwarding", "0"),
            ("proc/sys/net/ipv4/conf/all/rp_filter", "0"),
            ("proc/sys/net/ipv4/conf/default/rp_filter", "2"),
            ("proc/self/status", "CapEff:\t000001ffffffffff"),
            (
                "proc/net/route",
                "Iface Destination\neth0 00000000 0100A8C0",
            ),
            ("proc/net/ipv6_route", ROUTE),
            ("proc/sys/net/ipv6/conf/eth0/accept_ra", "2"),
            ("proc/sys/net/ipv6/conf/eth0/forwarding", "1"),
            ("sys/class/net/eth0/mtu", "1500"),
            ("run/systemd/timesync/synchronized", ""),
        ] {
            system.write(file, text)?;
        }
        fs::create_dir_all(system.0.join("dev/net"))?;
        fs::create_dir_all(system.0.join("usr/sbin"))?;
        symlink("/dev/null", system.0.join("dev/net/tun"))?;
        symlink("net:[1]", system.folder("proc/self/ns")?.join("net"))?;
        for program in ["openvpn", "babeld"] {
            let real = Path::new("/usr/sbin").join(program);
            symlink(real, system.0.join("usr/sbin").join(program))?;
        }
        Ok(system)
    }

    fn folder(&self, path: &str) -> Result<PathBuf> {
        let folder = self.0.join(path);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        write(&self.0.join(file), text)
    }

    fn remove(&self, file: &str) -> Result<()> {
        Ok(fs::remove_file(self.0.join(file))?)
    }

    /// Puts a program in place that prints this version.
    fn program(&self, name: &str, version: &str) -> Result<()> {
        let file = self.0.join("usr/sbin").join(name);
        fs::remove_file(&file)?;
        fs::write(&file, format!("#!/bin/sh\necho {version}\n"))?;
        Ok(fs::set_permissions(
            &file,
            fs::Permissions::from_mode(0o755),
        )?)
    }

    /// Adds a process of the host's own network namespace.
    fn process(&self, pid: u32, name: &str) -> Result<()> {
        self.write(&format!("proc/{pid}/comm"), name)?;
        symlink(
            "net:[1]",
            self.folder(&format!("proc/{pid}/ns"))?.join("net"),
        )?;
        Ok(())
    }
}

/// The default route by `eth0`, as in `/proc/net/ipv6_route`.
const ROUTE: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
     fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth0";

const FAULTS: &[Fault] = &[
    (
        "no TUN device",
        |s| s.remove("dev/net/tun"),
        "tun",
        "failed",
    ),
    (
        "a file in place of the TUN device",
        |s| {
            s.remove("dev/net/tun")?;
            s.write("dev/net/tun", "")
        },
        "tun",
        "failed",
    ),
    (
        "kernel without IPv6",
        |s| s.remove("proc/sys/net/ipv6/conf/all/disable_ipv6"),
        "ipv6",
        "failed",
    ),
    (
        "kernel without CONFIG_IPV6_SUBTREES",
        |s| s.write("boot/config-6.1.0", "CONFIG_IPV6=y"),
        "source_routing",
        "warning",
    ),
    (
        "uplink that ignores router advertisements",
        |s| s.write("proc/sys/net/ipv6/conf/eth0/accept_ra", "1"),
        "accept_ra",
        "warning",
    ),
    (
        "strict reverse path filter",
        |s| s.write("proc/sys/net/ipv4/conf/all/rp_filter", "1"),
        "rp_filter",
        "warning",
    ),
    (
        "uplink with a small MTU",
        |s| s.write("sys/class/net/eth0/mtu", "1280"),
        "mtu",
        "warning",
    ),
    (
        "systemd-networkd that removes routes of others",
        |s| s.process(70, "systemd-network"),
        "systemd_networkd",
        "warning",
    ),
    (
        "NetworkManager that manages all links",
        |s| s.process(71, "NetworkManager"),
        "network_manager",
        "warning",
    ),
    (
        "clock not synchronised",
        |s| {
            s.remove("run/systemd/timesync/synchronized")?;
            s.process(72, "systemd-timesyn")
        },
        "clock_synchronised",
        "warning",
    ),
    (
        "OpenVPN not installed",
        |s| s.remove("usr/sbin/openvpn"),
        "openvpn",
        "failed",
    ),
    (
        "OpenVPN 2.4",
        |s| s.program("openvpn", "OpenVPN 2.4.7 x86_64"),
        "openvpn",
        "failed",
    ),
    (
        "babeld 1.8",
        |s| s.program("babeld", "babeld-1.8.5"),
        "babeld",
        "failed",
    ),
    (
        "container without CAP_NET_ADMIN",
        |s| s.write("proc/self/status", "CapEff:\t0000000000000000"),
        "capabilities",
        "failed",
    ),
    (
        "another babeld",
        |s| s.process(73, "babeld"),
        "other_babeld",
        "failed",
    ),
    (
        "Debian's babeld enabled",
        |s| {
            s.write(
                "etc/systemd/system/multi-user.target.wants/babeld.service",
                "",
            )
        },
        "unit_babeld",
        "warning",
    ),
    (
        "Debian's openvpn enabled, with a configuration",
        |s| {
            s.write("etc/openvpn/home.conf", "dev tun")?;
            s.write(
                "etc/systemd/system/multi-user.target.wants/openvpn.service",
                "",
            )
        },
        "unit_openvpn",
        "warning",
    ),
];

/// Examines each made-up host, for a machine that has not joined.
pub fn check(folder: &Path, table: &mut Table) -> Result<()> {
    let root = folder.join("not-joined").display().to_string();
    let doctor = |system: &System| {
        let system = system.0.to_str().context("the folder's name is no text")?;
        let arguments = ["doctor", "--json", "--root", &root, "--system-root", system];
        examined(&warren_here(&arguments)?)
    };
    let healthy = doctor(&System::new(folder.join("system"))?)?;
    let complaints: Vec<_> = healthy
        .outcomes
        .iter()
        .filter(|(check, outcome)| {
            // The users come with the package, and need not exist here.
            check.as_str() != "users" && matches!(outcome.as_str(), "failed" | "warning")
        })
        .collect();
    ensure!(complaints.is_empty(), "{complaints:?}");
    for (number, (fault, seed, id, outcome)) in FAULTS.iter().enumerate() {
        let system = System::new(folder.join(format!("system-{number}")))?;
        seed(&system)?;
        table.check_doctor(
            &format!("made-up host: {fault}"),
            &doctor(&system)?,
            id,
            outcome,
        )?;
    }
    Ok(())
}
