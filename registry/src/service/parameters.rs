//! The parameters that the operator may set; each has a name, a range, and an effect on nodes.

use super::RegistryService;
use crate::{service::error::ServiceError, settings};
use policies::names::Prefix;
use std::time::Duration;
use wire::registry::{IPV4_RIGHT, NetworkDocument};

/// A parameter with its present value.
pub struct Parameter {
    /// The key, as `warren registry set` accepts it.
    pub key: &'static str,
    /// The value, as `warren registry set` accepts it.
    pub value: String,
    /// The effect of a new value on a node: `live`, `drain` (tunnels are replaced one by one),
    /// `restart` (of babeld), or `registry` (no effect on nodes).
    pub class: &'static str,
}

fn bad<T>(field: &'static str, value: &str, right: &str) -> Result<T, ServiceError> {
    let value = value.chars().take(80).collect();
    Err(ServiceError::Value {
        field,
        value,
        right: right.to_owned(),
    })
}

fn span(key: &'static str, text: &str) -> Result<Duration, ServiceError> {
    humantime::parse_duration(text)
        .or_else(|_| bad(key, text, "a duration such as 300ms, 5m or 1h"))
}

fn ms(key: &'static str, text: &str) -> Result<u64, ServiceError> {
    u64::try_from(span(key, text)?.as_millis()).or_else(|_| bad(key, text, "a shorter duration"))
}

fn seconds(key: &'static str, text: &str) -> Result<i64, ServiceError> {
    let seconds = i64::try_from(span(key, text)?.as_secs()).ok();
    let seconds = seconds.filter(|seconds| (1..=3_153_600_000).contains(seconds));
    seconds.map_or_else(|| bad(key, text, "1s to 100 years"), Ok)
}

fn number<T: std::str::FromStr>(key: &'static str, text: &str) -> Result<T, ServiceError> {
    text.parse().or_else(|_| bad(key, text, "a whole number"))
}

fn prefixes(key: &'static str, text: &str) -> Result<Vec<Prefix>, ServiceError> {
    let items = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    let list: Result<Vec<Prefix>, _> = items.map(str::parse).collect();
    let list = list.ok().filter(|list| list.len() <= wire::text::FEW);
    list.map_or_else(
        || bad(key, text, "at most 16 prefixes with commas between them"),
        Ok,
    )
}

/// Prints a duration so that it can be set again. Whole days are printed as days, since months differ in length.
fn shown(ms: u64) -> String {
    const DAY_MS: u64 = 86_400_000;
    if ms > 0 && ms.is_multiple_of(DAY_MS) {
        return format!("{}days", ms / DAY_MS);
    }
    humantime::format_duration(Duration::from_millis(ms)).to_string()
}

impl RegistryService {
    /// Returns all parameters with their values.
    pub fn parameters(&self) -> Vec<Parameter> {
        let document = &self.network.0;
        let numbers = &document.parameters;
        let seconds = |s: i64| shown(u64::try_from(s).unwrap_or(0).saturating_mul(1000));
        let gateways: Vec<String> = document.gateways.iter().map(Prefix::to_string).collect();
        let all = [
            (
                "hello-interval",
                shown(numbers.hello_interval_ms),
                "restart",
            ),
            (
                "update-interval",
                shown(numbers.update_interval_ms),
                "restart",
            ),
            (
                "tunnels-to-dial",
                numbers.tunnels_to_dial.to_string(),
                "live",
            ),
            ("max-accepted", numbers.max_accepted.to_string(), "live"),
            ("refresh", shown(numbers.refresh_ms), "live"),
            ("min-age", shown(numbers.min_age_ms), "live"),
            ("probe", shown(numbers.probe_ms), "live"),
            ("idle-probe", shown(numbers.idle_probe_ms), "live"),
            (
                "private-endpoints",
                document.private_endpoints.to_string(),
                "live",
            ),
            ("gateways", gateways.join(","), "restart"),
            (
                "ipv4",
                document
                    .ipv4
                    .map(|range| range.to_string())
                    .unwrap_or_default(),
                "restart",
            ),
            (
                "min-version",
                document.min_version.clone().unwrap_or_default(),
                "live",
            ),
            (
                "certificate-life",
                seconds(self.settings.certificate_life_s),
                "registry",
            ),
            (
                "announcement-ttl",
                seconds(self.settings.announcement_ttl_s),
                "registry",
            ),
        ];
        all.into_iter()
            .map(|(key, value, class)| Parameter { key, value, class })
            .collect()
    }

    /// Sets one parameter; returns the version of the network document.
    ///
    /// # Errors
    /// The key is unknown, the value is out of range, or the change could not be stored.
    pub fn set(&mut self, key: &str, value: &str, operator: &str) -> Result<u64, ServiceError> {
        let mut next = self.network.0.clone();
        if change(&mut next, key, value)? {
            next.check()?;
            self.publish(|document| *document = next)?;
        } else {
            let mut settings = self.settings.clone();
            match key {
                "certificate-life" => settings.certificate_life_s = seconds("value", value)?,
                "announcement-ttl" => settings.announcement_ttl_s = seconds("value", value)?,
                _ => {
                    let keys: Vec<&str> = self.parameters().iter().map(|one| one.key).collect();
                    return bad("key", key, &format!("one of {}", keys.join(", ")));
                }
            }
            settings::replace(&self.paths, &settings)?;
            self.settings = settings;
        }
        let shown: String = value.chars().take(80).collect();
        self.audit(operator, format!("set: {key} {shown}"))?;
        Ok(self.network.0.version)
    }
}

/// Changes one value of the document; returns false if the document has no such key.
fn change(document: &mut NetworkDocument, key: &str, value: &str) -> Result<bool, ServiceError> {
    const V: &str = "value";
    let numbers = &mut document.parameters;
    match key {
        "hello-interval" => numbers.hello_interval_ms = ms(V, value)?,
        "update-interval" => numbers.update_interval_ms = ms(V, value)?,
        "tunnels-to-dial" => numbers.tunnels_to_dial = number(V, value)?,
        "max-accepted" => numbers.max_accepted = number(V, value)?,
        "refresh" => numbers.refresh_ms = ms(V, value)?,
        "min-age" => numbers.min_age_ms = ms(V, value)?,
        "probe" => numbers.probe_ms = ms(V, value)?,
        "idle-probe" => numbers.idle_probe_ms = ms(V, value)?,
        "private-endpoints" => match value {
            "true" => document.private_endpoints = true,
            "false" => document.private_endpoints = false,
            _ => return bad(V, value, "true or false"),
        },
        "gateways" => document.gateways = prefixes(V, value)?,
        "ipv4" if value.is_empty() => document.ipv4 = None,
        "ipv4" => document.ipv4 = Some(value.parse().or_else(|_| bad(V, value, IPV4_RIGHT))?),
        "min-version" => {
            document.min_version = Some(value.to_owned()).filter(|value| !value.is_empty())
        }
        _ => return Ok(false),
    }
    Ok(true)
}
