//! Searches the services of the default gateway that map ports.
//!
//! igd-next searches version 1 only, believes the first device that answers, and requires a LOCATION with the gateway's address and a
//! readable service description. So the search is done here: only answers from the gateway's own address count, and whatever
//! they name is fetched from that address.

use super::http::exchange;
use crate::sources::port_mapping::gateway::{DefaultRoute, GatewayError};
use reqwest::Url;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::BTreeSet,
    error::Error,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};
use tokio::{net::UdpSocket, time::timeout};
use wire::upnp::{parse_description, search_location};

/// The multicast address and port of SSDP (UPnP Device Architecture 1.1, section 1.3).
const SSDP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 1900);
/// What is searched; some gateways answer one of these only.
const TARGETS: [&str; 6] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
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
pub(super) struct FoundService {
    /// The type with its version.
    pub(super) service_type: String,
    /// The address of the actions, always on the gateway itself.
    pub(super) control_url: Url,
}

/// Searches until a description names services that map ports.
///
/// # Errors
/// The gateway answers with no such description, or no search can be sent.
pub(super) async fn search(route: DefaultRoute) -> Result<Vec<FoundService>, GatewayError> {
    let socket = open_socket(route.local).map_err(GatewayError::Routes)?;
    let mut fault = None;
    let search = search_repeatedly(&socket, route.gateway, &mut fault);
    let found = timeout(SEARCH_TIMEOUT, search).await.ok().flatten();
    found.ok_or_else(|| match fault {
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

/// Returns the services of the first description that has some, or else what is wrong with the last description.
async fn search_repeatedly(
    socket: &UdpSocket,
    gateway: Ipv4Addr,
    fault: &mut Option<Box<dyn Error>>,
) -> Option<Vec<FoundService>> {
    let mut known = BTreeSet::new();
    let to_gateway = SocketAddrV4::new(gateway, SSDP.port());
    let receivers: [&[SocketAddrV4]; 3] = [&[SSDP, to_gateway], &[SSDP], &[to_gateway]];
    for (to, wait) in receivers.into_iter().zip(SEARCH_WAITS) {
        send_searches(socket, to).await;
        while let Ok(Some(location)) =
            timeout(wait, next_location(socket, gateway, &mut known)).await
        {
            match fetch_services(&location, gateway).await {
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

/// Waits for a description that is not known yet; returns `None` when enough are known.
async fn next_location(
    socket: &UdpSocket,
    gateway: Ipv4Addr,
    known: &mut BTreeSet<Url>,
) -> Option<Url> {
    for _ in 0..MAX_DATAGRAMS {
        if known.len() >= MAX_DESCRIPTIONS {
            break;
        }
        if let Some(location) = receive_location(socket, gateway).await
            && known.insert(location.clone())
        {
            return Some(location);
        }
    }
    None
}

fn open_socket(local: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    socket.bind(&SocketAddr::from((local, 0)).into())?;
    socket.set_multicast_if_v4(&local)?;
    UdpSocket::from_std(socket.into())
}

/// Sends a search for each target to these addresses. What cannot be sent is lost like any datagram.
async fn send_searches(socket: &UdpSocket, to: &[SocketAddrV4]) {
    for target in TARGETS {
        for to in to {
            let search = format!(
                "M-SEARCH * HTTP/1.1\r\nHOST: {to}\r\nMAN: \"ssdp:discover\"\r\nMX: 2\r\nST: {target}\r\n\r\n"
            );
            let _ = socket.send_to(search.as_bytes(), to).await;
        }
    }
}

/// Receives a datagram; returns where the gateway's description is, if it is such an answer of the gateway.
async fn receive_location(socket: &UdpSocket, gateway: Ipv4Addr) -> Option<Url> {
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).await.ok()?;
    if from.ip() != gateway {
        return None;
    }
    let location = search_location(buffer.get(..length)?)?;
    on_gateway(Url::parse(&location).ok()?, gateway)
}

/// Returns the address with the gateway as its host, which a gateway may name by another address or by a name of its own.
fn on_gateway(mut url: Url, gateway: Ipv4Addr) -> Option<Url> {
    if url.scheme() != "http" || url.port_or_known_default() == Some(0) {
        return None;
    }
    url.set_ip_host(gateway.into()).ok()?;
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    url.set_fragment(None);
    Some(url)
}

/// Fetches a description, and returns its services.
async fn fetch_services(location: &Url, gateway: Ipv4Addr) -> io::Result<Vec<FoundService>> {
    let description = parse_description(&exchange(location, None).await?);
    let base = description.url_base.as_deref();
    let base = base
        .and_then(|base| on_gateway(location.join(base).ok()?, gateway))
        .unwrap_or_else(|| location.clone());
    let service = |found: wire::upnp::WanService| {
        Some(FoundService {
            control_url: on_gateway(base.join(&found.control_url).ok()?, gateway)?,
            service_type: found.service_type,
        })
    };
    let services = description.wan_services.into_iter();
    Ok(services.filter_map(service).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: Option<&str>) {
        let url = Url::parse(url).unwrap();
        let gateway = Ipv4Addr::new(192, 168, 1, 1);
        let on_gateway = on_gateway(url, gateway).map(String::from);
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
        check("https://192.168.1.1/d.xml", None);
        check("http://192.168.1.1:0/d.xml", None);
        check("file:///etc/passwd", None);
    }
}
