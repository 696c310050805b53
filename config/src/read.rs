//! From the text of `warren.yaml` to [`Settings`]: which keys there are, and what each takes.

use crate::{
    ChildUser, Complaint, ConfigError, Metrics, Settings, Transit,
    lines::{Step, last_line_of_key, line_of},
    tree::{Fault, Tree, name, one_line},
};
use policies::{
    gain::Rule,
    names::{Endpoint, Prefix},
};
use serde_yaml::Value;
use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};
use wire::endpoints::{EndpointRefusal, class_of};

/// Most bytes of a configuration.
const LIMIT: u64 = 64 * 1024;
/// Most items of a list.
const MAX_ITEMS: usize = 256;
/// Tunnels' port, as OpenVPN's own.
pub(crate) const PORT: u16 = 1194;
/// Where metrics are served by default.
pub(crate) const METRICS: &str = "127.0.0.1:9197";
/// Whom OpenVPN runs as by default.
pub(crate) const OPENVPN_USER: &str = "warren-openvpn";
/// Whom babeld runs as by default.
pub(crate) const BABELD_USER: &str = "warren-babel";
/// The default filter of log lines.
pub(crate) const LOG: &str = "info";

/// Reads and checks the configuration `file`.
///
/// # Errors
/// One line for each thing that is wrong; see [`ConfigError`].
pub fn load(file: &Path) -> Result<Settings, ConfigError> {
    let unread = |source: io::Error| ConfigError::Read { file: file.to_owned(), source };
    // A fifo would block at open, a device never end.
    let metadata = std::fs::metadata(file).map_err(unread)?;
    if !metadata.is_file() {
        return Err(ConfigError::NotAFile { file: file.to_owned() });
    }
    let mut bytes = Vec::new();
    let mut reader = File::open(file).map_err(unread)?.take(LIMIT + 1);
    reader.read_to_end(&mut bytes).map_err(unread)?;
    parse(file, &bytes)
}

/// Checks the text of a configuration; `file` is only named in complaints.
///
/// # Errors
/// As [`load`], but for reading.
pub fn parse(file: &Path, bytes: &[u8]) -> Result<Settings, ConfigError> {
    let file = || file.to_owned();
    let short = u64::try_from(bytes.len()).is_ok_and(|size| size <= LIMIT);
    let text = std::str::from_utf8(bytes).ok().filter(|_| short);
    let text = text.ok_or_else(|| ConfigError::NotText { file: file(), limit: LIMIT })?;
    let value: Value = serde_yaml::from_str(text).map_err(|error| syntax(file(), text, &error))?;
    if value.is_null() {
        return Err(ConfigError::Empty { file: file() });
    }
    let mut faults = Vec::new();
    let settings = settings(&Tree::root(&value), &mut faults);
    match settings {
        Some(settings) if faults.is_empty() => Ok(settings),
        Some(_) | None => Err(values(file(), text, faults)),
    }
}

fn syntax(file: PathBuf, text: &str, error: &serde_yaml::Error) -> ConfigError {
    let said = error.to_string();
    let line = error.location().map_or(1, |location| location.line());
    let duplicate = said
        .split_once("duplicate entry with key \"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(key, _)| key.to_owned());
    let Some(key) = duplicate else {
        // The position stands before the text already.
        let text = one_line(said.split(" at line ").next().unwrap_or_default().trim());
        return ConfigError::Syntax { file, line, text: format!("not YAML: {text}") };
    };
    let complaint = Complaint {
        line: last_line_of_key(text, &key).or(Some(line)),
        key,
        value: "given twice".into(),
        right: "each key once".into(),
    };
    ConfigError::Values { file, complaints: vec![complaint] }
}

fn values(file: PathBuf, text: &str, faults: Vec<Fault>) -> ConfigError {
    let complaint = |fault: Fault| Complaint {
        line: line_of(text, &fault.path),
        key: name(&fault.path),
        value: fault.value,
        right: fault.right,
    };
    let mut complaints: Vec<_> = faults.into_iter().map(complaint).collect();
    complaints.sort_by_key(|complaint| complaint.line);
    ConfigError::Values { file, complaints }
}

/// Nothing where a key without a default is missing or wrong; faults say what else is wrong.
fn settings(root: &Tree<'_>, faults: &mut Vec<Fault>) -> Option<Settings> {
    let [
        registry,
        listen,
        endpoints,
        neighbours,
        interfaces,
        transit,
        gateway,
        policy,
        dry_run,
        max_accepted,
        tunnels_to_dial,
        child_users,
        upnp,
        private_endpoints,
        metrics,
        log,
    ] = root.keys(KEYS, "keys and values, such as registry: https://HOST:PORT", faults);
    let private = private_endpoints.and_then(|tree| flag(&tree, faults)).unwrap_or(false);
    let endpoints = list(endpoints, ENDPOINTS, faults, |text| endpoint(text, private));
    let listen = listen.map(|tree| tree.keys(["udp", "tcp"], LISTEN, faults));
    let [udp, tcp] = listen.unwrap_or_default();
    let users = child_users.map(|tree| tree.keys(["openvpn", "babeld"], USERS, faults));
    let [openvpn, babeld] = users.unwrap_or_default();
    let upnp = upnp.and_then(|tree| word(&tree, &[("auto", true), ("off", false)], faults));
    let policy = policy.and_then(|tree| word(&tree, POLICY, faults));
    let transit = transit.and_then(|tree| word(&tree, TRANSIT, faults)).unwrap_or_default();
    let gateway = gateway.is_some_and(|tree| {
        let on = flag(&tree, faults).unwrap_or(false);
        if on && transit == Transit::Leaf {
            faults.push(tree.fault("false with transit: leaf, which carries nobody's traffic"));
        }
        on
    });
    let max_accepted =
        max_accepted.and_then(|tree| tree.read("a number from 0 to 250", faults, |v| number(v, 0, 250)));
    let tunnels_to_dial =
        tunnels_to_dial.and_then(|tree| tree.read("a number from 1 to 30", faults, |v| number(v, 1, 30)));
    let metrics = metrics.and_then(|tree| tree.read(METRICS_RIGHT, faults, metrics_of));
    let log = log.and_then(|tree| tree.read(LOG_RIGHT, faults, log_of));
    Some(Settings {
        listen_udp: udp.and_then(|tree| port(&tree, faults)).unwrap_or(PORT),
        listen_tcp: tcp.and_then(|tree| port(&tree, faults)).unwrap_or(PORT),
        endpoints,
        neighbours: list(neighbours, "a list of prefixes, such as [7/16]", faults, parsed::<Prefix>),
        interfaces: list(interfaces, INTERFACES, faults, interface),
        transit,
        gateway,
        policy: policy.unwrap_or_default(),
        dry_run: dry_run.and_then(|tree| flag(&tree, faults)).unwrap_or(false),
        max_accepted,
        tunnels_to_dial,
        openvpn_user: openvpn.and_then(|tree| user(&tree, faults)).unwrap_or_else(|| named(OPENVPN_USER)),
        babeld_user: babeld.and_then(|tree| user(&tree, faults)).unwrap_or_else(|| named(BABELD_USER)),
        upnp: upnp.unwrap_or(true),
        private_endpoints: private,
        metrics: metrics.or_else(|| metrics_of(&Value::from(METRICS)))?,
        log: log.unwrap_or_else(|| LOG.to_owned()),
        registry: self::registry(registry, faults)?,
    })
}

const KEYS: [&str; 16] = [
    "registry",
    "listen",
    "endpoints",
    "neighbours",
    "interfaces",
    "transit",
    "gateway",
    "policy",
    "dry-run",
    "max-accepted",
    "tunnels-to-dial",
    "child-users",
    "upnp",
    "private-endpoints",
    "metrics",
    "log",
];
const TRANSIT: &[(&str, Transit)] =
    &[("normal", Transit::Normal), ("avoid", Transit::Avoid), ("leaf", Transit::Leaf)];
const POLICY: &[(&str, Rule)] = &[("gain", Rule::Gain), ("random", Rule::Random)];
const REGISTRY: &str = "https://HOST:PORT, such as https://registry.example:9443";
const LISTEN: &str = "ports, such as { udp: 1194, tcp: 1194 }";
const USERS: &str = "users, such as { openvpn: warren-openvpn, babeld: warren-babel }";
const USER: &str = "a user's name, or its number from 1 to 4294967294; root is no choice";
const ENDPOINTS: &str =
    "a list of addresses that others can dial, such as [\"udp:192.0.2.1:1194\", \"tcp:[2001:db8::1]:1194\"]";
const INTERFACES: &str = "a list of names of links, such as [eth0]; wrn… are our own";
const METRICS_RIGHT: &str =
    "ADDRESS:PORT, such as 127.0.0.1:9197, the absolute path of a unix socket, or off";
const LOG_RIGHT: &str = "a level (error, warn, info, debug, trace) or a filter, such as info,actors=debug";

fn text(value: &Value) -> Option<&str> {
    value.as_str()
}

fn number(value: &Value, least: u16, most: u16) -> Option<u16> {
    let number = u16::try_from(value.as_u64()?).ok()?;
    (least..=most).contains(&number).then_some(number)
}

fn port(tree: &Tree<'_>, faults: &mut Vec<Fault>) -> Option<u16> {
    tree.read("a port from 1 to 65535, or 0: do not accept", faults, |v| number(v, 0, u16::MAX))
}

fn flag(tree: &Tree<'_>, faults: &mut Vec<Fault>) -> Option<bool> {
    tree.read("true or false", faults, Value::as_bool)
}

fn word<T: Copy>(tree: &Tree<'_>, words: &[(&str, T)], faults: &mut Vec<Fault>) -> Option<T> {
    let names: Vec<_> = words.iter().map(|(name, _)| *name).collect();
    tree.read(&format!("one of {}", names.join(", ")), faults, |value| {
        let text = text(value)?;
        words.iter().find(|(name, _)| *name == text).map(|(_, meaning)| *meaning)
    })
}

fn named(name: &str) -> ChildUser {
    ChildUser::Name(name.to_owned())
}

/// Names as useradd(8) takes them.
fn user(tree: &Tree<'_>, faults: &mut Vec<Fault>) -> Option<ChildUser> {
    tree.read(USER, faults, |value| {
        if let Some(id) = value.as_u64() {
            let id = u32::try_from(id).ok().filter(|id| (1..u32::MAX).contains(id));
            return id.map(ChildUser::Id);
        }
        let name = text(value)?;
        let first = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        let good = first && name.len() <= 32 && name.chars().all(plain) && name != "root";
        good.then(|| named(name))
    })
}

/// A list of texts, no two alike.
fn list<T: Ord + Clone>(
    tree: Option<Tree<'_>>,
    right: &str,
    faults: &mut Vec<Fault>,
    take: impl Fn(&str) -> Option<T>,
) -> Vec<T> {
    let Some(tree) = tree else { return Vec::new() };
    let items = tree.items(right, faults);
    if items.len() > MAX_ITEMS {
        faults.push(tree.fault(&format!("at most {MAX_ITEMS} items")));
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    let mut list = Vec::new();
    for item in items {
        let Some(taken) = item.read(right, faults, |value| take(text(value)?)) else { continue };
        if seen.insert(taken.clone()) {
            list.push(taken);
        } else {
            faults.push(item.fault("each only once"));
        }
    }
    list
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn endpoint(text: &str, private: bool) -> Option<Endpoint> {
    let endpoint: Endpoint = parsed(text)?;
    let good = match class_of(endpoint.address.ip()) {
        None => true,
        Some(EndpointRefusal::Private) => private,
        Some(_) => false,
    };
    (good && endpoint.address.port() != 0).then_some(endpoint)
}

fn interface(name: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let good = (1..=15).contains(&name.len()) && name.chars().all(plain) && !name.starts_with("wrn");
    (good && name != "." && name != "..").then(|| name.to_owned())
}

fn metrics_of(value: &Value) -> Option<Metrics> {
    let text = text(value)?;
    if text == "off" {
        return Some(Metrics::Off);
    }
    let path = text.strip_prefix("unix:").unwrap_or(text);
    if path.starts_with('/') {
        let good = path.len() < 100 && !path.contains(char::is_control);
        return good.then(|| Metrics::Unix(path.into()));
    }
    let address: SocketAddr = parsed(text)?;
    (address.port() != 0).then_some(Metrics::Tcp(address))
}

fn log_of(value: &Value) -> Option<String> {
    let text = text(value)?;
    let plain = |c: char| c.is_ascii_graphic() || c == ' ';
    let good = (1..=1024).contains(&text.len()) && text.chars().all(plain);
    good.then(|| text.to_owned())
}

fn registry(tree: Option<Tree<'_>>, faults: &mut Vec<Fault>) -> Option<String> {
    let Some(tree) = tree else {
        let path = vec![Step::Key("registry".into())];
        faults.push(Fault { path, value: "missing".into(), right: REGISTRY.into() });
        return None;
    };
    tree.read(REGISTRY, faults, |value| {
        let url = text(value)?;
        let (host, port) = url.strip_prefix("https://")?.rsplit_once(':')?;
        let port_good = parsed::<u16>(port).is_some_and(|number| number != 0 && number.to_string() == port);
        (port_good && host_good(host)).then(|| url.to_owned())
    })
}

/// A DNS name, an IPv4 address, or an IPv6 address in brackets.
fn host_good(host: &str) -> bool {
    if let Some(inside) = host.strip_prefix('[') {
        return inside.strip_suffix(']').and_then(parsed::<Ipv6Addr>).is_some();
    }
    let label = |label: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(plain) && !label.starts_with('-')
    };
    let numbers = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    let address = parsed::<IpAddr>(host).is_some();
    host.len() <= 253 && host.split('.').all(label) && (address || !numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template;
    use proptest::prelude::*;

    const GOOD: &str = "registry: https://registry.example:9443\n";

    fn parse(text: &str) -> Result<Settings, ConfigError> {
        super::parse(Path::new("w.yaml"), text.as_bytes())
    }

    /// What is said of a good configuration with these lines after its first.
    #[track_caller]
    fn check(lines: &str, expected: &str) {
        check_text(&format!("{GOOD}{lines}"), expected);
    }

    #[track_caller]
    fn check_text(text: &str, expected: &str) {
        let said = parse(text).map_or_else(|error| error.to_string(), |settings| format!("{settings:?}"));
        assert_eq!(said, expected, "{text}");
    }

    fn defaults() -> Settings {
        Settings {
            registry: "https://registry.example:9443".into(),
            listen_udp: 1194,
            listen_tcp: 1194,
            endpoints: Vec::new(),
            neighbours: Vec::new(),
            interfaces: Vec::new(),
            transit: Transit::Normal,
            gateway: false,
            policy: Rule::Gain,
            dry_run: false,
            max_accepted: None,
            tunnels_to_dial: None,
            openvpn_user: named("warren-openvpn"),
            babeld_user: named("warren-babel"),
            upnp: true,
            private_endpoints: false,
            metrics: Metrics::Tcp("127.0.0.1:9197".parse().unwrap()),
            log: "info".into(),
        }
    }

    #[test]
    fn the_registry_is_the_only_key_without_a_default() {
        assert_eq!(parse(GOOD).unwrap(), defaults());
    }

    #[test]
    fn the_template_says_the_defaults() {
        let text =
            template("https://registry.example:9443", &named("warren-openvpn"), &named("warren-babel"));
        assert_eq!(parse(&text).unwrap(), defaults());
        for key in KEYS {
            assert!(text.contains(&format!("{key}:")), "{key}");
        }
        let numbered =
            template("https://registry.example:9443", &ChildUser::Id(64_001), &ChildUser::Id(64_002));
        assert_eq!(parse(&numbered).unwrap().babeld_user, ChildUser::Id(64_002));
    }

    #[test]
    fn every_key_is_read() {
        let settings = parse(
            "registry: https://[2001:db8::1]:1\n\
             listen: { udp: 0, tcp: 443 }\n\
             endpoints: [\"udp:192.0.2.1:1194\", \"tcp:[2001:db8::1]:443\"]\n\
             neighbours: [7/16, 0/1]\n\
             interfaces: [eth0]\n\
             transit: avoid\n\
             gateway: true\n\
             policy: random\n\
             dry-run: true\n\
             max-accepted: 0\n\
             tunnels-to-dial: 2\n\
             child-users: { openvpn: 64001, babeld: nobody }\n\
             upnp: off\n\
             private-endpoints: true\n\
             metrics: /run/warren/metrics.sock\n\
             log: info,actors=debug\n",
        );
        let expected = Settings {
            registry: "https://[2001:db8::1]:1".into(),
            listen_udp: 0,
            listen_tcp: 443,
            endpoints: ["udp:192.0.2.1:1194", "tcp:[2001:db8::1]:443"].map(|e| e.parse().unwrap()).to_vec(),
            neighbours: ["7/16", "0/1"].map(|p| p.parse().unwrap()).to_vec(),
            interfaces: vec!["eth0".into()],
            transit: Transit::Avoid,
            gateway: true,
            policy: Rule::Random,
            dry_run: true,
            max_accepted: Some(0),
            tunnels_to_dial: Some(2),
            openvpn_user: ChildUser::Id(64_001),
            babeld_user: named("nobody"),
            upnp: false,
            private_endpoints: true,
            metrics: Metrics::Unix("/run/warren/metrics.sock".into()),
            log: "info,actors=debug".into(),
        };
        assert_eq!(settings.unwrap(), expected);
    }

    #[test]
    fn a_complaint_names_file_line_key_value_and_what_would_be_right() {
        check(
            "listen:\n  udp: 70000\n",
            "w.yaml:3: listen.udp: value 70000: expected a port from 1 to 65535, or 0: do not accept",
        );
        check("max-accepted: 251\n", "w.yaml:2: max-accepted: value 251: expected a number from 0 to 250");
        check("tunnels-to-dial: 0\n", "w.yaml:2: tunnels-to-dial: value 0: expected a number from 1 to 30");
        check(
            "\n# why\ntransit: nomal\n",
            "w.yaml:4: transit: value \"nomal\": expected one of normal, avoid, leaf",
        );
        check(
            "transit: leaf\ngateway: true\n",
            "w.yaml:3: gateway: value true: expected false with transit: leaf, which carries nobody's traffic",
        );
        check("upnp: true\n", "w.yaml:2: upnp: value true: expected one of auto, off");
        check("private-endpoints: 1\n", "w.yaml:2: private-endpoints: value 1: expected true or false");
        check(
            "neighbours:\n- 7/16\n- 07/16\n",
            "w.yaml:4: neighbours[1]: value \"07/16\": expected a list of prefixes, such as [7/16]",
        );
        check(
            "neighbours: [7/16, 7/16]\n",
            "w.yaml:2: neighbours[1]: value \"7/16\": expected each only once",
        );
        check("metrics: 9197\n", &format!("w.yaml:2: metrics: value 9197: expected {METRICS_RIGHT}"));
        check("log:\n", &format!("w.yaml:2: log: no value: expected {LOG_RIGHT}"));
        check("interfaces: eth0\n", &format!("w.yaml:2: interfaces: value \"eth0\": expected {INTERFACES}"));
        check(
            "child-users: { openvpn: 0 }\n",
            &format!("w.yaml:2: child-users.openvpn: value 0: expected {USER}"),
        );
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_known_ones() {
        check(
            "listen: { udp: 1, sctp: 2 }\n",
            "w.yaml:2: listen.sctp: unknown key: expected one of udp, tcp",
        );
        let keys = KEYS.join(", ");
        check("refresh: 5m\n", &format!("w.yaml:2: refresh: unknown key: expected one of {keys}"));
        check("7: x\n", &format!("w.yaml: 7: unknown key: expected one of {keys}"));
    }

    #[test]
    fn a_key_given_twice_is_refused_at_its_second_line() {
        check("log: info\nlog: debug\n", "w.yaml:3: log: given twice: expected each key once");
        check(
            "listen:\n  udp: 1\n  tcp: 1\n  udp: 2\n",
            "w.yaml:5: udp: given twice: expected each key once",
        );
    }

    #[test]
    fn all_that_is_wrong_is_said_in_the_order_of_the_file() {
        check_text(
            "log: ''\nregistry: http://x:1\n",
            &format!(
                "w.yaml:1: log: value \"\": expected {LOG_RIGHT}\n\
                 w.yaml:2: registry: value \"http://x:1\": expected {REGISTRY}"
            ),
        );
    }

    #[test]
    fn a_missing_registry_is_said_so() {
        check_text("log: info\n", &format!("w.yaml: registry: missing: expected {REGISTRY}"));
    }

    #[test]
    fn a_file_without_content_is_empty() {
        for text in ["", "\n\n", "# only a comment\n", "---\n"] {
            check_text(text, "w.yaml: is empty; at least `registry: https://HOST:PORT` is needed");
        }
    }

    #[test]
    fn what_is_no_yaml_is_said_with_its_line() {
        check("listen: { udp: 1\nlog: info\n", "w.yaml:3: not YAML: did not find expected ',' or '}'");
        check("log: [\n", "w.yaml:3: not YAML: did not find expected node content");
        check("\tlog: info\n", "w.yaml:2: not YAML: found a tab character that violates indentation");
    }

    #[test]
    fn a_document_of_another_kind_is_refused() {
        let right = "expected keys and values, such as registry: https://HOST:PORT";
        let missing = format!("w.yaml: registry: missing: expected {REGISTRY}");
        check_text("- a\n", &format!("{missing}\nw.yaml:1: the document: a list: {right}"));
    }

    #[test]
    fn what_is_no_text_or_too_long_is_refused() {
        let expected = "w.yaml: is no UTF-8 text of at most 65536 bytes";
        let file = Path::new("w.yaml");
        assert_eq!(super::parse(file, b"log: \xff").unwrap_err().to_string(), expected);
        assert_eq!(super::parse(file, &[b' '; 65_537]).unwrap_err().to_string(), expected);
    }

    #[test]
    fn addresses_that_nobody_could_dial_are_no_endpoints() {
        for bad in
            ["udp:127.0.0.1:1", "udp:0.0.0.0:1", "tcp:[fe80::1]:1", "udp:192.0.2.1:0", "udp:10.0.0.1:1", "x"]
        {
            let text = format!("{GOOD}endpoints: [\"{bad}\"]\n");
            assert!(parse(&text).is_err(), "{bad}");
        }
        let private = format!("{GOOD}endpoints: [\"udp:10.0.0.1:1\"]\nprivate-endpoints: true\n");
        assert_eq!(parse(&private).unwrap().endpoints.len(), 1);
    }

    #[test]
    fn a_registry_is_a_host_with_a_port() {
        for (url, good) in [
            ("https://a:1", true),
            ("https://10.0.0.1:9443", true),
            ("https://[::1]:9443", true),
            ("https://a", false),
            ("https://a:0", false),
            ("https://a:65536", false),
            ("https://:1", false),
            ("https://a:1/", false),
            ("https://u@a:1", false),
            ("https://a b:1", false),
            ("https://1.2.3:1", false),
            ("https://[::1:1", false),
            ("https://a..b:1", false),
            ("https://a:01", false),
        ] {
            assert_eq!(parse(&format!("registry: \"{url}\"\n")).is_ok(), good, "{url}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("warren.yaml");
        let error = load(&missing).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: cannot read the configuration", missing.display()));
        assert!(std::error::Error::source(&error).is_some());
        let error = load(folder.path()).unwrap_err();
        let expected =
            format!("{}: is no file; a configuration in YAML belongs there", folder.path().display());
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.exit_code(), 78);
        std::fs::write(&missing, GOOD).unwrap();
        assert_eq!(load(&missing).unwrap(), defaults());
    }

    #[test]
    fn aliases_that_would_grow_without_bound_are_refused_quickly() {
        let mut text = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
        for (last, next) in "abcdefgh".chars().zip("bcdefghi".chars()) {
            let items = vec![format!("*{last}"); 10].join(", ");
            text.push_str(&format!("{next}: &{next} [{items}]\n"));
        }
        assert!(parse(&text).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(registry|listen|log|endpoints|upnp)?[:\\[\\]{},&*!| \"'#\\n\\t-]{0,6}\\PC{0,60}") {
            let _ = parse(&text);
        }

        #[test]
        fn every_complaint_is_one_line(key in "\\PC{1,20}", value in "\\PC{0,80}") {
            let text = format!("{GOOD}{key:?}: {value:?}\n");
            if let Err(ConfigError::Values { complaints, .. }) = parse(&text) {
                for complaint in complaints {
                    prop_assert!(!complaint.to_string().contains(['\n', '\r']), "{complaint}");
                }
            }
        }
    }
}
