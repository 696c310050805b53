//! Reads single values; each rejection names a valid value.

use super::*;

/// Maximum number of ports of one transport.
const MAX_LISTEN_PORTS: usize = 4;

/// Maximum number of addresses at which metrics are served.
const MAX_METRICS_ADDRESSES: usize = 8;

pub(super) fn number(value: &Value, min: u16, max: u16) -> Option<u16> {
    let number = u16::try_from(value.as_u64()?).ok()?;
    (min..=max).contains(&number).then_some(number)
}

/// Reads one port or a list of ports; 0 alone means none, and a missing value the usual port.
pub(super) fn listen_ports(tree: Option<Tree<'_>>, faults: &mut Vec<Fault>) -> Vec<u16> {
    let right = "a port from 1 to 65535, a list of up to 4 different ones, or 0: do not accept";
    let ports = tree.and_then(|tree| tree.read(right, faults, ports_of));
    ports.unwrap_or_else(|| vec![PORT])
}

fn ports_of(value: &Value) -> Option<Vec<u16>> {
    let Value::Sequence(list) = value else {
        let port = number(value, 0, u16::MAX)?;
        return Some(Some(port).filter(|port| *port != 0).into_iter().collect());
    };
    let ports: Option<Vec<u16>> = list.iter().map(|port| number(port, 1, u16::MAX)).collect();
    ports.filter(|ports| {
        let distinct: BTreeSet<_> = ports.iter().collect();
        (1..=MAX_LISTEN_PORTS).contains(&ports.len()) && distinct.len() == ports.len()
    })
}

pub(super) fn flag(tree: &Tree<'_>, faults: &mut Vec<Fault>) -> Option<bool> {
    tree.read("true or false", faults, Value::as_bool)
}

/// Reads `auto`, `true` or `false`.
pub(super) fn private_use(tree: &Tree<'_>, faults: &mut Vec<Fault>) -> Option<PrivateEndpointUse> {
    tree.read("one of auto, true, false", faults, |value| {
        match (value.as_bool(), text(value)) {
            (Some(true), _) => Some(PrivateEndpointUse::All),
            (Some(false), _) => Some(PrivateEndpointUse::NetworkOnly),
            (None, Some("auto")) => Some(PrivateEndpointUse::Auto),
            (None, _) => None,
        }
    })
}

pub(super) fn word<T: Copy>(
    tree: &Tree<'_>,
    words: &[(&str, T)],
    faults: &mut Vec<Fault>,
) -> Option<T> {
    let names: Vec<_> = words.iter().map(|(name, _)| *name).collect();
    tree.read(&format!("one of {}", names.join(", ")), faults, |value| {
        let text = text(value)?;
        words
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, meaning)| *meaning)
    })
}

pub(super) fn named(name: &str) -> ChildUser {
    ChildUser::Name(name.to_owned())
}

/// Names as useradd(8) takes them.
pub(super) fn user(tree: &Tree<'_>, faults: &mut Vec<Fault>) -> Option<ChildUser> {
    tree.read(USER, faults, |value| {
        if let Some(id) = value.as_u64() {
            let id = u32::try_from(id)
                .ok()
                .filter(|id| (1..u32::MAX).contains(id));
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
pub(super) fn list<T: Ord + Clone>(
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
        let Some(taken) = item.read(right, faults, |value| take(text(value)?)) else {
            continue;
        };
        if seen.insert(taken.clone()) {
            list.push(taken);
        } else {
            faults.push(item.fault("each only once"));
        }
    }
    list
}

pub(super) fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

pub(super) fn endpoint(text: &str, private: bool) -> Option<Endpoint> {
    let endpoint: Endpoint = parsed(text)?;
    let good = match class_of(endpoint.address.ip()) {
        None => true,
        Some(EndpointError::Private) => private,
        Some(_) => false,
    };
    (good && endpoint.address.port() != 0).then_some(endpoint)
}

pub(super) fn interface(name: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let good =
        (1..=15).contains(&name.len()) && name.chars().all(plain) && !name.starts_with("wrn");
    (good && name != "." && name != "..").then(|| name.to_owned())
}

/// Reads one address, a list of them, or `off`.
pub(super) fn metrics_of(value: &Value) -> Option<Vec<MetricsAddress>> {
    if text(value) == Some("off") {
        return Some(Vec::new());
    }
    let Some(list) = value.as_sequence() else {
        return Some(vec![metrics_address(value)?]);
    };
    let addresses: Vec<_> = list.iter().map(metrics_address).collect::<Option<_>>()?;
    let is_good = (1..=MAX_METRICS_ADDRESSES).contains(&addresses.len());
    is_good.then_some(addresses)
}

fn metrics_address(value: &Value) -> Option<MetricsAddress> {
    let text = text(value)?;
    if let Some(port) = text.strip_prefix("overlay:") {
        let port: u16 = port.parse().ok()?;
        return (port != 0).then_some(MetricsAddress::Overlay(port));
    }
    let path = text.strip_prefix("unix:").unwrap_or(text);
    if path.starts_with('/') {
        let good = path.len() < 100 && !path.contains(char::is_control);
        return good.then(|| MetricsAddress::Unix(path.into()));
    }
    let address: SocketAddr = parsed(text)?;
    (address.port() != 0).then_some(MetricsAddress::Tcp(address))
}

/// A level, or levels of single targets, joined by commas.
pub(super) fn log_of(value: &Value) -> Option<String> {
    let text = text(value)?;
    let is_plain = |c: char| c.is_ascii_graphic() && c != '=';
    let is_level = |level: &str| LOG_LEVELS.contains(&level);
    let is_good = |part: &str| match part.split_once('=') {
        Some((target, level)) => {
            !target.is_empty() && target.chars().all(is_plain) && is_level(level)
        }
        None => is_level(part),
    };
    let good = text.len() <= 1024 && text.split(',').all(is_good);
    good.then(|| text.to_owned())
}

pub(super) fn registry(tree: Option<Tree<'_>>, faults: &mut Vec<Fault>) -> Option<String> {
    let Some(tree) = tree else {
        let path = vec![Step::Key("registry".into())];
        faults.push(Fault {
            path,
            value: "missing".into(),
            right: REGISTRY.into(),
        });
        return None;
    };
    tree.read(REGISTRY, faults, |value| {
        let url = text(value)?;
        let (host, port) = url.strip_prefix("https://")?.rsplit_once(':')?;
        let port_good =
            parsed::<u16>(port).is_some_and(|number| number != 0 && number.to_string() == port);
        (port_good && host_good(host)).then(|| url.to_owned())
    })
}

/// A DNS name, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn host_good(host: &str) -> bool {
    if let Some(inside) = host.strip_prefix('[') {
        return inside
            .strip_suffix(']')
            .and_then(parsed::<Ipv6Addr>)
            .is_some();
    }
    let label = |label: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(plain) && !label.starts_with('-')
    };
    let numbers = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    let address = parsed::<IpAddr>(host).is_some();
    host.len() <= 253 && host.split('.').all(label) && (address || !numbers)
}
