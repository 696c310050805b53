//! Builds the part of the status about the LANs of the host.

use super::View;
use crate::messages::{LanOutcome, LanPeer};
use policies::{lan_discovery::Verdict, names::Prefix};
use wire::control::{LanLinkEntry, LanNodeEntry, LanState};

impl View<'_> {
    pub(super) fn lan(&self) -> LanState {
        let lan = &self.node.lan;
        let link = |(link, error): (&String, &Option<String>)| LanLinkEntry {
            link: link.clone(),
            error: error.clone(),
        };
        let node = |(prefix, peer): (&Prefix, &LanPeer)| LanNodeEntry {
            prefix: prefix.to_string(),
            name: self.name(*prefix),
            link: peer.links.join(", "),
            endpoints: peer.endpoints.iter().map(ToString::to_string).collect(),
            answered_seconds_ago: self.now.since(peer.answered_at).as_secs_f64(),
        };
        let copies = LanOutcome::Received(Verdict::OwnPrefix);
        LanState {
            enabled: lan.at.is_some(),
            links: lan.links.iter().map(link).collect(),
            nodes: lan.nodes.iter().map(node).collect(),
            has_copy: lan.messages.get(&copies).is_some_and(|count| *count > 0),
        }
    }
}
