//! Single settings below `/proc/sys`, read and written as the kernel shows them.

use super::KernelError;
use std::{fs, io, io::Write};

/// What each of our links has set before it goes up: no router may give it an address or a route,
/// and nobody probes for the deterministic address that we alone give it.
const QUIET: [(&str, &str); 6] = [
    ("accept_ra", "0"),
    ("accept_redirects", "0"),
    ("autoconf", "0"),
    ("accept_dad", "0"),
    ("dad_transmits", "0"),
    // No link-local address made up by the kernel.
    ("addr_gen_mode", "1"),
];

/// Makes an IPv6 link deaf to routers and without a will of its own.
pub(super) fn quieten(link: &str) -> Result<(), KernelError> {
    QUIET
        .iter()
        .try_for_each(|(key, value)| set(&ipv6(link, key), value))
}

/// Takes IPv6 from a link that only carries others.
pub(super) fn mute(link: &str) -> Result<(), KernelError> {
    set(&ipv6(link, "disable_ipv6"), "1")
}

/// Allows or forbids forwarding of a link's IPv4 packets, whatever the host's setting for all
/// links is. Also accepts packets from a sender to which the path back leaves by another link
/// (`rp_filter` 2; the larger of the link's and the host's value counts: ip-sysctl.rst).
pub(super) fn forward_ipv4(link: &str, on: bool) -> Result<(), KernelError> {
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

/// The path of a link's IPv6 setting below `/proc/sys`.
pub(super) fn ipv6(link: &str, key: &str) -> String {
    format!("net/ipv6/conf/{link}/{key}")
}

/// The value, without the line's end.
pub(super) fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(format!("/proc/sys/{path}")).map(|text| text.trim_end().to_owned())
}

pub(super) fn write(path: &str, value: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .open(format!("/proc/sys/{path}"))?
        .write_all(value.as_bytes())
}
