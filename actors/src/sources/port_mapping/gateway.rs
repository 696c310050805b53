//! A client of UPnP IGD for the host's default gateway.
//!
//! Only the default gateway is accepted, even if other devices answer the search. `igd-next` limits the size of an answer (1 MiB,
//! 64 levels of XML) and the duration of a request (10 s); `MAX_ENTRIES` limits the number of entries.

use igd_next::{
    AddPortError, GetGenericPortMappingEntryError, PortMappingProtocol, RemovePortError,
    SearchOptions,
    aio::{
        Gateway as IgdGateway,
        tokio::{Tokio, search_gateway},
    },
};
use policies::names::Transport;
use std::{
    error::Error,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::Duration,
};

/// Maximum number of entries that are read from a gateway's table.
const MAX_ENTRIES: u32 = 128;
/// Maximum duration of a search for the gateway.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(3);
/// The UDP port of SSDP (UPnP Device Architecture 1.1, section 1.3).
const SSDP_PORT: u16 = 1900;

/// The reason why the gateway could not be found, or a request failed.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The host has no IPv4 default route.
    #[error("there is no default gateway")]
    NoDefaultRoute,
    /// The default route, or our address on it, cannot be read from the kernel.
    #[error("cannot read the default route")]
    Routes(#[source] io::Error),
    /// The gateway does not answer a UPnP search, or its description cannot be read.
    #[error("gateway {gateway} does not answer as a UPnP gateway")]
    Search {
        /// The default gateway.
        gateway: Ipv4Addr,
        /// The error of the search.
        #[source]
        source: igd_next::SearchError,
    },
    /// Another device than the default gateway answered the search.
    #[error("{answered} answered in place of gateway {gateway} and is ignored")]
    OtherDevice {
        /// The default gateway.
        gateway: Ipv4Addr,
        /// The address that answered.
        answered: IpAddr,
    },
    /// Another client of the gateway uses the port (UPnP error 718).
    #[error("the port is taken by another client")]
    PortInUse,
    /// The gateway grants only leases that never expire (UPnP error 725).
    #[error("the gateway grants only leases that never expire")]
    OnlyPermanent,
    /// The external and the internal port must be the same (UPnP error 724).
    #[error("the gateway maps a port only to the same port")]
    SamePortOnly,
    /// The gateway reported another error, or did not answer.
    #[error("the gateway did not {action}")]
    Failed {
        /// The requested action.
        action: &'static str,
        /// The error of the request.
        #[source]
        source: Box<dyn Error>,
    },
}

impl GatewayError {
    fn failed_to(action: &'static str) -> impl FnOnce(Box<dyn Error>) -> Self {
        move |source| Self::Failed { action, source }
    }
}

/// A port mapping in the gateway's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// UDP or TCP.
    pub transport: Transport,
    /// The port on the gateway.
    pub external_port: u16,
    /// The address that the mapping leads to, as the gateway spells it.
    pub client: String,
    /// The port at that address.
    pub internal_port: u16,
    /// The description that the client gave in its request.
    pub description: String,
    /// The remaining time of the lease; `None` if it never expires.
    pub remaining: Option<Duration>,
}

/// Finds the host's gateway: the real one, or a test's fake.
pub trait Finder: 'static {
    /// The type of the gateway that is found.
    type Gateway: Gateway;

    /// Searches the gateway. Each round searches again, since the host may have moved to another network.
    fn find(&self) -> impl Future<Output = Result<Self::Gateway, GatewayError>>;
}

/// A gateway that maps ports.
pub trait Gateway {
    /// Returns the host's address towards the gateway.
    fn local_address(&self) -> Ipv4Addr;

    /// Fetches the gateway's address on the internet, as it reports it; `None` if it has none.
    fn external_address(&self) -> impl Future<Output = Result<Option<IpAddr>, GatewayError>>;

    /// Fetches all mappings that the gateway shows to this host.
    fn entries(&self) -> impl Future<Output = Result<Vec<Entry>, GatewayError>>;

    /// Requests a mapping to `internal`. A `lease` of zero never expires.
    fn add(
        &self,
        transport: Transport,
        external_port: u16,
        internal: SocketAddrV4,
        lease: Duration,
        description: &str,
    ) -> impl Future<Output = Result<(), GatewayError>>;

    /// Removes a mapping. It is no error if there is none.
    fn remove(
        &self,
        transport: Transport,
        external_port: u16,
    ) -> impl Future<Output = Result<(), GatewayError>>;
}

/// Finds the gateway of the IPv4 default route.
#[derive(Clone, Copy, Debug)]
pub struct DefaultGateway;

/// A UPnP gateway.
pub struct Igd {
    gateway: IgdGateway<Tokio>,
    local: Ipv4Addr,
}

fn protocol(transport: Transport) -> PortMappingProtocol {
    match transport {
        Transport::Udp => PortMappingProtocol::UDP,
        Transport::Tcp => PortMappingProtocol::TCP,
    }
}

impl Finder for DefaultGateway {
    type Gateway = Igd;

    async fn find(&self) -> Result<Igd, GatewayError> {
        let routes = std::fs::read_to_string("/proc/thread-self/net/route");
        let gateway = default_gateway(&routes.map_err(GatewayError::Routes)?);
        let gateway = gateway.ok_or(GatewayError::NoDefaultRoute)?;
        let local = local_towards(gateway).map_err(GatewayError::Routes)?;
        // Every device gets the multicast. If another device answers first, the search is repeated with the gateway alone.
        let multicast = SearchOptions::default().broadcast_address;
        let mut found = search(local, multicast, gateway).await;
        if !matches!(&found, Ok(found) if found.addr.ip() == gateway) {
            found = search(local, SocketAddr::from((gateway, SSDP_PORT)), gateway).await;
        }
        let found = found?;
        if found.addr.ip() != gateway {
            return Err(GatewayError::OtherDevice {
                gateway,
                answered: found.addr.ip(),
            });
        }
        Ok(Igd {
            gateway: found,
            local,
        })
    }
}

impl Gateway for Igd {
    fn local_address(&self) -> Ipv4Addr {
        self.local
    }

    async fn external_address(&self) -> Result<Option<IpAddr>, GatewayError> {
        match self.gateway.get_external_ip().await {
            Ok(address) => Ok(Some(address)),
            // The gateway reports an empty address if it has none on the internet.
            Err(igd_next::GetExternalIpError::RequestError(
                igd_next::RequestError::InvalidResponse(_),
            )) => Ok(None),
            Err(error) => Err(GatewayError::failed_to("report its external address")(
                error.into(),
            )),
        }
    }

    async fn entries(&self) -> Result<Vec<Entry>, GatewayError> {
        let mut entries = Vec::new();
        for index in 0..MAX_ENTRIES {
            let entry = match self.gateway.get_generic_port_mapping_entry(index).await {
                Ok(entry) => entry,
                Err(GetGenericPortMappingEntryError::SpecifiedArrayIndexInvalid) => break,
                Err(error) => {
                    return Err(GatewayError::failed_to("list its mappings")(error.into()));
                }
            };
            let lease = Duration::from_secs(u64::from(entry.lease_duration));
            entries.push(Entry {
                transport: match entry.protocol {
                    PortMappingProtocol::UDP => Transport::Udp,
                    PortMappingProtocol::TCP => Transport::Tcp,
                },
                external_port: entry.external_port,
                client: entry.internal_client,
                internal_port: entry.internal_port,
                description: entry.port_mapping_description,
                remaining: (!lease.is_zero()).then_some(lease),
            });
        }
        Ok(entries)
    }

    async fn add(
        &self,
        transport: Transport,
        external_port: u16,
        internal: SocketAddrV4,
        lease: Duration,
        description: &str,
    ) -> Result<(), GatewayError> {
        let lease = u32::try_from(lease.as_secs()).unwrap_or(u32::MAX);
        let internal = SocketAddr::V4(internal);
        let request = self.gateway.add_port(
            protocol(transport),
            external_port,
            internal,
            lease,
            description,
        );
        request.await.map_err(|error| match error {
            AddPortError::PortInUse => GatewayError::PortInUse,
            AddPortError::OnlyPermanentLeasesSupported => GatewayError::OnlyPermanent,
            AddPortError::SamePortValuesRequired => GatewayError::SamePortOnly,
            AddPortError::ActionNotAuthorized
            | AddPortError::InternalPortZeroInvalid
            | AddPortError::ExternalPortZeroInvalid
            | AddPortError::DescriptionTooLong
            | AddPortError::RequestError(_) => GatewayError::failed_to("map a port")(error.into()),
        })
    }

    async fn remove(&self, transport: Transport, external_port: u16) -> Result<(), GatewayError> {
        match self
            .gateway
            .remove_port(protocol(transport), external_port)
            .await
        {
            Ok(()) | Err(RemovePortError::NoSuchPortMapping) => Ok(()),
            Err(error) => Err(GatewayError::failed_to("remove a mapping")(error.into())),
        }
    }
}

/// Sends a UPnP search to `target`, and reads the description of the device that answers first.
async fn search(
    local: Ipv4Addr,
    target: SocketAddr,
    gateway: Ipv4Addr,
) -> Result<IgdGateway<Tokio>, GatewayError> {
    let mut options = SearchOptions::default();
    options.bind_addr = SocketAddr::from((local, 0));
    options.broadcast_address = target;
    options.timeout = Some(SEARCH_TIMEOUT);
    options.single_search_timeout = Some(SEARCH_TIMEOUT);
    search_gateway(options)
        .await
        .map_err(|source| GatewayError::Search { gateway, source })
}

/// Returns the host's address towards the gateway. Nothing is sent.
fn local_towards(gateway: Ipv4Addr) -> io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((gateway, SSDP_PORT))?;
    match socket.local_addr()? {
        SocketAddr::V4(local) => Ok(*local.ip()),
        SocketAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// Finds the gateway of the default route with the lowest metric, in the text of `/proc/net/route`.
fn default_gateway(routes: &str) -> Option<Ipv4Addr> {
    /// The flag of a route through a gateway, from linux/route.h.
    const RTF_GATEWAY: u32 = 0x2;
    let route = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let mut hex = || u32::from_str_radix(fields.next()?, 16).ok();
        let (destination, gateway, flags) = (hex()?, hex()?, hex()?);
        let metric: u32 = fields.nth(2)?.parse().ok()?;
        let mask = u32::from_str_radix(fields.next()?, 16).ok()?;
        let is_default = destination == 0 && mask == 0 && flags & RTF_GATEWAY != 0;
        // The kernel prints the address's bytes as a number in the host's own order.
        is_default.then(|| (metric, Ipv4Addr::from(gateway.to_ne_bytes())))
    };
    routes
        .lines()
        .filter_map(route)
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, gateway)| gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(routes: &str, expected: Option<&str>) {
        let table =
            format!("Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n{routes}");
        assert_eq!(
            default_gateway(&table),
            expected.map(|address| address.parse().unwrap())
        );
    }

    #[test]
    fn the_gateway_is_that_of_the_default_route_with_the_lowest_metric() {
        check("", None);
        check(
            "eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n",
            None,
        );
        check(
            "ppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\n",
            None,
        );
        let wifi = "wlan0\t00000000\tFE01A8C0\t0003\t0\t0\t600\t00000000\t0\n";
        let wired = "eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\n";
        check(wifi, Some("192.168.1.254"));
        check(&format!("{wifi}{wired}"), Some("192.168.0.1"));
        check("eth0\t00000000\tzz\t0003\t0\t0\t100\t00000000\t0\n", None);
    }
}
