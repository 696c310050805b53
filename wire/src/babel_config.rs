//! Writes babeld 1.12.1's configuration file and its state file; the paths are the caller's.
//!
//! Keywords: babeld(8), "Configuration file format". A test starts a real babeld with each form.

use crate::overlay::{Network, Network4, router_id_text};
use ipnet::{IpNet, Ipv6Net};
use policies::{
    names::{Prefix, Slot},
    observation::INFINITY,
    parameters::METERED_HELLO_INTERVAL,
};
use std::{
    collections::BTreeSet,
    fmt::{self, Write},
    path::PathBuf,
    time::Duration,
};

/// The network's key against foreign Babel packets (RFC 8967, HMAC-SHA256). Never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MacKey(pub [u8; 32]);

impl MacKey {
    /// Reads 64 lower-case hexadecimal digits, the form of the network document.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 {
            return None;
        }
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        let key = Self(key);
        (key.hex() == text).then_some(key)
    }

    fn hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(hidden)")
    }
}

/// The complete configuration of one babeld. The file holds the MAC key, so only root and
/// babeld's group may read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BabelConfig {
    /// The network's range.
    pub network: Network,
    /// The network's IPv4 range for payload, where it has one.
    pub ipv4: Option<Network4>,
    /// Our own prefix.
    pub own: Prefix,
    /// The lengths of the prefixes that the registry hands out; routes to ranges of other lengths are not accepted.
    /// If it is empty, all lengths that a prefix can have are.
    pub prefix_lengths: BTreeSet<u8>,
    /// All slots, up or not: babeld must know them from the start.
    pub slots: Vec<Slot>,
    /// Other links on which babeld speaks, such as a LAN; they require `key`.
    pub interfaces: Vec<String>,
    /// Whether this node is metered, so that its hellos on slots are rare.
    pub is_metered: bool,
    /// The hello interval, 0.5 s to 15 s, in steps of a hundredth of a second.
    pub hello_interval: Duration,
    /// The update interval, 4 s to 120 s.
    pub update_interval: Duration,
    /// The absolute path of babeld's read-only socket.
    pub socket: PathBuf,
    /// Where babeld reads and writes its sequence number; absolute.
    pub state_file: PathBuf,
    /// The network's key, for `interfaces`.
    pub key: Option<MacKey>,
    /// The cost that is added to the metric of others' routes when we announce them. At 0 we carry
    /// others' traffic like any node; at [`INFINITY`] we announce our own prefix only, and carry
    /// none.
    pub transit_cost: u16,
    /// The nodes whose default route is accepted: the gateways of the network document.
    pub gateways: BTreeSet<Prefix>,
    /// Whether the host's default route is announced if this node is one of `gateways`.
    pub gateway: bool,
    /// Accept packets with another MAC, or none, on `interfaces`, while the network's key is changed.
    pub lenient: bool,
}

/// The configuration cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadConfig {
    /// The path is relative, or has quotes, control characters or backslashes, which babeld's grammar cannot hold.
    #[error(
        "babeld cannot use the path {0:?}: it must be absolute, printable, without quotes and backslashes"
    )]
    Path(PathBuf),
    /// The text is not the name of a kernel link.
    #[error("{0:?} is no name of a link: 1 to 15 letters, digits or any of -_.")]
    Interface(String),
    /// An interface is set without a key, so that anybody on that link could change our routes.
    #[error("babeld speaks on {0:?} only with the network's key, and there is none")]
    NoKey(String),
}

/// Protocol number of warren's own routes.
const PROTOCOL: u8 = 197;
/// Table for babeld's routes, so that they can be flushed without touching others.
const EXPORT_TABLE: u32 = 197;
/// The table for default routes of exit gateways. It is separate from [`EXPORT_TABLE`], because
/// the host's own routes take precedence over it.
const DEFAULT_TABLE: u32 = 199;
/// The kernel's main table, where our own `unreachable` route lies, and the host's default route.
const IMPORT_TABLE: u32 = 254;
/// Protocol number of routes that were added by hand (linux/rtnetlink.h: `RTPROT_BOOT`); babeld redistributes
/// them only if a filter names this protocol.
const BOOT: u8 = 3;
/// The RTT cost: 96 (one hop) for about 10 ms, up to 500 ms. babeld's own defaults do not
/// distinguish round trips above 120 ms.
const RTT: &str =
    "enable-timestamps true rtt-min 10 rtt-max 500 max-rtt-penalty 5000 rtt-decay 125";

impl BabelConfig {
    /// Returns whether the host's default route, while it has one, is announced to the network.
    pub fn announces_default(&self) -> bool {
        self.gateway && self.gateways.contains(&self.own)
    }

    /// The text of the file.
    ///
    /// # Errors
    /// A path or a name that babeld's grammar cannot hold, or an interface without a key.
    pub fn text(&self) -> Result<String, BadConfig> {
        let mut text = String::new();
        self.write(&mut text)?;
        Ok(text)
    }

    fn write(&self, text: &mut String) -> Result<(), BadConfig> {
        let line = |text: &mut String, line: fmt::Arguments<'_>| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{line}");
        };
        line(text, format_args!("local-path {}", path(&self.socket)?));
        line(text, format_args!("state-file {}", path(&self.state_file)?));
        line(text, format_args!("router-id {}", router_id_text(self.own)));
        line(
            text,
            format_args!("export-table {EXPORT_TABLE}\nimport-table {IMPORT_TABLE}"),
        );
        line(
            text,
            format_args!("link-detect true\nskip-kernel-setup true\nsmoothing-half-life 0"),
        );
        if let Some(key) = self.key {
            line(
                text,
                format_args!("key id network type hmac-sha256 value {}", key.hex()),
            );
        }
        let timing = |hello_interval| {
            let (hello, update) = (hundredths(hello_interval), hundredths(self.update_interval));
            format!("hello-interval {hello} update-interval {update}")
        };
        let slot_timing = timing(match self.is_metered {
            true => self.hello_interval.max(METERED_HELLO_INTERVAL),
            false => self.hello_interval,
        });
        // With a key, all nodes of a LAN need the same interval.
        let timing = timing(self.hello_interval);
        for slot in &self.slots {
            // Without the key: TLS has authenticated who is at the other end, and babeld 1.12.1 with a
            // key spins when such a link goes down (docs/decisions/0001-no-mac-on-tunnels.md).
            line(
                text,
                format_args!("interface {slot} type tunnel link-quality true {slot_timing} {RTT}"),
            );
        }
        for name in &self.interfaces {
            if self.key.is_none() {
                return Err(BadConfig::NoKey(name.clone()));
            }
            let lenient = if self.lenient {
                " accept-bad-signatures true"
            } else {
                ""
            };
            line(
                text,
                format_args!("interface {} {timing} key network{lenient}", link(name)?),
            );
        }
        self.filters(text, &line);
        Ok(())
    }

    fn filters(&self, text: &mut String, line: &impl Fn(&mut String, fmt::Arguments<'_>)) {
        let (network, own) = (self.network.range(), self.network.node_range(self.own));
        self.filter_ranges(own.into(), network.into(), text, line);
        if let Some(ipv4) = self.ipv4 {
            self.filter_ipv4(ipv4, text, line);
        }
        self.filter_default(text, line);
        line(text, format_args!("in deny"));
        self.filter_transit(own, text, line);
        let bits = own.prefix_len();
        line(
            text,
            format_args!("redistribute ip {own} eq {bits} proto {PROTOCOL} allow"),
        );
        line(
            text,
            format_args!("redistribute local deny\nredistribute deny"),
        );
        let address = self.network.node_address(self.own);
        line(
            text,
            format_args!("install ip {network} pref-src {address}"),
        );
    }

    /// Writes the filters for the default route of packets from the network's range: from which
    /// nodes it is accepted, and whether we announce ours.
    fn filter_default(&self, text: &mut String, line: &impl Fn(&mut String, fmt::Arguments<'_>)) {
        if self.gateways.is_empty() {
            return;
        }
        let range = self.network.range();
        let default = format!("ip ::/0 eq 0 src-ip {range} src-eq {}", range.prefix_len());
        for gateway in self.gateways.iter().filter(|gateway| **gateway != self.own) {
            line(
                text,
                format_args!("in {default} id {} allow", router_id_text(*gateway)),
            );
        }
        // Routes of other originators become unusable (metric 65534) but are not denied, because
        // babeld 1.12.1 retracts a route that it has lost under its own router id.
        line(
            text,
            format_args!("in {default} metric {}", INFINITY.saturating_sub(1)),
        );
        line(
            text,
            format_args!("install {default} table {DEFAULT_TABLE}"),
        );
        if self.announces_default() {
            line(
                text,
                format_args!("redistribute ip ::/0 eq 0 src-prefix {range}"),
            );
            line(
                text,
                format_args!("redistribute ip ::/0 eq 0 proto {BOOT} src-prefix {range}"),
            );
        }
    }

    /// Writes the cost at which our neighbours see the routes of others.
    fn filter_transit(
        &self,
        own: Ipv6Net,
        text: &mut String,
        line: &impl Fn(&mut String, fmt::Arguments<'_>),
    ) {
        if self.transit_cost == 0 {
            return;
        }
        line(text, format_args!("out ip {own} allow"));
        if let Some(own) = self.ipv4.and_then(|ipv4| ipv4.node_range(self.own)) {
            line(text, format_args!("out ip {own} allow"));
        }
        if self.transit_cost == INFINITY {
            line(text, format_args!("out deny"));
        } else {
            line(text, format_args!("out metric {}", self.transit_cost));
        }
    }

    /// Writes the filters for IPv4; a node has no IPv4 range if the network's leaves too few bits for its prefix.
    fn filter_ipv4(
        &self,
        ipv4: Network4,
        text: &mut String,
        line: &impl Fn(&mut String, fmt::Arguments<'_>),
    ) {
        let network = ipv4.range();
        if let Some((own, address)) = ipv4.node_range(self.own).zip(ipv4.node_address(self.own)) {
            self.filter_ranges(own.into(), network.into(), text, line);
            let bits = own.prefix_len();
            line(
                text,
                format_args!("redistribute ip {own} eq {bits} proto {PROTOCOL} allow"),
            );
            line(
                text,
                format_args!("install ip {network} pref-src {address}"),
            );
        } else {
            self.allow_lengths(network.into(), text, line);
        }
    }

    /// Writes the filters for ranges of other nodes: no part of our own range is accepted, no range that contains it, and
    /// otherwise the parts of the network's range that have the length of a node's, for packets from any source.
    fn filter_ranges(
        &self,
        own: IpNet,
        network: IpNet,
        text: &mut String,
        line: &impl Fn(&mut String, fmt::Arguments<'_>),
    ) {
        line(text, format_args!("in ip {own} deny"));
        for length in self.range_lengths(network) {
            let wider = IpNet::new(own.addr(), length).ok();
            if let Some(wider) = wider.filter(|_| length < own.prefix_len()) {
                let wider = wider.trunc();
                line(text, format_args!("in ip {wider} eq {length} deny"));
            }
        }
        self.allow_lengths(network, text, line);
    }

    fn allow_lengths(
        &self,
        network: IpNet,
        text: &mut String,
        line: &impl Fn(&mut String, fmt::Arguments<'_>),
    ) {
        for length in self.range_lengths(network) {
            line(
                text,
                format_args!("in ip {network} eq {length} src-eq 0 allow"),
            );
        }
    }

    /// The lengths of the ranges of nodes within the network's range.
    fn range_lengths(&self, network: IpNet) -> impl Iterator<Item = u8> + use<> {
        let (shortest, longest) = Prefix::LENGTHS;
        let lengths = match self.prefix_lengths.is_empty() {
            true => (shortest..=longest).collect(),
            false => self.prefix_lengths.clone(),
        };
        let whole = network.max_prefix_len();
        let lengths = lengths
            .into_iter()
            .filter_map(move |length| network.prefix_len().checked_add(length));
        lengths.filter(move |length| *length <= whole)
    }
}

fn path(path: &std::path::Path) -> Result<String, BadConfig> {
    let bad = || BadConfig::Path(path.to_owned());
    let text = path
        .to_str()
        .filter(|_| path.is_absolute())
        .ok_or_else(bad)?;
    let plain = text
        .chars()
        .all(|c| !c.is_control() && c != '"' && c != '\\');
    if plain {
        Ok(format!("\"{text}\""))
    } else {
        Err(bad())
    }
}

fn link(name: &str) -> Result<&str, BadConfig> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let good = (1..=15).contains(&name.len()) && name.chars().all(plain);
    if good {
        Ok(name)
    } else {
        Err(BadConfig::Interface(name.to_owned()))
    }
}

fn hundredths(span: Duration) -> String {
    format!("{}.{:02}", span.as_secs(), span.subsec_millis() / 10)
}

/// The sequence number to begin the next babeld with, so that its announcements are newer than any of
/// the last one's: RFC 8966 compares modulo 2^16, and one run of babeld uses fewer than 1,000 numbers.
pub fn next_seqno(last: u16) -> u16 {
    last.wrapping_add(1000)
}

/// The content of babeld's state file; it begins with the number after this one.
pub fn state_file(seqno: u16) -> String {
    format!("{seqno}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> BabelConfig {
        BabelConfig {
            network: Network::new("fd00:1:2::/48".parse().unwrap()).unwrap(),
            ipv4: None,
            own: Prefix::new(7, 16).unwrap(),
            prefix_lengths: [16].into(),
            slots: vec![Slot::Dialling(0), "wrnu.2".parse().unwrap()],
            interfaces: vec!["eth0".into()],
            is_metered: false,
            hello_interval: Duration::from_millis(500),
            update_interval: Duration::from_secs(30),
            socket: "/run/warren/child/babeld/babeld.sock".into(),
            state_file: "/var/lib/warren/babeld/state".into(),
            key: Some(MacKey([0xab; 32])),
            lenient: false,
            transit_cost: 0,
            gateways: BTreeSet::new(),
            gateway: false,
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut BabelConfig), expected: BadConfig) {
        let mut config = config();
        change(&mut config);
        assert_eq!(config.text(), Err(expected));
    }

    #[test]
    fn the_whole_file_is_as_expected() {
        let hex = "ab".repeat(32);
        let slot = "type tunnel link-quality true hello-interval 0.50 update-interval 30.00 \
            enable-timestamps true rtt-min 10 rtt-max 500 max-rtt-penalty 5000 rtt-decay 125";
        let expected = format!(
            "local-path \"/run/warren/child/babeld/babeld.sock\"\n\
             state-file \"/var/lib/warren/babeld/state\"\n\
             router-id 02:58:00:10:00:00:00:07\n\
             export-table 197\n\
             import-table 254\n\
             link-detect true\n\
             skip-kernel-setup true\n\
             smoothing-half-life 0\n\
             key id network type hmac-sha256 value {hex}\n\
             interface wrn0 {slot}\n\
             interface wrnu.2 {slot}\n\
             interface eth0 hello-interval 0.50 update-interval 30.00 key network\n\
             in ip fd00:1:2:7::/64 deny\n\
             in ip fd00:1:2::/48 eq 64 src-eq 0 allow\n\
             in deny\n\
             redistribute ip fd00:1:2:7::/64 eq 64 proto 197 allow\n\
             redistribute local deny\n\
             redistribute deny\n\
             install ip fd00:1:2::/48 pref-src fd00:1:2:7::1\n"
        );
        assert_eq!(config().text(), Ok(expected));
    }

    #[test]
    fn what_could_break_out_of_its_place_is_refused() {
        for path in ["relative", "/a\"b", "/a\nb", "/a\\b"] {
            check(
                |config| config.socket = path.into(),
                BadConfig::Path(path.into()),
            );
        }
        for name in ["", "a b", "eth0\ninterface wrn0", "abcdefghijklmnop"] {
            check(
                |config| config.interfaces = vec![name.into()],
                BadConfig::Interface(name.into()),
            );
        }
    }

    #[test]
    fn babeld_speaks_on_no_lan_without_a_key() {
        check(|config| config.key = None, BadConfig::NoKey("eth0".into()));
    }

    #[track_caller]
    fn check_ipv4(range: &str, expected: &[&str]) {
        let text = BabelConfig {
            ipv4: Network4::new(range.parse().unwrap()),
            ..config()
        }
        .text()
        .unwrap();
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("ip 10."))
            .collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn ipv4_is_filtered_like_ipv6_where_it_has_room_for_us() {
        check_ipv4(
            "10.0.0.0/8",
            &[
                "in ip 10.0.7.0/24 deny",
                "in ip 10.0.0.0/8 eq 24 src-eq 0 allow",
                "redistribute ip 10.0.7.0/24 eq 24 proto 197 allow",
                "install ip 10.0.0.0/8 pref-src 10.0.7.1",
            ],
        );
        check_ipv4("10.1.0.0/20", &[]);
    }

    #[track_caller]
    fn check_lengths(own: &str, prefix_lengths: &[u8], expected: &[&str]) {
        let text = BabelConfig {
            own: own.parse().unwrap(),
            prefix_lengths: prefix_lengths.iter().copied().collect(),
            ..config()
        }
        .text()
        .unwrap();
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("in "))
            .collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn ranges_are_accepted_at_the_lengths_of_the_network_only_and_never_around_or_inside_our_own() {
        check_lengths(
            "112/20",
            &[16, 20],
            &[
                "in ip fd00:1:2:7::/68 deny",
                "in ip fd00:1:2:7::/64 eq 64 deny",
                "in ip fd00:1:2::/48 eq 64 src-eq 0 allow",
                "in ip fd00:1:2::/48 eq 68 src-eq 0 allow",
                "in deny",
            ],
        );
    }

    #[test]
    fn without_known_lengths_each_length_of_a_prefix_is_accepted() {
        let text = BabelConfig {
            prefix_lengths: BTreeSet::new(),
            ..config()
        }
        .text()
        .unwrap();
        let allowed = |length: u8| {
            text.contains(&format!("in ip fd00:1:2::/48 eq {length} src-eq 0 allow\n"))
        };
        let lengths: Vec<u8> = (0..=128).filter(|length| allowed(*length)).collect();
        assert_eq!(lengths, (49..=80).collect::<Vec<_>>());
    }

    #[track_caller]
    fn check_transit(transit_cost: u16, ipv4: Option<&str>, expected: &[&str]) {
        let ipv4 = ipv4.and_then(|range| Network4::new(range.parse().unwrap()));
        let text = BabelConfig {
            transit_cost,
            ipv4,
            ..config()
        }
        .text()
        .unwrap();
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("out "))
            .collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn routes_of_others_are_announced_at_the_transit_cost_or_not_at_all() {
        check_transit(0, None, &[]);
        check_transit(
            10_000,
            None,
            &["out ip fd00:1:2:7::/64 allow", "out metric 10000"],
        );
        let own = [
            "out ip fd00:1:2:7::/64 allow",
            "out ip 10.0.7.0/24 allow",
            "out deny",
        ];
        check_transit(INFINITY, Some("10.0.0.0/8"), &own);
    }

    #[track_caller]
    fn check_default(gateways: &[u32], gateway: bool, expected: &[&str]) {
        let gateways = gateways
            .iter()
            .map(|number| Prefix::new(*number, 16).unwrap())
            .collect();
        let text = BabelConfig {
            gateways,
            gateway,
            ..config()
        }
        .text()
        .unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("::/0 ")).collect();
        assert_eq!(lines, expected);
        let denied = text.find("in deny").unwrap();
        assert!(
            lines
                .iter()
                .filter(|line| line.starts_with("in "))
                .all(|line| text.find(*line) < Some(denied))
        );
    }

    #[test]
    fn a_default_route_is_accepted_from_gateways_only_and_announced_only_where_network_and_node_want_it()
     {
        const IN: &str = "in ip ::/0 eq 0 src-ip fd00:1:2::/48 src-eq 48 id 02:58:00:10:00:00:00:0";
        const INSTALL: &str = "install ip ::/0 eq 0 src-ip fd00:1:2::/48 src-eq 48 table 199";
        const ANNOUNCED: [&str; 2] = [
            "redistribute ip ::/0 eq 0 src-prefix fd00:1:2::/48",
            "redistribute ip ::/0 eq 0 proto 3 src-prefix fd00:1:2::/48",
        ];
        const NONE: &str = "in ip ::/0 eq 0 src-ip fd00:1:2::/48 src-eq 48 metric 65534";
        let by = |number: u32| format!("{IN}{number} allow");
        check_default(&[], false, &[]);
        check_default(&[], true, &[]);
        check_default(&[9, 8], true, &[&by(8), &by(9), NONE, INSTALL]);
        check_default(&[7, 8], false, &[&by(8), NONE, INSTALL]);
        check_default(
            &[7, 8],
            true,
            &[&by(8), NONE, INSTALL, ANNOUNCED[0], ANNOUNCED[1]],
        );
    }

    #[test]
    fn hellos_of_a_metered_node_are_rare_on_tunnels_and_as_everywhere_on_a_lan() {
        let config = BabelConfig {
            is_metered: true,
            ..config()
        };
        let text = config.text().unwrap();
        let with = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap();
        assert!(with("interface wrn0").contains("hello-interval 30.00"));
        assert!(with("interface eth0").contains("hello-interval 0.50"));
    }

    #[test]
    fn a_key_is_64_lower_case_hexadecimal_digits() {
        assert_eq!(MacKey::from_hex(&"ab".repeat(32)), Some(MacKey([0xab; 32])));
        for bad in [
            "ab".repeat(31),
            "AB".repeat(32),
            "+1".repeat(32),
            "ä".repeat(32),
            "zz".repeat(32),
        ] {
            assert_eq!(MacKey::from_hex(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        assert!(!format!("{:?}", config()).contains("171"));
    }

    #[test]
    fn a_sequence_number_is_newer_than_the_last_ones_modulo_65536() {
        assert_eq!(next_seqno(65_000), 464);
        assert_eq!(state_file(464), "464\n");
    }
}
