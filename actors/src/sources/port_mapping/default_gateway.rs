//! The gateway of this host's IPv4 default route, by each of its protocols.
//!
//! Only the default gateway is believed, even if other devices answer.

use super::{
    gateway::{
        DefaultRoute, Effort, ExternalAddress, Finder, Gateway, GatewayError, Grant, Lookup,
    },
    ledger::Mapping,
    port_control::PortControl,
    protocol::{Family, Protocol},
    upnp,
};
use policies::names::Transport;
use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};
use wire::endpoints::class_of;

/// The port of SSDP. A socket is connected to it, without a packet, so that the kernel chooses the local address towards the gateway.
const ROUTE_CHECK_PORT: u16 = 1900;

/// Reads the default route from the kernel.
///
/// # Errors
/// There is none, or it is not one behind NAT.
fn read_default_route() -> Result<DefaultRoute, GatewayError> {
    let routes = std::fs::read_to_string("/proc/thread-self/net/route");
    let gateway = default_gateway(&routes.map_err(GatewayError::Routes)?);
    let gateway = gateway.ok_or(GatewayError::NoDefaultRoute)?;
    let local = local_towards(gateway).map_err(GatewayError::Routes)?;
    if class_of(local.into()).is_none() {
        return Err(GatewayError::NotNeeded { local });
    }
    Ok(DefaultRoute { gateway, local })
}

/// Finds the gateway of the IPv4 default route.
#[derive(Clone, Copy, Debug)]
pub struct DefaultGateway;

/// The default gateway, by one of its protocols.
pub enum RealGateway {
    /// PCP or NAT-PMP.
    PortControl(PortControl),
    /// One service of UPnP.
    Upnp(Box<upnp::Service>),
}

impl Finder for DefaultGateway {
    type Gateway = RealGateway;

    async fn find(&self, family: Family) -> Result<Vec<RealGateway>, GatewayError> {
        let route = read_default_route()?;
        Ok(match family {
            Family::PortControl => {
                let found = PortControl::find(route).await?;
                found.into_iter().map(RealGateway::PortControl).collect()
            }
            Family::Upnp => {
                let found = upnp::Service::find(route).await?;
                found
                    .into_iter()
                    .map(|service| RealGateway::Upnp(Box::new(service)))
                    .collect()
            }
        })
    }

    fn is_current(&self, gateway: &RealGateway) -> bool {
        let route = match gateway {
            RealGateway::PortControl(gateway) => gateway.route(),
            RealGateway::Upnp(service) => service.route(),
        };
        read_default_route().is_ok_and(|current| current == route)
    }
}

/// Calls the same method of whichever gateway it is.
macro_rules! delegate {
    ($self:ident, $gateway:ident => $call:expr) => {
        match $self {
            RealGateway::PortControl($gateway) => $call,
            RealGateway::Upnp($gateway) => $call,
        }
    };
}

impl Gateway for RealGateway {
    fn protocol(&self) -> Protocol {
        delegate!(self, gateway => gateway.protocol())
    }

    fn local_address(&self) -> Ipv4Addr {
        delegate!(self, gateway => gateway.local_address())
    }

    async fn external_address(&self) -> Result<ExternalAddress, GatewayError> {
        delegate!(self, gateway => gateway.external_address().await)
    }

    async fn look_up(&self, ports: &[(Transport, u16)], effort: Effort) -> Vec<Lookup> {
        delegate!(self, gateway => gateway.look_up(ports, effort).await)
    }

    async fn add(
        &self,
        mapping: Mapping,
        lease: Option<Duration>,
        description: &str,
    ) -> Result<Grant, GatewayError> {
        delegate!(self, gateway => gateway.add(mapping, lease, description).await)
    }

    async fn remove(&self, mapping: Mapping) -> Result<(), GatewayError> {
        delegate!(self, gateway => gateway.remove(mapping).await)
    }
}

/// Returns the host's address towards the gateway. Nothing is sent.
fn local_towards(gateway: Ipv4Addr) -> io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((gateway, ROUTE_CHECK_PORT))?;
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
