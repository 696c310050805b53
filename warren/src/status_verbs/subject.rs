//! The tunnel or node that an argument of a verb means: `wrn0`, `7/16`, or a name.

use super::format::node;
use policies::{
    names::{Prefix, Slot},
    node_name::NodeName,
};
use std::fmt;
use wire::control::{DecisionsDocument, NamesDocument, NodeNameEntry};

/// A tunnel or node that the daemon knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The slot of a tunnel.
    Tunnel(String),
    /// The prefix of a node, and its name.
    Node(String, Option<String>),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tunnel(slot) => f.write_str(slot),
            Self::Node(prefix, name) => f.write_str(&node(prefix, name.as_deref())),
        }
    }
}

/// The error of an argument that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnknownSubject {
    /// No tunnel is or was on this slot.
    #[error("no tunnel is or lately was on {0}; warren tunnels lists the tunnels")]
    Tunnel(Slot),
    /// No node with this prefix or name is known.
    #[error("no node {0} is known; warren hosts --all lists the known nodes")]
    Node(String),
    /// The text is neither a tunnel, nor a prefix, nor a name.
    #[error("{0:?} is neither a tunnel (wrn0), nor a prefix (7/16), nor the name of a node")]
    Malformed(String),
}

impl Subject {
    /// Finds the tunnel or node that `text` means.
    pub(super) fn find(
        text: &str,
        decisions: &DecisionsDocument,
        names: &NamesDocument,
    ) -> Result<Self, UnknownSubject> {
        if let Ok(slot) = text.parse::<Slot>() {
            let decided = decisions.decisions.iter().map(|entry| &entry.slot);
            let mut known = decided.chain(decisions.verdicts.iter().map(|entry| &entry.slot));
            return if known.any(|known| known == text) {
                Ok(Self::Tunnel(text.to_owned()))
            } else {
                Err(UnknownSubject::Tunnel(slot))
            };
        }
        let found = find_node(text, names)?;
        Ok(Self::Node(found.prefix.clone(), found.name.clone()))
    }
}

/// Finds the node that `text` means, by its prefix or its name.
pub(super) fn find_node<'a>(
    text: &str,
    names: &'a NamesDocument,
) -> Result<&'a NodeNameEntry, UnknownSubject> {
    let name = text.parse::<NodeName>().ok();
    if name.is_none() && text.parse::<Prefix>().is_err() {
        return Err(UnknownSubject::Malformed(text.to_owned()));
    }
    let is_meant = |node: &&NodeNameEntry| match &name {
        Some(name) => node.name.as_deref() == Some(name.as_str()),
        None => node.prefix == text,
    };
    names
        .nodes
        .iter()
        .find(is_meant)
        .ok_or_else(|| UnknownSubject::Node(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECISIONS: &str = r#"{"version":1,"at":"2023-11-14T22:13:20.5Z",
        "verdicts":[{"slot":"wrn1","peer":"8/16","text":"kept"}],"decisions":[]}"#;

    const NAMES: &str = r#"{"version":1,"at":"2023-11-14T22:13:20.5Z","network":"fd00::/48","nodes":[
        {"prefix":"8/16","name":"web","address":"fd00::8:0:0:0:1"},
        {"prefix":"9/16","name":null,"address":"fd00::9:0:0:0:1"}]}"#;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let (decisions, names) = (
            serde_json::from_str(DECISIONS).unwrap(),
            serde_json::from_str(NAMES).unwrap(),
        );
        let found = match Subject::find(text, &decisions, &names) {
            Ok(subject) => subject.to_string(),
            Err(error) => format!("error: {error}"),
        };
        assert!(found.starts_with(expected), "{found}");
    }

    #[test]
    fn a_tunnel_a_prefix_and_a_name_are_found() {
        check("wrn1", "wrn1");
        check("8/16", "web (8/16)");
        check("web", "web (8/16)");
        check("WEB", "web (8/16)");
        check("9/16", "9/16");
    }

    #[test]
    fn an_argument_that_means_nothing_is_an_error() {
        check("wrn77", "error: no tunnel is or lately was on wrn77");
        check("99/16", "error: no node 99/16 is known");
        check("printer", "error: no node printer is known");
        check("a\nb", "error: \"a\\nb\" is neither");
        check("", "error: \"\" is neither");
    }
}
