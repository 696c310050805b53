//! Reports how calls to the registry ended, and which endpoints this node announces.

use super::*;
use os::clock::wall;
use std::time::SystemTime;

impl RegistryClient {
    /// Logs a change of the number of nodes whose endpoints the registry does not show to this node.
    pub(super) fn log_hidden_nodes(&mut self, hidden: u32) {
        if self.hidden_nodes.replace(hidden).unwrap_or(0) != hidden {
            tracing::info!(
                nodes = hidden,
                "number of nodes that cannot be dialled from here: they have private endpoints only, in other networks than this node"
            );
        }
    }

    /// Reports the document versions of an answer.
    pub(super) fn report_versions(&self, network: u64, revocations: u64) {
        offer(
            &self.version_reader,
            VersionsReported {
                network,
                revocations,
            },
        );
    }

    /// Logs and reports whether the registry answered a call.
    pub(super) fn report_contact(&mut self, error: Option<&RegistryApiError>) {
        let failure = error.map(|error| Chain(error).to_string());
        let at = self.clock.now();
        if let Some(address) = self.registry.address() {
            self.settings.private.set_registry_address(address);
        }
        match &failure {
            Some(failure)
                if self
                    .warned_at
                    .is_none_or(|last| at.since(last) >= WARNING_INTERVAL) =>
            {
                self.warned_at = Some(at);
                tracing::warn!(
                    failure,
                    "the registry does not answer; the node continues without it"
                );
            }
            Some(failure) => tracing::debug!(failure, "the registry still does not answer"),
            None if self.warned_at.take().is_some() => {
                tracing::info!("the registry answers again")
            }
            None => tracing::debug!("the registry answered"),
        }
        let date = self.registry.date().filter(|_| failure.is_none());
        let contact = RegistryContacted {
            at,
            failure,
            is_certificate_rejected: error.is_some_and(RegistryApiError::is_certificate_rejected),
            hidden_nodes: self.hidden_nodes,
            listed_peers: self.listed_peers,
            other_machine: self.other_machine,
            clock_offset_s: date.map(|date| seconds_ahead(date, wall())),
        };
        self.contact_readers
            .iter()
            .for_each(|reader| offer(reader, contact.clone()));
    }

    /// Records whether another machine announces itself with this node's certificate.
    pub(super) fn note_other_machine(&mut self, other: Option<IpAddr>) {
        if let Some(other) = other.filter(|_| self.other_machine.is_none()) {
            tracing::error!(%other, "another machine uses the key of this node, probably a clone of its disk: packets to this node go to either; give one of the two an identity of its own by warren join --replace -");
        }
        self.other_machine = other;
    }

    /// Reports the endpoints that this node announces, each with its source.
    pub(super) fn report_endpoints(&self, announced: &[Endpoint]) {
        let configured = &self.live_settings.load().endpoints;
        let source = |endpoint: &Endpoint| {
            if configured.contains(endpoint) {
                EndpointSource::Configured
            } else if self.leases.contains(endpoint) {
                EndpointSource::PortMapping
            } else if self.uplinks.get(endpoint) == Some(&false) {
                EndpointSource::OtherLink
            } else {
                EndpointSource::HostAddress
            }
        };
        let endpoints = announced
            .iter()
            .map(|endpoint| (*endpoint, source(endpoint)));
        offer(
            &self.endpoints_to,
            OwnEndpointsRead {
                endpoints: endpoints.collect(),
            },
        );
    }
}

/// Returns by how many seconds the registry's clock is ahead of ours, which shows the time `wall` since 1970.
fn seconds_ahead(registry: SystemTime, wall: Duration) -> i64 {
    let since_1970 = registry.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    seconds(since_1970.unwrap_or_default()).saturating_sub(seconds(wall))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_behind_the_registry_has_a_positive_offset() {
        let registry = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(seconds_ahead(registry, Duration::from_secs(940)), 60);
        assert_eq!(
            seconds_ahead(registry, Duration::from_millis(1_001_900)),
            -1
        );
    }
}
