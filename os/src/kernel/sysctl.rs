//! Reads and writes settings below `/proc/sys`.

use super::KernelError;
use fault_points::fault;
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

/// Turns on IPv6 on a link, whatever the host's setting for new links is.
pub(super) fn enable_ipv6(link: &str) -> Result<(), KernelError> {
    set(&ipv6(link, "disable_ipv6"), "0")
}

/// Turns off IPv6 on a link that only carries VLANs. Where settings cannot be changed, the link has no address all the
/// same, since none is generated.
pub(super) fn disable_ipv6(link: &str) -> Result<(), KernelError> {
    match write(&ipv6(link, "disable_ipv6"), "1") {
        Err(error) if error.kind() != io::ErrorKind::ReadOnlyFilesystem => Err(
            KernelError::refused(format!("turn off IPv6 on {link}"))(error),
        ),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Turns the forwarding of IPv4 packets that arrive on a link on or off, independently of the host's setting for
/// all links. When it is turned on, packets are accepted even if replies to their sender leave by another link
/// (`rp_filter` 2; the larger of the link's and the host's value counts: ip-sysctl.rst).
pub(super) fn set_ipv4_forwarding(link: &str, on: bool) -> Result<(), KernelError> {
    let settings = ipv4_settings(link);
    let [(forwarding, _), _] = &settings;
    if !on {
        return set(forwarding, "0");
    }
    settings
        .iter()
        .try_for_each(|(path, value)| set(path, value))
}

/// Returns the settings of a slot that carries IPv4, with their values.
fn ipv4_settings(link: &str) -> [(String, &'static str); 2] {
    [("forwarding", "1"), ("rp_filter", "2")]
        .map(|(key, value)| (format!("net/ipv4/conf/{link}/{key}"), value))
}

/// Returns the settings that a slot must keep as long as it exists, with their values.
pub(super) fn slot_settings(link: &str, forwards_ipv4: bool) -> Vec<(String, &'static str)> {
    let ipv6 = [
        ("disable_ipv6", "0"),
        ("accept_ra", "0"),
        ("accept_redirects", "0"),
    ]
    .map(|(key, value)| (ipv6(link, key), value));
    let ipv4 = forwards_ipv4.then(|| ipv4_settings(link));
    ipv6.into_iter().chain(ipv4.into_iter().flatten()).collect()
}

/// Sets a value, unless the setting has it already: in a container, settings may be right and read-only.
fn set(path: &str, value: &str) -> Result<(), KernelError> {
    if read(path).is_ok_and(|present| present == value) {
        return Ok(());
    }
    let doing = format!("set {path} to {value}");
    write(path, value).map_err(|error| {
        let is_read_only = error.kind() == io::ErrorKind::ReadOnlyFilesystem;
        let hint = if is_read_only {
            "; /proc/sys is read-only here, so set it, or net.ipv6.conf.default, from outside"
        } else {
            ""
        };
        KernelError::refused(format!("{doing}{hint}"))(error)
    })
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
        .write_all(value.as_bytes())?;
    fault!("set {path}");
    Ok(())
}
