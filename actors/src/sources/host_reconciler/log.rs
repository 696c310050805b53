//! Logs what has changed since the last comparison.

use super::HostReconciler;
use crate::messages::HostCompared;
use wire::babel_packet;

impl HostReconciler {
    /// Logs what differs from the last comparison.
    pub(super) fn log_changes(&mut self, now: &HostCompared) {
        let before = std::mem::replace(&mut self.logged, now.clone());
        if let Some(failure) = now
            .failure
            .as_ref()
            .filter(|_| before.failure != now.failure)
        {
            tracing::warn!(
                failure,
                "what the node needs on this host could not be restored; it is tried again twice a minute"
            );
        }
        if before.earlier_rules != now.earlier_rules && !now.earlier_rules.is_empty() {
            tracing::info!(priorities = ?now.earlier_rules, "routing rules of other programs are consulted before the node's");
        }
        if let Some(diversion) = now
            .diversion
            .as_ref()
            .filter(|_| before.diversion != now.diversion)
        {
            tracing::warn!(
                "packets to nodes that babeld has a route to {diversion}: see ip -6 rule for rules before priority 31999"
            );
        }
        match (before.is_transit_blocked, now.is_transit_blocked) {
            (false, true) => tracing::warn!(
                "a firewall of this host drops packets that the node should forward for others, so it carries no transit traffic (transit: leaf): allow forwarding between links wrn*, for instance by ip6tables -I FORWARD -i wrn+ -o wrn+ -j ACCEPT, with Docker in the chain DOCKER-USER"
            ),
            (true, false) => tracing::info!(
                "this host forwards packets for others again, so the node carries transit traffic"
            ),
            (true, true) | (false, false) => {}
        }
        if let Some(overlap) = now
            .ipv4_overlap
            .as_ref()
            .filter(|_| before.ipv4_overlap != now.ipv4_overlap)
        {
            tracing::warn!(
                "this node has no IPv4 in the network: its range {overlap}; let the operator of the registry choose another range (warren registry set ipv4), or change the network of this host"
            );
        }
        if let Some(uid) = now
            .other_babel_uid
            .filter(|_| before.other_babel_uid.is_none())
        {
            tracing::warn!(
                uid,
                port = babel_packet::PORT,
                "another program shares babeld's port, probably another babeld: stop it (systemctl disable --now babeld)"
            );
        }
    }
}
