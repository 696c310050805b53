//! Parses what OpenVPN reports of one client: the lines of a `>CLIENT:ENV` block.

use policies::names::Prefix;
use std::net::{IpAddr, SocketAddr};

/// The maximum number of lines of one client's environment that are parsed.
pub(crate) const MAX_ENV_LINES: usize = 256;
/// The maximum size of one client's environment that is parsed, in bytes.
const MAX_ENV_BYTES: usize = 64 * 1024;

/// The facts that OpenVPN reports of a client. The rest of its environment, which the peer
/// controls, is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientEnv {
    /// The name that OpenVPN took from the certificate.
    pub common_name: Option<String>,
    /// The certificate's common name.
    pub x509_cn: Option<String>,
    /// The certificate has more than one common name.
    pub second_cn: bool,
    /// The certificate's serial number: lower-case hex, two digits a byte, no leading zero byte.
    pub serial: Option<String>,
    /// The serial number of the CA that signed it, in the same form.
    pub ca_serial: Option<String>,
    /// The source address before authentication.
    pub untrusted: Option<SocketAddr>,
    /// The source address after authentication.
    pub trusted: Option<SocketAddr>,
    /// The environment had more than 256 lines or 64 KiB, so fields may be missing.
    pub truncated: bool,
}

impl ClientEnv {
    /// The node that the certificate names: exactly one common name, on which all agree.
    ///
    /// `None` means that the client must be rejected.
    pub fn node(&self) -> Option<Prefix> {
        let agreed = self.common_name.is_some() && self.common_name == self.x509_cn;
        if !agreed || self.second_cn || self.truncated {
            return None;
        }
        self.x509_cn.as_deref()?.parse().ok()
    }

    /// Returns the authenticated source address if it is reported, else the unauthenticated one.
    pub fn address(&self) -> Option<SocketAddr> {
        self.trusted.or(self.untrusted)
    }
}

/// Returns the client that, according to a log line of the server, has closed its session
/// (`--explicit-exit-notify`).
///
/// The management socket reports this without a name (`>NOTIFY:info,remote-exit,EXIT`), and its
/// DISCONNECT comes 5 s later. Format: `P/L/ADDRESS:PORT SIGTERM[soft,remote-exit] received, …`.
pub fn leave_of_log(text: &str) -> Option<(Prefix, SocketAddr)> {
    let (who, what) = text.split_once(' ')?;
    what.starts_with("SIGTERM[soft,remote-exit]")
        .then_some(())?;
    let (number, rest) = who.split_once('/')?;
    let (length, from) = rest.split_once('/')?;
    let (ip, port) = from.rsplit_once(':')?;
    let ip = address(ip.trim_start_matches('[').trim_end_matches(']'))?;
    Some((
        format!("{number}/{length}").parse().ok()?,
        SocketAddr::new(ip, port.parse().ok()?),
    ))
}

/// Returns whether, according to a log line of a client, it starts to exit and notifies its server. It exits a second
/// later, and passes no frames in between.
pub fn is_exit_notice(text: &str) -> bool {
    text == "SIGTERM received, sending exit notification to peer"
}

/// Returns whether a client that exited in order was stopped by a signal from outside, by its last log lines: not because
/// its server no longer answered.
pub fn is_stopped_from_outside<'a>(lines: impl Iterator<Item = &'a str>) -> bool {
    let mut is_stopped = false;
    for line in lines {
        if OWN_EXITS.iter().any(|reason| line.contains(reason)) {
            return false;
        }
        is_stopped |= is_exit_notice(line) || line.starts_with("SIGTERM[hard,");
    }
    is_stopped
}

/// Parts of log lines by which OpenVPN says why it exits by itself; an exit notification follows these, too.
const OWN_EXITS: [&str; 3] = [
    "Inactivity timeout (--ping-exit)",
    "TLS Error: TLS handshake failed",
    "Fatal TLS error",
];

/// An environment whose lines are still arriving.
#[derive(Clone, Debug, Default)]
pub(crate) struct EnvBlock {
    pub(crate) env: ClientEnv,
    untrusted: (Option<IpAddr>, Option<u16>),
    trusted: (Option<IpAddr>, Option<u16>),
    lines: usize,
    bytes: usize,
}

impl EnvBlock {
    pub(crate) fn add(&mut self, line: &str) {
        self.lines = self.lines.saturating_add(1);
        self.bytes = self.bytes.saturating_add(line.len());
        if self.lines > MAX_ENV_LINES || self.bytes > MAX_ENV_BYTES {
            self.env.truncated = true;
            return;
        }
        let Some((key, value)) = line.split_once('=') else {
            return;
        };
        match key {
            "common_name" => self.env.common_name = Some(value.to_owned()),
            "X509_0_CN" => self.env.x509_cn = Some(value.to_owned()),
            "tls_serial_0" => self.env.serial = hex_of_decimal(value),
            "tls_serial_1" => self.env.ca_serial = hex_of_decimal(value),
            "untrusted_ip" | "untrusted_ip6" => self.untrusted.0 = address(value),
            "untrusted_port" => self.untrusted.1 = value.parse().ok(),
            "trusted_ip" | "trusted_ip6" => self.trusted.0 = address(value),
            "trusted_port" => self.trusted.1 = value.parse().ok(),
            key if key.starts_with("X509_0_CN_") => self.env.second_cn = true,
            _ => (),
        }
    }

    pub(crate) fn end(self) -> ClientEnv {
        let socket = |(ip, port): (Option<IpAddr>, Option<u16>)| Some(SocketAddr::new(ip?, port?));
        ClientEnv {
            untrusted: socket(self.untrusted),
            trusted: socket(self.trusted),
            ..self.env
        }
    }
}

/// A dual-stack server names IPv4 clients `::ffff:192.0.2.1`.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// Serial numbers have at most 20 octets (RFC 5280, section 4.1.2.2), which is 49 decimal digits.
const MAX_SERIAL_DIGITS: usize = 49;

/// A decimal number as bytes, most significant first, in hex; `None` if the text is no number or too long.
fn hex_of_decimal(text: &str) -> Option<String> {
    if text.is_empty() || text.len() > MAX_SERIAL_DIGITS {
        return None;
    }
    let mut little: Vec<u8> = Vec::new();
    for digit in text.chars() {
        let mut carry = digit.to_digit(10)?;
        for byte in &mut little {
            let value = u32::from(*byte) * 10 + carry;
            *byte = u8::try_from(value & 0xff).ok()?;
            carry = value >> 8;
        }
        if carry > 0 {
            little.push(u8::try_from(carry).ok()?);
        }
    }
    if little.is_empty() {
        little.push(0);
    }
    Some(
        little
            .iter()
            .rev()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_stopped(lines: &[&str], expected: bool) {
        assert_eq!(
            is_stopped_from_outside(lines.iter().copied()),
            expected,
            "{lines:?}"
        );
    }

    #[test]
    fn a_signal_from_outside_differs_from_an_exit_of_the_clients_own() {
        let notice = "SIGTERM received, sending exit notification to peer";
        let closing = "SIGTERM[soft,exit-with-notification] received, process exiting";
        let silent = "[7/16] Inactivity timeout (--ping-exit), exiting";
        check_stopped(
            &["Initialization Sequence Completed", notice, closing],
            true,
        );
        check_stopped(&["SIGTERM[hard,] received, process exiting"], true);
        check_stopped(&[silent, notice, closing], false);
        check_stopped(&["TLS Error: TLS handshake failed", notice, closing], false);
        check_stopped(
            &["SIGTERM[soft,remote-exit] received, process exiting"],
            false,
        );
        check_stopped(&["Exiting due to fatal error"], false);
    }

    #[test]
    fn a_client_that_takes_its_leave_is_known_by_name_and_address() {
        let exit = "SIGTERM[soft,remote-exit] received, client-instance exiting";
        let left = |who: &str| {
            leave_of_log(&format!("{who} {exit}")).map(|(peer, from)| format!("{peer} {from}"))
        };
        assert_eq!(
            left("7/16/45.67.1.4:56514").as_deref(),
            Some("7/16 45.67.1.4:56514")
        );
        assert_eq!(
            left("7/16/2001:db8::1:56514").as_deref(),
            Some("7/16 [2001:db8::1]:56514")
        );
        for odd in [
            "45.67.1.4:56514",
            "7/16/45.67.1.4",
            "07/16/45.67.1.4:1",
            "7/16/x:1",
            "",
        ] {
            assert_eq!(left(odd), None, "{odd}");
        }
        assert_eq!(
            leave_of_log("7/16/45.67.1.4:56514 SIGTERM[soft,delayed-exit] received"),
            None
        );
    }

    #[test]
    fn a_serial_number_is_its_bytes_in_hex() {
        let cases = [
            ("0", Some("00")),
            ("7", Some("07")),
            ("256", Some("0100")),
            ("", None),
            ("-1", None),
            ("316663873929282", Some("0120010db80042")),
            ("1x", None),
        ];
        for (decimal, hex) in cases {
            assert_eq!(hex_of_decimal(decimal).as_deref(), hex, "{decimal}");
        }
        assert_eq!(hex_of_decimal(&"9".repeat(MAX_SERIAL_DIGITS + 1)), None);
    }
}
