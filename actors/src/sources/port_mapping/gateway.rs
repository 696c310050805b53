//! Speaks UPnP IGD with the host's default gateway; decides nothing about mappings.
//!
//! Only the default gateway is believed, whoever else answers the search. Sizes (1 MiB, 64 levels
//! of XML) and times (10 s a request) are bounded by `igd-next`, the number of entries by
//! `MAX_ENTRIES`.

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

/// Most entries of a gateway's table that are read.
const MAX_ENTRIES: u32 = 128;
/// How long a search waits for the gateway's answer.
const SEARCH: Duration = Duration::from_secs(3);
/// UDP port of SSDP (UPnP Device Architecture 1.1, section 1.3).
const SSDP_PORT: u16 = 1900;

/// The reason why the gateway could not be asked, or rejected a request.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The host has no IPv4 default route.
    #[error("there is no default gateway")]
    NoDefault,
    /// Reading the routes or asking for our address failed.
    #[error("cannot read the default route")]
    Unknown(#[source] io::Error),
    /// It does not speak UPnP, or something else answered.
    #[error("gateway {gateway} does not answer as a UPnP gateway")]
    Search {
        /// The default gateway.
        gateway: Ipv4Addr,
        /// The error of the search.
        #[source]
        source: igd_next::SearchError,
    },
    /// A device that is not the default gateway wants to be it.
    #[error("{answered} answered in place of gateway {gateway} and is not believed")]
    Foreign {
        /// The default gateway.
        gateway: Ipv4Addr,
        /// The address that answered.
        answered: IpAddr,
    },
    /// Another client of the gateway has the port (718).
    #[error("port is taken by another client")]
    PortInUse,
    /// The gateway only knows leases without an end (error 725).
    #[error("gateway knows only leases without an end")]
    OnlyPermanent,
    /// External and internal port must be the same (724).
    #[error("gateway maps a port only to the same port")]
    SamePortOnly,
    /// Any other error of the gateway, or no answer.
    #[error("gateway refused to {verb}")]
    Refused {
        /// The request that was made.
        verb: &'static str,
        /// The error of the request.
        #[source]
        source: Box<dyn Error>,
    },
}

impl GatewayError {
    fn refused(verb: &'static str) -> impl FnOnce(Box<dyn Error>) -> Self {
        move |source| Self::Refused { verb, source }
    }
}

/// An entry of the gateway's table of mappings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// UDP or TCP.
    pub transport: Transport,
    /// The gateway's port.
    pub external_port: u16,
    /// The target of the mapping, as the gateway wrote it.
    pub client: String,
    /// The port there.
    pub internal_port: u16,
    /// The description that the requester gave.
    pub description: String,
    /// Time left; `None` for a lease without an end.
    pub left: Option<Duration>,
}

/// Finds the host's gateway: the real one, or a test's own.
pub trait Finder: 'static {
    /// The type of the gateway that is found.
    type Gateway: Gateway;

    /// Searches again, since hosts move.
    fn find(&self) -> impl Future<Output = Result<Self::Gateway, GatewayError>>;
}

/// A gateway that maps ports.
pub trait Gateway {
    /// Returns our address on the path to the gateway.
    fn local(&self) -> Ipv4Addr;

    /// Returns the gateway's internet address, as it reports it; `None` if it has none.
    fn external(&self) -> impl Future<Output = Result<Option<IpAddr>, GatewayError>>;

    /// All mappings that it shows us.
    fn entries(&self) -> impl Future<Output = Result<Vec<Entry>, GatewayError>>;

    /// Asks for a mapping to `internal`; `lease` zero: without an end.
    fn add(
        &self,
        transport: Transport,
        external_port: u16,
        internal: SocketAddrV4,
        lease: Duration,
        description: &str,
    ) -> impl Future<Output = Result<(), GatewayError>>;

    /// Removes a mapping; one that is gone already is fine.
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
        let gateway = default_gateway(&routes.map_err(GatewayError::Unknown)?);
        let gateway = gateway.ok_or(GatewayError::NoDefault)?;
        let local = local_towards(gateway).map_err(GatewayError::Unknown)?;
        // The multicast reaches every device; the gateway alone is asked if another one was
        // quicker.
        let everybody = SearchOptions::default().broadcast_address;
        let mut found = search(local, everybody, gateway).await;
        if !matches!(&found, Ok(found) if found.addr.ip() == gateway) {
            found = search(local, SocketAddr::from((gateway, SSDP_PORT)), gateway).await;
        }
        let found = found?;
        if found.addr.ip() != gateway {
            return Err(GatewayError::Foreign {
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
    fn local(&self) -> Ipv4Addr {
        self.local
    }

    async fn external(&self) -> Result<Option<IpAddr>, GatewayError> {
        match self.gateway.get_external_ip().await {
            Ok(address) => Ok(Some(address)),
            // An empty address: the gateway has none that the internet could reach.
            Err(igd_next::GetExternalIpError::RequestError(
                igd_next::RequestError::InvalidResponse(_),
            )) => Ok(None),
            Err(error) => Err(GatewayError::refused("report its address")(error.into())),
        }
    }

    async fn entries(&self) -> Result<Vec<Entry>, GatewayError> {
        let mut entries = Vec::new();
        for index in 0..MAX_ENTRIES {
            let entry = match self.gateway.get_generic_port_mapping_entry(index).await {
                Ok(entry) => entry,
                Err(GetGenericPortMappingEntryError::SpecifiedArrayIndexInvalid) => break,
                Err(error) => return Err(GatewayError::refused("list its mappings")(error.into())),
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
                left: (!lease.is_zero()).then_some(lease),
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
        let asked = self.gateway.add_port(
            protocol(transport),
            external_port,
            internal,
            lease,
            description,
        );
        asked.await.map_err(|error| match error {
            AddPortError::PortInUse => GatewayError::PortInUse,
            AddPortError::OnlyPermanentLeasesSupported => GatewayError::OnlyPermanent,
            AddPortError::SamePortValuesRequired => GatewayError::SamePortOnly,
            AddPortError::ActionNotAuthorized
            | AddPortError::InternalPortZeroInvalid
            | AddPortError::ExternalPortZeroInvalid
            | AddPortError::DescriptionTooLong
            | AddPortError::RequestError(_) => GatewayError::refused("map a port")(error.into()),
        })
    }

    async fn remove(&self, transport: Transport, external_port: u16) -> Result<(), GatewayError> {
        match self
            .gateway
            .remove_port(protocol(transport), external_port)
            .await
        {
            Ok(()) | Err(RemovePortError::NoSuchPortMapping) => Ok(()),
            Err(error) => Err(GatewayError::refused("remove a mapping")(error.into())),
        }
    }
}

async fn search(
    local: Ipv4Addr,
    asked: SocketAddr,
    gateway: Ipv4Addr,
) -> Result<IgdGateway<Tokio>, GatewayError> {
    let mut options = SearchOptions::default();
    options.bind_addr = SocketAddr::from((local, 0));
    options.broadcast_address = asked;
    options.timeout = Some(SEARCH);
    options.single_search_timeout = Some(SEARCH);
    search_gateway(options)
        .await
        .map_err(|source| GatewayError::Search { gateway, source })
}

/// Returns our own address on the path to the gateway, without sending anything.
fn local_towards(gateway: Ipv4Addr) -> io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((gateway, SSDP_PORT))?;
    match socket.local_addr()? {
        SocketAddr::V4(local) => Ok(*local.ip()),
        SocketAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

/// The gateway of the default route with the lowest metric, in the text of `/proc/net/route`.
fn default_gateway(routes: &str) -> Option<Ipv4Addr> {
    const VIA_GATEWAY: u32 = 0x2; // RTF_GATEWAY
    let route = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let mut hex = || u32::from_str_radix(fields.next()?, 16).ok();
        let (destination, gateway, flags) = (hex()?, hex()?, hex()?);
        let metric: u32 = fields.nth(2)?.parse().ok()?;
        let mask = u32::from_str_radix(fields.next()?, 16).ok()?;
        let default = destination == 0 && mask == 0 && flags & VIA_GATEWAY != 0;
        // The kernel prints the address's bytes as a number in the host's own order.
        default.then(|| (metric, Ipv4Addr::from(gateway.to_ne_bytes())))
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
    fn the_default_route_with_the_lowest_metric_names_the_gateway() {
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
