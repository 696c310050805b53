//! A client of one service of a UPnP gateway.
//!
//! igd-next writes the requests to map, to remove and to report the address. It cannot query a single mapping, and requires
//! that the gateway describes its actions; so the first is requested here, and the arguments of the actions are those of the
//! standard (WANIPConnection:2, section 2.4).

pub(in crate::sources) mod code;
pub(in crate::sources) mod http;
mod lookups;
pub(in crate::sources) mod search;

use super::{
    gateway::{DefaultRoute, Effort, ExternalAddress, Gateway, GatewayError, Grant, Lookup},
    ledger::Mapping,
    protocol::Protocol,
};
use http::CarefulProvider;
use igd_next::{
    AddPortError, GetExternalIpError, PortMappingProtocol, RemovePortError, RequestError,
    aio::Gateway as IgdGateway,
};
use policies::names::Transport;
use search::FoundService;
use std::{
    cell::Cell,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use wire::upnp::ActionResponse;

/// The description for gateways to which the usual one is too long.
const SHORT_DESCRIPTION: &str = "warren";
/// The arguments of AddPortMapping and AddAnyPortMapping, in the order of the standard.
const ADD_ARGUMENTS: [&str; 8] = [
    "NewRemoteHost",
    "NewExternalPort",
    "NewProtocol",
    "NewInternalPort",
    "NewInternalClient",
    "NewEnabled",
    "NewPortMappingDescription",
    "NewLeaseDuration",
];

/// One service of the default gateway that maps ports.
pub struct Service {
    route: DefaultRoute,
    found: FoundService,
    gateway: IgdGateway<CarefulProvider>,
    /// Whether the gateway shows single mappings; `None` until it was asked.
    shows_single_mappings: Cell<Option<bool>>,
}

fn protocol(transport: Transport) -> PortMappingProtocol {
    match transport {
        Transport::Udp => PortMappingProtocol::UDP,
        Transport::Tcp => PortMappingProtocol::TCP,
    }
}

fn failed_to(action: &'static str, source: impl Into<Box<dyn std::error::Error>>) -> GatewayError {
    GatewayError::Failed {
        protocol: Protocol::Upnp,
        action,
        source: source.into(),
    }
}

/// Judges the error code of a request to map a port; `None` if it does not depend on port and lease.
fn rejection(code: u16) -> Option<GatewayError> {
    match code {
        code::CONFLICT | code::CONFLICT_ELSEWHERE => Some(GatewayError::PortInUse),
        code::INVALID_ARGUMENTS | code::ACTION_FAILED | code::ONLY_PERMANENT => {
            Some(GatewayError::Ambiguous { code })
        }
        _ => None,
    }
}

fn add_error(error: AddPortError) -> GatewayError {
    let code = match &error {
        AddPortError::PortInUse => Some(code::CONFLICT),
        AddPortError::OnlyPermanentLeasesSupported => Some(code::ONLY_PERMANENT),
        AddPortError::SamePortValuesRequired => return GatewayError::SamePortOnly,
        AddPortError::RequestError(RequestError::ErrorCode(code, _)) => Some(*code),
        AddPortError::ActionNotAuthorized
        | AddPortError::InternalPortZeroInvalid
        | AddPortError::ExternalPortZeroInvalid
        | AddPortError::DescriptionTooLong
        | AddPortError::RequestError(_) => None,
    };
    code.and_then(rejection)
        .unwrap_or_else(|| failed_to("map a port", error))
}

/// Whether the gateway does not know the action AddPortMapping.
fn is_unknown_action(error: &AddPortError) -> bool {
    matches!(
        error,
        AddPortError::RequestError(RequestError::ErrorCode(
            code::INVALID_ACTION | code::NOT_IMPLEMENTED,
            _
        ))
    )
}

impl Service {
    /// Searches all services of the default gateway that map ports.
    ///
    /// # Errors
    /// The gateway does not answer, or describes no such service.
    pub async fn find(route: DefaultRoute) -> Result<Vec<Self>, GatewayError> {
        let found = search::search_gateway(route).await?;
        Ok(found
            .into_iter()
            .map(|found| Self::new(route, found))
            .collect())
    }

    fn new(route: DefaultRoute, found: FoundService) -> Self {
        let port = found.control_url.port_or_known_default().unwrap_or(80);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let control_schema = [
            ("AddPortMapping".to_owned(), names(&ADD_ARGUMENTS)),
            (
                "DeletePortMapping".to_owned(),
                names(&["NewRemoteHost", "NewExternalPort", "NewProtocol"]),
            ),
        ];
        let gateway = IgdGateway {
            addr: SocketAddr::from((route.gateway, port)),
            root_url: String::new(),
            control_url: found.control_url.to_string(),
            control_schema_url: String::new(),
            control_schema: control_schema.into_iter().collect(),
            service_type: found.service_type.clone(),
            provider: CarefulProvider,
        };
        Self {
            route,
            found,
            gateway,
            shows_single_mappings: Cell::new(None),
        }
    }

    /// Returns the route by which it was found.
    pub fn route(&self) -> DefaultRoute {
        self.route
    }

    async fn request(
        &self,
        action: &str,
        arguments: &[(&str, &str)],
    ) -> std::io::Result<ActionResponse> {
        let (url, service_type) = (&self.found.control_url, &self.found.service_type);
        http::request(url, None, service_type, action, arguments).await
    }

    /// Maps a port by the action of version 2, which chooses another port if the requested one is taken.
    async fn add_any(
        &self,
        mapping: Mapping,
        lease: Option<Duration>,
        description: &str,
    ) -> Result<u16, GatewayError> {
        const ACTION: &str = "map any port";
        let port = mapping.external_port.to_string();
        let values = [
            "",
            &port,
            &protocol(mapping.transport).to_string(),
            &mapping.internal.port().to_string(),
            &mapping.internal.ip().to_string(),
            "1",
            description,
            &lease_seconds(lease).to_string(),
        ];
        let arguments: Vec<_> = ADD_ARGUMENTS.into_iter().zip(values).collect();
        let answer = self.request("AddAnyPortMapping", &arguments).await;
        match answer.map_err(|error| failed_to(ACTION, error))? {
            ActionResponse::Fault(code) => Err(rejection(code)
                .unwrap_or_else(|| failed_to(ACTION, format!("it reported error {code}")))),
            response => response
                .field("NewReservedPort")
                .and_then(|port| port.parse().ok())
                .filter(|port| *port != 0)
                .ok_or_else(|| failed_to(ACTION, "its answer names no port")),
        }
    }
}

/// Returns the seconds of a lease; 0 means that it never expires.
fn lease_seconds(lease: Option<Duration>) -> u32 {
    lease.map_or(0, |lease| {
        u32::try_from(lease.as_secs()).unwrap_or(u32::MAX)
    })
}

impl Gateway for Service {
    fn protocol(&self) -> Protocol {
        Protocol::Upnp
    }

    fn local_address(&self) -> Ipv4Addr {
        self.route.local
    }

    async fn external_address(&self) -> Result<ExternalAddress, GatewayError> {
        match self.gateway.get_external_ip().await {
            Ok(IpAddr::V4(address)) if address.is_unspecified() => Ok(ExternalAddress::Missing),
            Ok(address) => Ok(ExternalAddress::Known(address)),
            // The gateway reports an empty address if it has none on the internet.
            Err(GetExternalIpError::RequestError(RequestError::InvalidResponse(_))) => {
                Ok(ExternalAddress::Missing)
            }
            Err(error) => Err(failed_to("report its external address", error)),
        }
    }

    async fn look_up(&self, ports: &[(Transport, u16)], effort: Effort) -> Vec<Lookup> {
        self.look_up_places(ports, effort).await
    }

    async fn add(
        &self,
        mapping: Mapping,
        lease: Option<Duration>,
        description: &str,
    ) -> Result<Grant, GatewayError> {
        let Mapping {
            external_port,
            internal,
            transport,
            ..
        } = mapping;
        let (kind, internal) = (protocol(transport), SocketAddr::V4(internal));
        let add = |description| {
            let seconds = lease_seconds(lease);
            self.gateway
                .add_port(kind, external_port, internal, seconds, description)
        };
        let mut outcome = add(description).await;
        if matches!(outcome, Err(AddPortError::DescriptionTooLong)) {
            outcome = add(SHORT_DESCRIPTION).await;
        }
        let external_port = match outcome {
            Ok(()) => external_port,
            Err(error) if is_unknown_action(&error) => {
                self.add_any(mapping, lease, description).await?
            }
            Err(error) => return Err(add_error(error)),
        };
        Ok(Grant {
            external_port,
            lease,
            address: None,
        })
    }

    async fn remove(&self, mapping: Mapping) -> Result<(), GatewayError> {
        let removal = self
            .gateway
            .remove_port(protocol(mapping.transport), mapping.external_port);
        match removal.await {
            Ok(()) | Err(RemovePortError::NoSuchPortMapping) => Ok(()),
            Err(error) => Err(failed_to("remove a mapping", error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_of_conflicts_and_of_leases_are_recognised() {
        let of_code = |code| {
            add_error(AddPortError::RequestError(RequestError::ErrorCode(
                code,
                String::new(),
            )))
        };
        assert!(matches!(of_code(729), GatewayError::PortInUse));
        assert!(matches!(
            add_error(AddPortError::PortInUse),
            GatewayError::PortInUse
        ));
        for code in [402, 501, 725] {
            assert!(matches!(of_code(code), GatewayError::Ambiguous { .. }));
        }
        assert!(matches!(of_code(606), GatewayError::Failed { .. }));
    }
}
