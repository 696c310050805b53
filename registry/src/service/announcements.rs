//! Takes the announcements of nodes, and answers which nodes can be dialled.

use super::*;

impl RegistryService {
    /// Remembers where a member can be dialled, and what it holds; endpoints that nobody should dial
    /// are left out.
    ///
    /// # Errors
    /// It could not be kept.
    pub fn announce(
        &mut self,
        member: &Member,
        said: &Announcement,
    ) -> Result<Announced, ServiceError> {
        let now = self.now();
        if !self.pace.announcement(member.prefix, now) {
            return Err(ServiceError::TooOften {
                what: "announcements",
            });
        }
        let software = said.software.as_str();
        if software.len() > SOFTWARE_LIMIT
            || !software.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        {
            let right = format!("at most {SOFTWARE_LIMIT} printable characters of ASCII");
            return Err(ServiceError::Value {
                field: "software",
                value: "it".into(),
                right,
            });
        }
        let (network, private) = (
            self.authorities.authority.network(),
            self.network.0.private_endpoints,
        );
        let mut kept: Vec<Endpoint> = Vec::new();
        let mut refused = Vec::new();
        for endpoint in &said.endpoints {
            match dialable(*endpoint, network, private) {
                Ok(()) if kept.contains(endpoint) => {}
                Ok(()) => kept.push(*endpoint),
                Err(why) => refused.push(Refused {
                    endpoint: *endpoint,
                    why: why.to_string(),
                }),
            }
        }
        let ttl_s = self.settings.announcement_ttl_s;
        let report = StoredAnnouncement {
            endpoints: kept,
            software: said.software.clone(),
            network_version: said.network_version,
            network_applied: said.network_applied,
            revocations_version: said.revocations_version,
            // A node whose certificate has expired is not handed to others.
            valid_until: now.saturating_add_s(ttl_s).min(member.not_after),
        };
        self.storage.store_announcement(member.prefix, &report)?;
        tracing::debug!(prefix = %member.prefix, endpoints = report.endpoints.len(), "announcement kept");
        self.directory.announce(member.prefix, report);
        self.directory
            .unreachable(member.prefix, &said.unreachable, now);
        let (network_version, revocations_version) = (self.network.0.version, self.revocations.0);
        let (at, ttl_s) = (now.to_string(), u64::try_from(ttl_s).unwrap_or(0));
        Ok(Announced {
            version: VERSION,
            ttl_s,
            refused,
            at,
            network_version,
            revocations_version,
        })
    }

    /// Random nodes that can be dialled, at most `count` and [`MAX_NODES`].
    ///
    /// # Errors
    /// Asked too often.
    pub fn bootstrap(&mut self, member: &Member, count: usize) -> Result<Bootstrap, ServiceError> {
        let now = self.now();
        if !self.pace.bootstrap(member.prefix, now) {
            return Err(ServiceError::TooOften {
                what: "questions for nodes",
            });
        }
        let nodes = self
            .directory
            .select(member.prefix, count.min(MAX_NODES), now);
        let (network_version, revocations_version) = (self.network.0.version, self.revocations.0);
        Ok(Bootstrap {
            version: VERSION,
            nodes,
            network_version,
            revocations_version,
        })
    }
}
