//! Announces this node's endpoints, software and document versions to the registry.

use super::*;
use crate::{messages::EndpointsChecked, sources::peer_cache::directory::MAX_ENDPOINTS};
use membership::documents::is_private;

impl RegistryClient {
    /// Returns the endpoints of this node, best first: configured ones, then leases and addresses of links, of these those of main
    /// uplinks before those of bridges and other VPNs, public ones before private ones, confirmed ones before others, and UDP before
    /// TCP. Those at which other nodes get no answer come last.
    fn own_endpoints(&self) -> Vec<Endpoint> {
        let RegistrySettings {
            network, private, ..
        } = &self.settings;
        let live_settings = self.live_settings.load();
        let announces_private = private.are_announced();
        let mut seen = BTreeSet::new();
        let mut found = self.leases.clone();
        found.extend(self.uplinks.keys());
        found.retain(|endpoint| {
            dialable(*endpoint, *network, announces_private).is_ok()
                && !private.is_in_overlay(endpoint.address.ip())
        });
        let is_beside = |endpoint: &Endpoint| self.uplinks.get(endpoint) == Some(&false);
        found.sort_by_key(|endpoint| {
            let transport = endpoint.transport;
            let reachability = self.reachability.get(endpoint).copied().unwrap_or_default();
            (
                is_beside(endpoint),
                is_private(*endpoint),
                reachability,
                transport,
            )
        });
        let configured = live_settings.endpoints.iter().copied();
        let mut all: Vec<_> = configured
            .filter(|endpoint| seen.insert(*endpoint))
            .take(MAX_ENDPOINTS)
            .collect();
        found.retain(|endpoint| seen.insert(*endpoint));
        let room = MAX_ENDPOINTS.saturating_sub(all.len());
        all.extend(endpoint_selection::select(found, room));
        // Nobody gets an answer there at present, whoever says that it is an endpoint of this node.
        all.sort_by_key(|endpoint| self.reachability.get(endpoint) == Some(&Reachability::Silent));
        all
    }

    pub(super) fn build_announcement(&self) -> Announcement {
        let node = self.node_document.load();
        Announcement {
            version: VERSION,
            endpoints: self.own_endpoints(),
            software: node.software.clone(),
            network_version: node.network_version,
            network_applied: self.applied.oldest(),
            revocations_version: node.revocations_version,
            instance: self.instance,
            ..Announcement::default()
        }
    }

    pub(super) fn send_announcement(
        &mut self,
        announcement: Announcement,
        ctx: &mut Context<Self>,
    ) {
        (self.is_calling, self.is_early_announcement_due) = (true, false);
        let endpoints = announcement.endpoints.clone();
        self.node_document.rcu(|node| NodeDocument {
            endpoints: endpoints.clone(),
            ..(**node).clone()
        });
        self.report_endpoints(&endpoints);
        // Unreachable peers are added only here, so that a change of them does not cause an announcement.
        let unreachable = unreachable_peers(&self.peers.load(), self.clock.now());
        let (registry, sent) = (
            self.registry.clone(),
            Announcement {
                unreachable,
                ..announcement.clone()
            },
        );
        let call = async move {
            registry
                .send::<Announced>(Method::PUT, "/v1/nodes/self", &sent)
                .await
        };
        ctx.spawn(call.into_actor(self).map(|answer, client, ctx| {
            client.handle_announced(answer, announcement);
            client.call_if_due(ctx);
        }));
    }

    fn handle_announced(
        &mut self,
        answer: Result<Announced, RegistryApiError>,
        announcement: Announcement,
    ) {
        self.is_calling = false;
        let now = self.clock.now();
        match answer {
            Ok(announced) => {
                self.delays.note_answer();
                let is_first = self.last_announcement.is_none();
                self.last_announcement = Some(announcement);
                self.failed_endpoints = None;
                self.note_other_machine(announced.other_machine);
                let third = Duration::from_secs(announced.ttl_s) / 3;
                self.announce_at = now + third.clamp(Duration::from_secs(1), MAX_ANNOUNCE_INTERVAL);
                for rejected in announced.rejected_endpoints {
                    tracing::warn!(endpoint = %rejected.endpoint, reason = rejected.reason, "the registry rejected an endpoint; it is not announced to other nodes");
                }
                let members = announced.nodes.map(|count| Members { count, at: now });
                self.members.set(members.or(self.members.get()));
                self.report_versions(announced.network_version, announced.revocations_version);
                if announced.renew {
                    offer(&self.renewal_reader, RenewalRequested);
                }
                // Peers are requested after each announcement. After the first one, a request is due anyway.
                if !is_first {
                    self.request_peers_at = now;
                }
                self.report_contact(None);
            }
            Err(error) => {
                self.failed_endpoints = Some(announcement.endpoints);
                self.announce_at = now + self.random.around(self.delays.after_failure());
                self.report_contact(Some(&error));
            }
        }
    }
}

impl Handler<EndpointsChecked> for RegistryClient {
    type Result = ();

    fn handle(&mut self, checked: EndpointsChecked, _: &mut Self::Context) {
        self.reachability = checked.endpoints;
    }
}
