//! Searches services of the default gateway.
//!
//! igd-next searches version 1 only, believes the first device that answers, and requires a LOCATION with the gateway's address and a
//! readable service description. So the search is done here: only answers from the gateway's own address count, and whatever
//! they name is fetched from that address. A gateway answers by IPv6 from any of its addresses, of which the default route names
//! one: there, all answers count, and what they name is fetched from that one all the same.

use super::http::{Source, exchange};
use crate::sources::port_mapping::gateway::{DefaultRoute, GatewayError};
use reqwest::Url;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::BTreeSet,
    error::Error,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    time::Duration,
};
use tokio::{net::UdpSocket, time::timeout};
use wire::upnp::{Description, WanService, parse_description, search_location};

/// The port of SSDP (UPnP Device Architecture 1.1, section 1.3).
const SSDP_PORT: u16 = 1900;
/// The multicast address of SSDP.
const SSDP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
/// The same on a link with IPv6 (annex A, section A.3).
const SSDP_IPV6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xc);
/// What is searched where ports are mapped; some gateways answer one of these only.
const MAPPING_TARGETS: [&str; 6] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
    "upnp:rootdevice",
];
/// What is searched where the firewall for IPv6 is opened.
const FIREWALL_TARGETS: [&str; 4] = [
    "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "upnp:rootdevice",
];
/// Waits for an answer to each search, which is repeated since a datagram may be lost. The last wait is longer than the two
/// seconds that a device may take.
const SEARCH_WAITS: [Duration; 3] = [
    Duration::from_millis(700),
    Duration::from_millis(1_300),
    Duration::from_millis(2_500),
];
/// Maximum duration of a search with all descriptions that are fetched.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum number of descriptions that are fetched.
const MAX_DESCRIPTIONS: usize = 8;
/// Maximum number of datagrams that are read; all devices on the LAN may answer.
const MAX_DATAGRAMS: usize = 256;

/// A service, and where its actions are requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sources) struct FoundService {
    /// The type with its version.
    pub(in crate::sources) service_type: String,
    /// The address of the actions, always on the gateway itself.
    pub(in crate::sources) control_url: Url,
}

/// Why no service was found: what is wrong with the last description; `None` if there was no answer.
pub(in crate::sources) type SearchFault = Option<Box<dyn Error>>;

/// What is searched, and where.
struct Search {
    socket: UdpSocket,
    gateway: IpAddr,
    /// From where descriptions are fetched by IPv6.
    source: Option<Source>,
    /// To whom each search is sent.
    receivers: [Vec<SocketAddr>; 3],
    targets: &'static [&'static str],
    /// Chooses the services that are searched.
    services: fn(Description) -> Vec<WanService>,
}

/// Searches until a description names services that map ports.
///
/// # Errors
/// The gateway answers with no such description, or no search can be sent.
pub(super) async fn search_gateway(route: DefaultRoute) -> Result<Vec<FoundService>, GatewayError> {
    let to_gateway = SocketAddr::from((route.gateway, SSDP_PORT));
    let to_all = SocketAddr::from((SSDP, SSDP_PORT));
    let search = Search {
        socket: open_socket(route.local).map_err(GatewayError::Routes)?,
        gateway: route.gateway.into(),
        source: None,
        receivers: [vec![to_all, to_gateway], vec![to_all], vec![to_gateway]],
        targets: &MAPPING_TARGETS,
        services: |description| description.wan_services,
    };
    search.run().await.map_err(|fault| match fault {
        Some(source) => GatewayError::Failed {
            protocol: super::Protocol::Upnp,
            action: "describe a service that maps ports",
            source,
        },
        None => GatewayError::NoAnswer {
            gateway: route.gateway,
            protocols: "UPnP",
        },
    })
}

/// Searches until a description names services that open the firewall for IPv6. The gateway is asked by itself at first.
///
/// # Errors
/// The gateway answers with no such description, or no search can be sent.
pub(in crate::sources) async fn search_firewall(
    gateway: Ipv6Addr,
    source: Source,
) -> Result<Vec<FoundService>, SearchFault> {
    let at = |address| SocketAddr::V6(SocketAddrV6::new(address, SSDP_PORT, 0, source.link));
    let (to_gateway, to_all) = (at(gateway), at(SSDP_IPV6));
    let socket = open_ipv6_socket(source).map_err(|error| Some(error.into()))?;
    let search = Search {
        socket,
        gateway: gateway.into(),
        source: Some(source),
        receivers: [vec![to_gateway], vec![to_gateway, to_all], vec![to_all]],
        targets: &FIREWALL_TARGETS,
        services: |description| description.firewall_services,
    };
    search.run().await
}

fn open_socket(local: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    socket.bind(&SocketAddr::from((local, 0)).into())?;
    socket.set_multicast_if_v4(&local)?;
    UdpSocket::from_std(socket.into())
}

fn open_ipv6_socket(source: Source) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    socket.bind(&SocketAddr::from((source.address, 0)).into())?;
    socket.set_multicast_if_v6(source.link)?;
    UdpSocket::from_std(socket.into())
}

impl Search {
    async fn run(&self) -> Result<Vec<FoundService>, SearchFault> {
        let mut fault = None;
        let found = timeout(SEARCH_TIMEOUT, self.search_repeatedly(&mut fault)).await;
        found.ok().flatten().ok_or(fault)
    }

    /// Returns the services of the first description that has some, or else what is wrong with the last description.
    async fn search_repeatedly(&self, fault: &mut SearchFault) -> Option<Vec<FoundService>> {
        let mut known = BTreeSet::new();
        for (to, wait) in self.receivers.iter().zip(SEARCH_WAITS) {
            self.send(to).await;
            while let Ok(Some(location)) = timeout(wait, self.next_location(&mut known)).await {
                match self.fetch_services(&location).await {
                    Ok(services) if services.is_empty() => {
                        *fault = Some(format!("{location} describes none").into());
                    }
                    Ok(services) => return Some(services),
                    Err(error) => *fault = Some(error.into()),
                }
            }
        }
        None
    }

    /// Sends a search for each target to these addresses. What cannot be sent is lost like any datagram.
    async fn send(&self, receivers: &[SocketAddr]) {
        for target in self.targets {
            for to in receivers {
                let host = SocketAddr::new(to.ip(), to.port());
                let search = format!(
                    "M-SEARCH * HTTP/1.1\r\nHOST: {host}\r\nMAN: \"ssdp:discover\"\r\nMX: 2\r\nST: {target}\r\n\r\n"
                );
                let _ = self.socket.send_to(search.as_bytes(), to).await;
            }
        }
    }

    /// Waits for a description that is not known yet; returns `None` when enough are known.
    async fn next_location(&self, known: &mut BTreeSet<Url>) -> Option<Url> {
        for _ in 0..MAX_DATAGRAMS {
            if known.len() >= MAX_DESCRIPTIONS {
                break;
            }
            if let Some(location) = self.receive_location().await
                && known.insert(location.clone())
            {
                return Some(location);
            }
        }
        None
    }

    /// Receives a datagram; returns where the gateway's description is, if it is such an answer.
    async fn receive_location(&self) -> Option<Url> {
        let mut buffer = [0; 2048];
        let (length, from) = self.socket.recv_from(&mut buffer).await.ok()?;
        if from.is_ipv4() && from.ip() != self.gateway {
            return None;
        }
        let location = search_location(buffer.get(..length)?)?;
        on_gateway(Url::parse(&location).ok()?, self.gateway)
    }

    /// Fetches a description, and returns its services.
    async fn fetch_services(&self, location: &Url) -> io::Result<Vec<FoundService>> {
        let description = parse_description(&exchange(location, self.source, None).await?);
        let base = description.url_base.as_deref();
        let base = base
            .and_then(|base| on_gateway(location.join(base).ok()?, self.gateway))
            .unwrap_or_else(|| location.clone());
        let service = |found: WanService| {
            Some(FoundService {
                control_url: on_gateway(base.join(&found.control_url).ok()?, self.gateway)?,
                service_type: found.service_type,
            })
        };
        let services = (self.services)(description).into_iter();
        Ok(services.filter_map(service).collect())
    }
}

/// Returns the address with the gateway as its host, which a gateway may name by another address or by a name of its own.
fn on_gateway(mut url: Url, gateway: IpAddr) -> Option<Url> {
    if url.scheme() != "http" || url.port_or_known_default() == Some(0) {
        return None;
    }
    url.set_ip_host(gateway).ok()?;
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    url.set_fragment(None);
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: Option<&str>) {
        check_at("192.168.1.1", url, expected);
    }

    #[track_caller]
    fn check_at(gateway: &str, url: &str, expected: Option<&str>) {
        let url = Url::parse(url).unwrap();
        let on_gateway = on_gateway(url, gateway.parse().unwrap()).map(String::from);
        assert_eq!(on_gateway.as_deref(), expected);
    }

    #[test]
    fn whatever_host_is_named_the_gateway_is_asked() {
        check(
            "http://192.168.1.1:5000/d.xml",
            Some("http://192.168.1.1:5000/d.xml"),
        );
        check(
            "http://[::1]:5000/d.xml?a=b",
            Some("http://192.168.1.1:5000/d.xml?a=b"),
        );
        check(
            "http://user:word@router.lan:5000/d.xml#x",
            Some("http://192.168.1.1:5000/d.xml"),
        );
        check_at(
            "fe80::1",
            "http://[2001:db8::1]:5000/d.xml",
            Some("http://[fe80::1]:5000/d.xml"),
        );
        check("https://192.168.1.1/d.xml", None);
        check("http://192.168.1.1:0/d.xml", None);
        check("file:///etc/passwd", None);
    }
}
