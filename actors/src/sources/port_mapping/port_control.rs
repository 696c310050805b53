//! A client of PCP or NAT-PMP, which share the port 5351 of a gateway.
//!
//! Both have no request that lists or shows mappings; a renewal shows whether a mapping still exists, since the gateway creates
//! what is missing.

use super::{
    gateway::{DefaultRoute, Effort, ExternalAddress, Gateway, GatewayError, Grant, Lookup},
    ledger::Mapping,
    protocol::Protocol,
};
use crab_nat::{
    GatewayAddress, InternetProtocol, PortMapping, PortMappingOptions, PortMappingType,
    TimeoutConfig, natpmp, pcp,
};
use policies::names::Transport;
use std::{net::Ipv4Addr, num::NonZeroU16, time::Duration};

/// Timeouts of requests: the first as in RFC 6886, section 3.1, then doubled; together 1.75 s.
const TIMEOUTS: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: None,
};
/// The port of the service *discard*, which nobody maps: whether PCP answers is asked by a request to remove its mapping.
const DISCARD_PORT: NonZeroU16 = NonZeroU16::MIN.saturating_add(8);

/// The default gateway, by PCP or NAT-PMP.
#[derive(Clone, Copy, Debug)]
pub struct PortControl {
    route: DefaultRoute,
    protocol: Protocol,
}

fn failed_to(
    action: &'static str,
    protocol: Protocol,
    source: impl std::error::Error + 'static,
) -> GatewayError {
    GatewayError::Failed {
        protocol,
        action,
        source: source.into(),
    }
}

fn kind(transport: Transport) -> InternetProtocol {
    match transport {
        Transport::Udp => InternetProtocol::Udp,
        Transport::Tcp => InternetProtocol::Tcp,
    }
}

/// Returns a port that is not 0.
fn port(port: u16, protocol: Protocol) -> Result<NonZeroU16, GatewayError> {
    let port = NonZeroU16::try_from(port);
    port.map_err(|error| failed_to("map port 0", protocol, error))
}

/// Whether the gateway's answer shows that it speaks PCP; it may be an error.
fn is_pcp_answer(answer: &Result<(), pcp::Failure>) -> bool {
    !matches!(
        answer,
        Err(pcp::Failure::Socket(_)
            | pcp::Failure::Timeout
            | pcp::Failure::UnsupportedVersion(_)
            | pcp::Failure::InvalidResponse(_))
    )
}

/// Whether the gateway's answer shows that it speaks NAT-PMP; it may be an error.
fn is_nat_pmp_answer(answer: &Result<Ipv4Addr, natpmp::Failure>) -> bool {
    !matches!(
        answer,
        Err(natpmp::Failure::Socket(_)
            | natpmp::Failure::Timeout
            | natpmp::Failure::UnsupportedVersion(_)
            | natpmp::Failure::InvalidResponse(_))
    )
}

impl PortControl {
    /// Asks the default gateway by both protocols at once, and returns those that it answers; PCP first.
    ///
    /// # Errors
    /// The gateway answers neither.
    pub async fn find(route: DefaultRoute) -> Result<Vec<Self>, GatewayError> {
        let gateway = GatewayAddress::from(route.gateway);
        let range = pcp::DropMappingRange::Single {
            protocol: InternetProtocol::Udp,
            internal_port: DISCARD_PORT,
        };
        let nonce = [0; 3];
        let (by_pcp, by_nat_pmp) = tokio::join!(
            pcp::try_drop_mapping(gateway, route.local.into(), nonce, range, Some(TIMEOUTS)),
            natpmp::external_address(gateway, Some(TIMEOUTS))
        );
        let mut found = Vec::new();
        if is_pcp_answer(&by_pcp) {
            found.push(Protocol::Pcp);
        }
        if is_nat_pmp_answer(&by_nat_pmp) {
            found.push(Protocol::NatPmp);
        }
        if found.is_empty() {
            tracing::debug!(pcp = ?by_pcp, nat_pmp = ?by_nat_pmp, "no answer by PCP or NAT-PMP");
            return Err(GatewayError::NoAnswer {
                gateway: route.gateway,
                protocols: "PCP or NAT-PMP",
            });
        }
        let client = |protocol| Self { route, protocol };
        Ok(found.into_iter().map(client).collect())
    }

    /// Returns the route by which it was found.
    pub fn route(&self) -> DefaultRoute {
        self.route
    }

    /// Maps a port by PCP. The gateway grants another port if the requested one is taken.
    async fn add_by_pcp(
        &self,
        mapping: Mapping,
        options: PortMappingOptions,
    ) -> Result<PortMapping, GatewayError> {
        let request = pcp::BaseMapRequest::new(
            self.route.gateway.into(),
            self.route.local.into(),
            kind(mapping.transport),
            port(mapping.internal.port(), self.protocol)?,
        );
        let granted = pcp::port_mapping(request, mapping.nonce, None, options).await;
        granted.map_err(|failure| {
            if matches!(failure, pcp::Failure::CannotProvideExternal(_)) {
                GatewayError::PortInUse
            } else {
                failed_to("map a port", self.protocol, failure)
            }
        })
    }

    async fn add_by_nat_pmp(
        &self,
        mapping: Mapping,
        options: PortMappingOptions,
    ) -> Result<PortMapping, GatewayError> {
        let internal_port = port(mapping.internal.port(), self.protocol)?;
        let gateway = GatewayAddress::from(self.route.gateway);
        let granted =
            natpmp::port_mapping(gateway, kind(mapping.transport), internal_port, options).await;
        granted.map_err(|failure| failed_to("map a port", self.protocol, failure))
    }
}

impl Gateway for PortControl {
    fn protocol(&self) -> Protocol {
        self.protocol
    }

    fn local_address(&self) -> Ipv4Addr {
        self.route.local
    }

    async fn external_address(&self) -> Result<ExternalAddress, GatewayError> {
        if self.protocol == Protocol::Pcp {
            return Ok(ExternalAddress::WithMapping);
        }
        match natpmp::external_address(self.route.gateway.into(), Some(TIMEOUTS)).await {
            Ok(address) if address.is_unspecified() => Ok(ExternalAddress::Missing),
            Ok(address) => Ok(ExternalAddress::Known(address.into())),
            Err(natpmp::Failure::NetworkFailure) => Ok(ExternalAddress::Missing),
            Err(failure) => Err(failed_to(
                "report its external address",
                self.protocol,
                failure,
            )),
        }
    }

    async fn look_up(&self, ports: &[(Transport, u16)], _: Effort) -> Vec<Lookup> {
        vec![Lookup::Unknown; ports.len()]
    }

    async fn add(
        &self,
        mapping: Mapping,
        lease: Option<Duration>,
        _: &str,
    ) -> Result<Grant, GatewayError> {
        let lease_s = lease.map_or(u64::MAX, |lease| lease.as_secs());
        let options = PortMappingOptions {
            external_port: NonZeroU16::new(mapping.external_port),
            lifetime_seconds: Some(u32::try_from(lease_s).unwrap_or(u32::MAX)),
            timeout_config: Some(TIMEOUTS),
        };
        let granted = match self.protocol {
            Protocol::Pcp => self.add_by_pcp(mapping, options).await?,
            Protocol::NatPmp | Protocol::Upnp => self.add_by_nat_pmp(mapping, options).await?,
        };
        let address = match granted.mapping_type() {
            PortMappingType::Pcp { external_ip, .. } => Some(external_ip),
            PortMappingType::NatPmp => None,
        };
        Ok(Grant {
            external_port: granted.external_port().get(),
            lease: Some(Duration::from_secs(u64::from(granted.lifetime()))),
            address,
        })
    }

    async fn remove(&self, mapping: Mapping) -> Result<(), GatewayError> {
        const ACTION: &str = "remove a mapping";
        let internal_port = port(mapping.internal.port(), self.protocol)?;
        let gateway = GatewayAddress::from(self.route.gateway);
        let protocol = kind(mapping.transport);
        if self.protocol == Protocol::NatPmp {
            let removal =
                natpmp::try_drop_mapping(gateway, protocol, Some(internal_port), Some(TIMEOUTS));
            return removal
                .await
                .map_err(|failure| failed_to(ACTION, self.protocol, failure));
        }
        let range = pcp::DropMappingRange::Single {
            protocol,
            internal_port,
        };
        let nonce = mapping.nonce.unwrap_or_default();
        let client = self.route.local.into();
        match pcp::try_drop_mapping(gateway, client, nonce, range, Some(TIMEOUTS)).await {
            // miniupnpd reports a lack of resources if there is no such mapping.
            Ok(()) | Err(pcp::Failure::NoResources(_)) => Ok(()),
            Err(failure) => Err(failed_to(ACTION, self.protocol, failure)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_that_a_protocol_is_spoken_and_silence_or_another_version_does_not() {
        assert!(is_pcp_answer(&Ok(())));
        assert!(is_pcp_answer(&Err(pcp::Failure::NotAuthorized(30))));
        assert!(!is_pcp_answer(&Err(pcp::Failure::Timeout)));
        let version = crab_nat::VersionCode::NatPmp;
        assert!(!is_pcp_answer(&Err(pcp::Failure::UnsupportedVersion(
            version
        ))));
        assert!(is_nat_pmp_answer(&Err(natpmp::Failure::NetworkFailure)));
        assert!(!is_nat_pmp_answer(&Err(natpmp::Failure::Timeout)));
        let version = crab_nat::VersionCode::Pcp;
        assert!(!is_nat_pmp_answer(&Err(
            natpmp::Failure::UnsupportedVersion(version)
        )));
    }
}
