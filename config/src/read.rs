//! Converts the text of `warren.yaml` to [`Settings`]: all keys and their values.

mod values;

use crate::{
    ChildUser, Complaint, ConfigError, MetricsAddress, Settings, Transit,
    keys::KEYS,
    lines::{Step, last_line_of_key},
    sources::{LIMIT, Source, drop_ins, merge, place_of, read_bytes},
    tree::{Fault, Tree, name, one_line},
};
use policies::{
    gain::Rule,
    names::{Endpoint, Prefix},
    node_reference::NodeReference,
};
use serde_yaml::Value;
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};
use values::*;
use wire::endpoints::{EndpointError, PrivateEndpointUse, class_of};

/// The maximum number of items of a list.
const MAX_ITEMS: usize = 256;
/// The default port of tunnels: OpenVPN's own.
pub(crate) const PORT: u16 = 1194;
/// The default address of the metrics endpoint.
pub(crate) const METRICS: &str = "127.0.0.1:9197";
/// The default user of OpenVPN.
pub(crate) const OPENVPN_USER: &str = "warren-openvpn";
/// The default user of babeld.
pub(crate) const BABELD_USER: &str = "warren-babel";
/// The default filter of log lines.
pub(crate) const LOG: &str = "info";

/// Reads and checks the configuration `file` and its drop-in files: with `warren.yaml`, these are `warren.d/*.yaml` beside it.
///
/// # Errors
/// One line for each thing that is wrong; see [`ConfigError`].
pub fn load(file: &Path) -> Result<Settings, ConfigError> {
    let mut sources = vec![source(file, &read_bytes(file)?)?];
    for drop_in in drop_ins(file)? {
        sources.push(source(&drop_in, &read_bytes(&drop_in)?)?);
    }
    check(&sources)
}

/// Checks the text of a configuration; `file` is only named in complaints.
///
/// # Errors
/// As [`load`], but for reading.
pub fn parse(file: &Path, bytes: &[u8]) -> Result<Settings, ConfigError> {
    check(&[source(file, bytes)?])
}

/// Parses one file.
fn source(file: &Path, bytes: &[u8]) -> Result<Source, ConfigError> {
    let file = file.to_owned();
    let is_short = u64::try_from(bytes.len()).is_ok_and(|size| size <= LIMIT);
    let Some(text) = std::str::from_utf8(bytes).ok().filter(|_| is_short) else {
        return Err(ConfigError::NotText { file, limit: LIMIT });
    };
    match serde_yaml::from_str(text) {
        Ok(value) => Ok(Source {
            file,
            text: text.to_owned(),
            value,
        }),
        Err(error) => Err(syntax(file, text, &error)),
    }
}

/// Checks the merged values of all files.
fn check(sources: &[Source]) -> Result<Settings, ConfigError> {
    let is_map = |source: &Source| source.value.is_null() || source.value.is_mapping();
    if let Some(source) = sources.iter().find(|source| !is_map(source)) {
        let fault = Tree::root(&source.value).fault(DOCUMENT);
        return Err(values(std::slice::from_ref(source), vec![fault]));
    }
    let value = merge(sources);
    if value.is_null() {
        let first = sources.first().map(|source| source.file.clone());
        return Err(ConfigError::Empty {
            file: first.unwrap_or_default(),
        });
    }
    let mut faults = Vec::new();
    let settings = settings(&Tree::root(&value), &mut faults);
    match settings {
        Some(settings) if faults.is_empty() => Ok(settings),
        Some(_) | None => Err(values(sources, faults)),
    }
}

fn syntax(file: PathBuf, text: &str, error: &serde_yaml::Error) -> ConfigError {
    let message = error.to_string();
    let line = error.location().map_or(1, |location| location.line());
    let duplicate = message
        .split_once("duplicate entry with key \"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(key, _)| key.to_owned());
    let Some(key) = duplicate else {
        // The position stands before the text already.
        let text = one_line(message.split(" at line ").next().unwrap_or_default().trim());
        return ConfigError::Syntax {
            file,
            line,
            text: format!("not YAML: {text}"),
        };
    };
    let complaint = Complaint {
        file,
        line: last_line_of_key(text, &key).or(Some(line)),
        key,
        value: "given twice".into(),
        right: "each key once".into(),
    };
    ConfigError::Values {
        complaints: vec![complaint],
    }
}

/// Describes the faults in the order of the files and lines.
fn values(sources: &[Source], faults: Vec<Fault>) -> ConfigError {
    let complaint = |fault: Fault| {
        let (index, line) = place_of(sources, &fault.path);
        let file = sources.get(index).map(|source| source.file.clone());
        let complaint = Complaint {
            file: file.unwrap_or_default(),
            line,
            key: name(&fault.path),
            value: fault.value,
            right: fault.right,
        };
        (index, complaint)
    };
    let mut placed: Vec<_> = faults.into_iter().map(complaint).collect();
    placed.sort_by_key(|(index, complaint)| (*index, complaint.line));
    ConfigError::Values {
        complaints: placed.into_iter().map(|(_, complaint)| complaint).collect(),
    }
}

/// Returns `None` if a key without a default is missing or wrong; `faults` collects everything
/// that is wrong.
fn settings(root: &Tree<'_>, faults: &mut Vec<Fault>) -> Option<Settings> {
    let [
        registry,
        listen,
        endpoints,
        neighbours,
        interfaces,
        transit,
        metered,
        gateway,
        policy,
        dry_run,
        max_accepted,
        tunnels_to_dial,
        child_users,
        upnp,
        lan_discovery,
        private_endpoints,
        metrics,
        metrics_from,
        log,
    ] = root.keys(KEYS.map(|key| key.name), DOCUMENT, faults);
    let private = private_endpoints.and_then(|tree| private_use(&tree, faults));
    let private = private.unwrap_or_default();
    let allows_private = private != PrivateEndpointUse::NetworkOnly;
    let endpoints = list(endpoints, ENDPOINTS, faults, |text| {
        endpoint(text, allows_private)
    });
    let listen = listen.map(|tree| tree.keys(["udp", "tcp"], LISTEN, faults));
    let [udp, tcp] = listen.unwrap_or_default();
    let users = child_users.map(|tree| tree.keys(["openvpn", "babeld"], USERS, faults));
    let [openvpn, babeld] = users.unwrap_or_default();
    let transit = transit.and_then(|tree| word(&tree, TRANSIT, faults));
    let transit = transit.unwrap_or_default();
    let metered = metered.is_some_and(|tree| flag(&tree, faults) == Some(true));
    let gateway = gateway.is_some_and(|tree| is_gateway(&tree, (transit, metered), faults));
    let metrics = metrics.and_then(|tree| tree.read(METRICS_RIGHT, faults, metrics_of));
    Some(Settings {
        listen_udp: listen_ports(udp, faults),
        listen_tcp: listen_ports(tcp, faults),
        endpoints,
        neighbours: list(neighbours, NEIGHBOURS, faults, parsed::<Prefix>),
        interfaces: list(interfaces, INTERFACES, faults, interface),
        transit,
        metered,
        gateway,
        policy: rule(policy, faults),
        dry_run: dry_run.is_some_and(|tree| flag(&tree, faults) == Some(true)),
        max_accepted: max_accepted.and_then(|tree| accepted_limit(&tree, faults)),
        tunnels_to_dial: tunnels_to_dial.and_then(|tree| dialled_limit(&tree, faults)),
        openvpn_user: user_or(openvpn, OPENVPN_USER, faults),
        babeld_user: user_or(babeld, BABELD_USER, faults),
        upnp: is_automatic(upnp, faults),
        lan_discovery: is_automatic(lan_discovery, faults),
        private_endpoints: private,
        metrics: metrics.or_else(|| metrics_of(&Value::from(METRICS)))?,
        metrics_from: list(metrics_from, METRICS_FROM, faults, parsed::<NodeReference>),
        log: log_filter(log, faults),
        registry: self::registry(registry, faults)?,
    })
}

/// Reads `auto`, which is the default, or `off`.
fn is_automatic(tree: Option<Tree<'_>>, faults: &mut Vec<Fault>) -> bool {
    let words = [("auto", true), ("off", false)];
    tree.and_then(|tree| word(&tree, &words, faults))
        .unwrap_or(true)
}

fn rule(tree: Option<Tree<'_>>, faults: &mut Vec<Fault>) -> Rule {
    let rule = tree.and_then(|tree| word(&tree, POLICY, faults));
    rule.unwrap_or_default()
}

fn log_filter(tree: Option<Tree<'_>>, faults: &mut Vec<Fault>) -> String {
    let filter = tree.and_then(|tree| tree.read(LOG_RIGHT, faults, log_of));
    filter.unwrap_or_else(|| LOG.to_owned())
}

const NEIGHBOURS: &str = "a list of prefixes, such as [7/16]";

fn is_gateway(
    tree: &Tree<'_>,
    (transit, metered): (Transit, bool),
    faults: &mut Vec<Fault>,
) -> bool {
    let is_on = flag(tree, faults).unwrap_or(false);
    if is_on && transit == Transit::Leaf {
        faults.push(tree.fault("false with transit: leaf, which carries no traffic of others"));
    }
    if is_on && metered {
        faults.push(tree.fault("false with metered: true, which carries no traffic of others"));
    }
    is_on
}

fn accepted_limit(tree: &Tree<'_>, faults: &mut Vec<Fault>) -> Option<u16> {
    tree.read("a number from 0 to 250", faults, |value| {
        number(value, 0, 250)
    })
}

fn dialled_limit(tree: &Tree<'_>, faults: &mut Vec<Fault>) -> Option<u16> {
    tree.read("a number from 1 to 30", faults, |value| {
        number(value, 1, 30)
    })
}

fn user_or(tree: Option<Tree<'_>>, default: &str, faults: &mut Vec<Fault>) -> ChildUser {
    tree.and_then(|tree| user(&tree, faults))
        .unwrap_or_else(|| named(default))
}

const TRANSIT: &[(&str, Transit)] = &[
    ("normal", Transit::Normal),
    ("avoid", Transit::Avoid),
    ("leaf", Transit::Leaf),
];
const POLICY: &[(&str, Rule)] = &[("gain", Rule::Gain), ("random", Rule::Random)];
const DOCUMENT: &str = "keys and values, such as registry: https://HOST:PORT";
const REGISTRY: &str = "https://HOST:PORT, such as https://registry.example:9443";
const LISTEN: &str = "ports, such as { udp: 1194, tcp: [1194, 443] }";
const USERS: &str = "users, such as { openvpn: warren-openvpn, babeld: warren-babel }";
const USER: &str = "a user's name, or its number from 1 to 4294967294; root is no choice";
const ENDPOINTS: &str = "a list of addresses that others can dial, such as [\"udp:192.0.2.1:1194\", \"tcp:[2001:db8::1]:1194\"]";
const INTERFACES: &str = "a list of names of links, such as [eth0]; wrn… are our own";
const METRICS_RIGHT: &str = "ADDRESS:PORT, such as 127.0.0.1:9197, overlay:PORT, the absolute path of a unix socket, a list of these, or off";
const METRICS_FROM: &str = "a list of nodes, by prefix or name, such as [7/16, monitor]";
const LOG_LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
const LOG_RIGHT: &str =
    "a level (error, warn, info, debug, trace) or a filter, such as info,actors=debug";

fn text(value: &Value) -> Option<&str> {
    value.as_str()
}

#[cfg(test)]
mod tests;
