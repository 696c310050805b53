//! All keys of a configuration, and how a change of each takes effect in a running node.

use crate::Settings;
use std::fmt;

/// How a change of a key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// A reload applies it at once, and no tunnel is closed.
    Live,
    /// A reload applies it, and tunnels that are no longer wanted are drained and closed.
    Drain,
    /// It is applied when the daemon is started again.
    Restart,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Drain => "drain",
            Self::Restart => "restart",
        })
    }
}

/// A key at the top of a configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The name, as it stands in the file.
    pub name: &'static str,
    /// How a change can take effect; if there is more than one effect, the value decides.
    pub effects: &'static [Effect],
    is_equal: fn(&Settings, &Settings) -> bool,
}

impl Key {
    /// Returns whether the values of this key differ.
    pub fn differs(&self, old: &Settings, new: &Settings) -> bool {
        !(self.is_equal)(old, new)
    }

    /// Returns whether a change can have this effect.
    pub fn has_effect(&self, effect: Effect) -> bool {
        self.effects.contains(&effect)
    }
}

const LIVE: &[Effect] = &[Effect::Live];
const RESTART: &[Effect] = &[Effect::Restart];

const fn key(
    name: &'static str,
    effects: &'static [Effect],
    is_equal: fn(&Settings, &Settings) -> bool,
) -> Key {
    Key {
        name,
        effects,
        is_equal,
    }
}

/// All keys, in the order of the template.
pub const KEYS: [Key; 19] = [
    key("registry", LIVE, |a, b| a.registry == b.registry),
    key("listen", RESTART, |a, b| {
        (&a.listen_udp, &a.listen_tcp) == (&b.listen_udp, &b.listen_tcp)
    }),
    key("endpoints", LIVE, |a, b| a.endpoints == b.endpoints),
    key("neighbours", LIVE, |a, b| a.neighbours == b.neighbours),
    key("interfaces", RESTART, |a, b| a.interfaces == b.interfaces),
    key("transit", RESTART, |a, b| a.transit == b.transit),
    key("metered", RESTART, |a, b| a.metered == b.metered),
    key("gateway", RESTART, |a, b| a.gateway == b.gateway),
    key("policy", LIVE, |a, b| a.policy == b.policy),
    key("dry-run", LIVE, |a, b| a.dry_run == b.dry_run),
    key("max-accepted", &[Effect::Live, Effect::Restart], |a, b| {
        a.max_accepted == b.max_accepted
    }),
    key(
        "tunnels-to-dial",
        &[Effect::Live, Effect::Drain, Effect::Restart],
        |a, b| a.tunnels_to_dial == b.tunnels_to_dial,
    ),
    key("child-users", RESTART, |a, b| {
        (&a.openvpn_user, &a.babeld_user) == (&b.openvpn_user, &b.babeld_user)
    }),
    key("upnp", RESTART, |a, b| a.upnp == b.upnp),
    key("lan-discovery", RESTART, |a, b| {
        a.lan_discovery == b.lan_discovery
    }),
    key("private-endpoints", LIVE, |a, b| {
        a.private_endpoints == b.private_endpoints
    }),
    key("metrics", LIVE, |a, b| a.metrics == b.metrics),
    key("metrics-from", LIVE, |a, b| {
        a.metrics_from == b.metrics_from
    }),
    key("log", LIVE, |a, b| a.log == b.log),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, path::Path};

    /// A line for each key, with a value that is not the default.
    const CHANGES: [(&str, &str); KEYS.len()] = [
        ("registry", "registry: https://b:1"),
        ("listen", "listen: { tcp: 443 }"),
        ("endpoints", "endpoints: [\"udp:192.0.2.1:1194\"]"),
        ("neighbours", "neighbours: [7/16]"),
        ("interfaces", "interfaces: [eth0]"),
        ("transit", "transit: leaf"),
        ("metered", "metered: true"),
        ("gateway", "gateway: true"),
        ("policy", "policy: random"),
        ("dry-run", "dry-run: true"),
        ("max-accepted", "max-accepted: 3"),
        ("tunnels-to-dial", "tunnels-to-dial: 3"),
        ("child-users", "child-users: { babeld: nobody }"),
        ("upnp", "upnp: off"),
        ("lan-discovery", "lan-discovery: off"),
        ("private-endpoints", "private-endpoints: true"),
        ("metrics", "metrics: off"),
        ("metrics-from", "metrics-from: [7/16]"),
        ("log", "log: debug"),
    ];

    fn parse(text: &str) -> Settings {
        crate::parse(Path::new("w.yaml"), text.as_bytes()).unwrap()
    }

    #[test]
    fn a_change_of_one_key_is_found_at_that_key_alone() {
        let old = parse("registry: https://a:1\n");
        for ((name, line), key) in CHANGES.iter().zip(KEYS) {
            assert_eq!(*name, key.name);
            let registry = if *name == "registry" {
                ""
            } else {
                "registry: https://a:1\n"
            };
            let new = parse(&format!("{registry}{line}\n"));
            let changed = KEYS.iter().filter(|key| key.differs(&old, &new));
            let names: Vec<_> = changed.map(|key| key.name).collect();
            assert_eq!(names, [*name]);
        }
    }

    /// Returns the rows of the table with the columns live, drain and restart, each as the key and the columns with text.
    fn manual_rows() -> Vec<(String, BTreeSet<Effect>)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let manual = std::fs::read_to_string(root.join("docs/OPERATIONS.md")).unwrap();
        let (_, table) = manual
            .split_once("\n| key | live | drain | restart |\n")
            .unwrap();
        let rows = table.lines().skip(1).take_while(|line| !line.is_empty());
        let row = |line: &str| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let effects = [Effect::Live, Effect::Drain, Effect::Restart];
            assert_eq!(cells.len(), 1 + effects.len(), "{line}");
            let has_text = effects.into_iter().zip(&cells[1..]);
            let found = has_text.filter(|(_, cell)| !cell.is_empty());
            (
                cells[0].trim_matches('`').to_owned(),
                found.map(|(effect, _)| effect).collect(),
            )
        };
        rows.map(row).collect()
    }

    #[test]
    fn the_manual_says_how_a_change_of_each_key_takes_effect() {
        let code = KEYS.map(|key| {
            let effects: BTreeSet<_> = key.effects.iter().copied().collect();
            (key.name.to_owned(), effects)
        });
        assert_eq!(manual_rows(), code);
    }

    #[test]
    fn every_key_has_a_row_in_the_manual_and_a_line_for_the_fuzzer() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let manual = std::fs::read_to_string(root.join("docs/OPERATIONS.md")).unwrap();
        let corpus = std::fs::read_to_string(root.join("fuzz/corpus/config/all.yaml")).unwrap();
        for key in KEYS.map(|key| key.name) {
            assert!(manual.contains(&format!("\n| `{key}` | ")), "{key}");
            assert!(corpus.contains(&format!("{key}: ")), "{key}");
        }
        parse(&corpus);
    }
}
