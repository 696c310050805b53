//! Announces at the registry where this node can be dialled.

use super::*;

impl RegistryClient {
    /// Returns the endpoints of this node, best first: configured ones, leases, uplinks; UDP
    /// before TCP.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        let RegistrySettings {
            endpoints,
            network,
            private,
            ..
        } = &self.settings;
        let private = private.allowed();
        let mut seen = BTreeSet::new();
        let mut found = self.leases.clone();
        found.extend(&self.uplinks);
        found.retain(|endpoint| dialable(*endpoint, *network, private).is_ok());
        found.sort_by_key(|endpoint| endpoint.transport);
        let all = endpoints.iter().chain(&found).copied();
        all.filter(|endpoint| seen.insert(*endpoint))
            .take(crate::sources::peer_cache::directory::MAX_ENDPOINTS)
            .collect()
    }

    pub(super) fn announcement(&self) -> Announcement {
        let node = self.node.load();
        Announcement {
            version: VERSION,
            endpoints: self.endpoints(),
            software: node.software.clone(),
            network_version: node.network_version,
            network_applied: self.applied.by_all(),
            revocations_version: node.revocations_version,
            ..Announcement::default()
        }
    }

    pub(super) fn announce(&mut self, announcement: Announcement, ctx: &mut Context<Self>) {
        (self.busy, self.hurries) = (true, false);
        let endpoints = announcement.endpoints.clone();
        self.node.rcu(|node| NodeDocument {
            endpoints: endpoints.clone(),
            ..(**node).clone()
        });
        // What we could not dial rides along; it is no reason to announce.
        let unreachable = undialled(&self.peers.load(), self.clock.now());
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
        ctx.spawn(
            call.into_actor(self)
                .map(|answer, client, _| client.was_announced(answer, announcement)),
        );
    }

    pub(super) fn was_announced(
        &mut self,
        answer: Result<Announced, RegistryApiError>,
        announcement: Announcement,
    ) {
        self.busy = false;
        let now = self.clock.now();
        match answer {
            Ok(announced) => {
                let first = self.announced.is_none();
                self.announced = Some(announcement);
                let third = Duration::from_secs(announced.ttl_s) / 3;
                self.announce_at = now + third.clamp(Duration::from_secs(1), ANNOUNCE);
                for refused in announced.refused {
                    tracing::warn!(endpoint = %refused.endpoint, why = refused.why, "registry refuses an endpoint");
                }
                self.versions(announced.network_version, announced.revocations_version);
                // The registry is asked with each announcement.
                if !first {
                    self.ask_at = now;
                }
                self.report_contact(None);
            }
            Err(error) => {
                self.announce_at = now + self.next_wait();
                self.report_contact(Some(Chain(&error).to_string()));
            }
        }
    }
}
