//! Reads and writes settings below `/proc/sys`.

use super::KernelError;
use std::{fs, io, io::Write};

/// Settings of each slot before it is set up. It accepts no address or route from a router, and no
/// duplicate address detection delays its one address, which is unique by construction.
const NO_AUTOCONFIGURATION: [(&str, &str); 6] = [
    ("accept_ra", "0"),
    ("accept_redirects", "0"),
    ("autoconf", "0"),
    ("accept_dad", "0"),
    ("dad_transmits", "0"),
    // The kernel generates no link-local address.
    ("addr_gen_mode", "1"),
];

/// Turns off the IPv6 autoconfiguration of a link.
pub(super) fn disable_autoconfiguration(link: &str) -> Result<(), KernelError> {
    NO_AUTOCONFIGURATION
        .iter()
        .try_for_each(|(key, value)| set(&ipv6(link, key), value))
}

/// Turns off IPv6 on a link that only carries VLANs.
pub(super) fn disable_ipv6(link: &str) -> Result<(), KernelError> {
    set(&ipv6(link, "disable_ipv6"), "1")
}

/// Turns the forwarding of IPv4 packets that arrive on a link on or off, independently of the host's setting for
/// all links. When it is turned on, packets are accepted even if replies to their sender leave by another link
/// (`rp_filter` 2; the larger of the link's and the host's value counts: ip-sysctl.rst).
pub(super) fn set_ipv4_forwarding(link: &str, on: bool) -> Result<(), KernelError> {
    if on {
        set(&format!("net/ipv4/conf/{link}/rp_filter"), "2")?;
    }
    set(
        &format!("net/ipv4/conf/{link}/forwarding"),
        if on { "1" } else { "0" },
    )
}

fn set(path: &str, value: &str) -> Result<(), KernelError> {
    write(path, value).map_err(KernelError::refused(format!("set {path} to {value}")))
}

/// Returns the path of a link's IPv6 setting below `/proc/sys`.
pub(super) fn ipv6(link: &str, key: &str) -> String {
    format!("net/ipv6/conf/{link}/{key}")
}

/// Reads a value, without the newline at its end.
pub(super) fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(format!("/proc/sys/{path}")).map(|text| text.trim_end().to_owned())
}

/// Returns whether a setting can be changed here. The files of most settings that belong to the whole host are read-only
/// in further network namespaces.
pub(super) fn is_writable(path: &str) -> bool {
    fs::OpenOptions::new()
        .write(true)
        .open(format!("/proc/sys/{path}"))
        .is_ok()
}

pub(super) fn write(path: &str, value: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .open(format!("/proc/sys/{path}"))?
        .write_all(value.as_bytes())
}
