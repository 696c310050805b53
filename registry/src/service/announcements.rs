//! Accepts the announcements of nodes, and answers which nodes can be dialled.

use super::*;

impl RegistryService {
    /// Stores where a member can be dialled, and which documents it has; `from` is the address of the caller. Endpoints that
    /// no node should dial are rejected one by one. Private ones are stored, and shown to few callers of
    /// [`Self::bootstrap`].
    ///
    /// # Errors
    /// The member announces too often, its software's name is malformed, or the database failed.
    pub fn announce(
        &mut self,
        member: &Member,
        from: IpAddr,
        announcement: &Announcement,
    ) -> Result<Announced, ServiceError> {
        let now = self.now();
        if !self.request_limits.allow_announcement(member.prefix, now) {
            return Err(ServiceError::TooOften {
                what: "announcements",
            });
        }
        let software = announcement.software.as_str();
        if software.len() > SOFTWARE_LIMIT
            || !software.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        {
            let right = format!("at most {SOFTWARE_LIMIT} printable characters of ASCII");
            return Err(ServiceError::Value {
                field: "software",
                value: "the name of the software".into(),
                right,
            });
        }
        let network = self.authorities.authority.network();
        let mut accepted: Vec<Endpoint> = Vec::new();
        let mut rejected_endpoints = Vec::new();
        for endpoint in &announcement.endpoints {
            match dialable(*endpoint, network, true) {
                Ok(()) if accepted.contains(endpoint) => {}
                Ok(()) => accepted.push(*endpoint),
                Err(error) => rejected_endpoints.push(RejectedEndpoint {
                    endpoint: *endpoint,
                    reason: error.to_string(),
                }),
            }
        }
        let ttl_s = self.settings.announcement_ttl_s;
        let stored = StoredAnnouncement {
            endpoints: accepted,
            software: announcement.software.clone(),
            network_version: announcement.network_version,
            network_applied: announcement.network_applied,
            revocations_version: announcement.revocations_version,
            source: Some(from.to_canonical()),
            // No other node is referred to a node whose certificate has expired.
            valid_until: now.saturating_add_s(ttl_s).min(member.not_after),
        };
        self.storage.store_announcement(member.prefix, &stored)?;
        tracing::debug!(prefix = %member.prefix, endpoints = stored.endpoints.len(), "announcement stored");
        self.directory.announce(member.prefix, stored);
        let other_machine = self.note_machine(member.prefix, from, announcement.instance, now);
        self.directory
            .report_unreachable(member.prefix, &announcement.unreachable, now);
        let (network_version, revocations_version) = (self.network.0.version, self.revocations.0);
        let (at, ttl_s) = (now.to_string(), u64::try_from(ttl_s).unwrap_or(0));
        Ok(Announced {
            version: VERSION,
            ttl_s,
            rejected_endpoints,
            at,
            network_version,
            revocations_version,
            renew: member.states_old_name(),
            other_machine,
            nodes: Some(self.directory.count()),
        })
    }

    /// Returns the address of another machine that announces itself with the same certificate.
    fn note_machine(
        &mut self,
        prefix: Prefix,
        from: IpAddr,
        instance: u64,
        now: UnixSeconds,
    ) -> Option<IpAddr> {
        let machine = (instance, from.to_canonical());
        let other = self.directory.note_machine(prefix, machine, now)?;
        tracing::warn!(%prefix, %from, %other, "two machines announce themselves with one certificate, probably a clone: give one of them an identity of its own by warren join --replace -");
        Some(other)
    }

    /// Returns random nodes that can be dialled, at most `count` and at most [`MAX_NODES`]; `from` is the address of the
    /// caller. A private endpoint is shown to callers of the same site only, unless the network allows all.
    ///
    /// # Errors
    /// The member asks too often.
    pub fn bootstrap(
        &mut self,
        member: &Member,
        from: IpAddr,
        count: usize,
    ) -> Result<Bootstrap, ServiceError> {
        let now = self.now();
        if !self.request_limits.allow_bootstrap(member.prefix, now) {
            return Err(ServiceError::TooOften {
                what: "bootstrap requests",
            });
        }
        let site = (!self.network.0.private_endpoints).then_some(from);
        let (nodes, hidden_nodes) =
            self.directory
                .select(member.prefix, site, count.min(MAX_NODES), now);
        let (network_version, revocations_version) = (self.network.0.version, self.revocations.0);
        Ok(Bootstrap {
            version: VERSION,
            nodes,
            hidden_nodes,
            network_version,
            revocations_version,
        })
    }
}
