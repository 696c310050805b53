//! Finds out whether the host forwards packets from one tunnel to another, or whether a firewall drops them.
//!
//! The daemon sends one packet into a TAP of its own, as if a neighbour had sent it, to an address behind the same TAP. If the
//! host forwards the packet, it looks for the next hop there: by a Neighbor Solicitation (RFC 4861) or, for IPv4, by ARP, which the
//! daemon reads.

mod frames;

use super::{
    Kernel, KernelError,
    numbers::{FALLBACK_TABLE, PROTOCOL},
    request::Request,
    slots::{add_link_local, set_link, set_link_up},
    sysctl,
    tun::Tap,
};
use frames::{MAC, TYPE_OF_SERVICE, ipv4_frame, ipv6_frame, is_solicitation};
use ipnet::{Ipv4Net, Ipv6Net};
use nix::{errno::Errno, net::if_::if_nametoindex, unistd::write};
use policies::names::Prefix;
use rtnetlink::{
    LinkUnspec, RouteMessageBuilder,
    packet_route::{
        RouteNetlinkMessage,
        route::{RouteMessage, RouteScope},
    },
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};
use tokio::net::unix::pipe::Receiver;
use wire::overlay::Network;

/// The link of the probe; firewalls that allow forwarding between links `wrn*` allow it, too.
pub(super) const LINK: &str = "wrnf";
/// Number of packets that are sent before the host counts as not forwarding.
const ATTEMPTS: usize = 3;
/// Time within which the host must have looked for the next hop. It does so at once, unless the machine is very busy.
const TIMEOUT: Duration = Duration::from_millis(300);

/// Length of the prefix of the addresses of the probe, the last ones of the node's range. Nobody has them.
const PREFIX_LENGTH: u8 = 112;
/// The source of the packets within that range. The targets come before it, another one for each packet: the host solicits an address
/// for seconds, and does not start again meanwhile.
const SOURCE: u128 = 0x100;
/// The same for IPv4. Somebody may have these addresses; the route to them applies to packets of the probe only.
const PREFIX_LENGTH_IPV4: u8 = 28;
/// The source of IPv4 packets, and the number of targets before it.
const SOURCE_IPV4: u8 = 14;
/// Largest number of frames that are read before a packet is sent; the queue of a TAP holds 500.
const MAX_QUEUED: usize = 1000;

/// The TAP of the probe. It disappears with its descriptor.
#[derive(Clone)]
pub(super) struct ForwardProbe {
    tap: Arc<Receiver>,
    /// Number of packets that were sent, which wraps.
    sent: Arc<AtomicU8>,
}

/// The addresses of one probe.
#[derive(Clone, Copy)]
enum Range {
    Ipv6(Ipv6Net),
    Ipv4(Ipv4Net),
}

impl Range {
    /// Returns the target of the packet with this number, and its frame.
    fn packet(self, number: u8) -> (IpAddr, Vec<u8>) {
        match self {
            Self::Ipv6(range) => {
                let first = range.network().to_bits();
                let to = Ipv6Addr::from_bits(first | u128::from(number));
                let from = Ipv6Addr::from_bits(first | SOURCE);
                (to.into(), ipv6_frame(from, to))
            }
            Self::Ipv4(range) => {
                let first = range.network().to_bits();
                let to = Ipv4Addr::from_bits(first | u32::from(number % SOURCE_IPV4));
                let from = Ipv4Addr::from_bits(first | u32::from(SOURCE_IPV4));
                (to.into(), ipv4_frame(from, to))
            }
        }
    }
}

impl Kernel {
    /// Returns whether the host forwards packets from one tunnel to another: IPv6 packets, and IPv4 packets if the network carries
    /// them and the node's IPv4 range has at least 16 addresses.
    ///
    /// # Errors
    ///
    /// The link for the probe cannot be created or used, even after it was created again.
    pub async fn forwards_transit(
        &self,
        network: Network,
        me: Prefix,
    ) -> Result<bool, KernelError> {
        let last = network.node_range(me).broadcast();
        let ipv6 = Ipv6Net::new(last, PREFIX_LENGTH).unwrap_or_default();
        let ipv4 = self.state().placed.ipv4;
        let ipv4 = ipv4
            .and_then(|(network, me)| network.node_range(me))
            .filter(|range| range.prefix_len() <= PREFIX_LENGTH_IPV4)
            .and_then(|range| Ipv4Net::new(range.broadcast(), PREFIX_LENGTH_IPV4).ok());
        let ranges = ipv4.map(Range::Ipv4).into_iter();
        for range in ranges.chain([Range::Ipv6(ipv6)]) {
            if !self.forwards(me, range).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn forwards(&self, me: Prefix, range: Range) -> Result<bool, KernelError> {
        if let Ok(forwards) = self.probe_forwarding(me, range).await {
            return Ok(forwards);
        }
        // Another program may have deleted the link.
        self.state().forward_probe = None;
        let forwards = self.probe_forwarding(me, range).await;
        if forwards.is_err() {
            self.state().forward_probe = None;
        }
        forwards
    }

    async fn probe_forwarding(&self, me: Prefix, range: Range) -> Result<bool, KernelError> {
        let forwards = self.send_packets(me, range).await;
        // Whatever the network carries next, no IPv4 of it stays on the host.
        if matches!(range, Range::Ipv4(_)) {
            let route = RouteNetlinkMessage::DelRoute(probe_route(range, index()?));
            let route = Request::change("remove the IPv4 route of the probe", route);
            self.execute(route.forgive(&[Errno::ESRCH])).await?;
        }
        forwards
    }

    async fn send_packets(&self, me: Prefix, range: Range) -> Result<bool, KernelError> {
        let known = self.state().forward_probe.clone();
        let probe = match known {
            Some(probe) => probe,
            None => self.create_probe().await?,
        };
        let failed = || KernelError::refused("probe the forwarding of packets");
        for _ in 0..ATTEMPTS {
            // Without the address on the link, which somebody may have removed, the host could not look for the next hop.
            self.configure_probe(me, range).await?;
            probe.drain().map_err(failed())?;
            let (to, frame) = range.packet(probe.sent.fetch_add(1, Ordering::Relaxed));
            write(&*probe.tap, &frame).map_err(|errno| failed()(errno.into()))?;
            match tokio::time::timeout(TIMEOUT, probe.is_solicited(to)).await {
                Ok(Ok(())) => return Ok(true),
                Ok(Err(error)) => return Err(failed()(error)),
                Err(_) => {}
            }
        }
        Ok(false)
    }

    /// Sets the link up, and gives it an address and the route to the addresses of the probe, which disappear when it is set down.
    async fn configure_probe(&self, me: Prefix, range: Range) -> Result<(), KernelError> {
        let index = index()?;
        if matches!(range, Range::Ipv4(_)) {
            sysctl::set_ipv4_forwarding(LINK, true)?;
        }
        let route = probe_route(range, index);
        let route = RouteNetlinkMessage::NewRoute(route);
        let route = Request::create("add a route for the probe", route).forgive(&[Errno::EEXIST]);
        self.execute_all([
            set_link_up(LINK, index),
            add_link_local(LINK, index, me),
            route,
        ])
        .await
    }

    async fn create_probe(&self) -> Result<ForwardProbe, KernelError> {
        let tap = Tap::create(LINK)?;
        let index = index()?;
        sysctl::disable_autoconfiguration(LINK)?;
        sysctl::enable_ipv6(LINK)?;
        let message = LinkUnspec::new_with_index(index)
            .address(MAC.to_vec())
            .build();
        self.execute(set_link(format!("configure link {LINK}"), message))
            .await?;
        // A TAP is read like a pipe.
        let tap = Receiver::from_owned_fd_unchecked(OwnedFd::from(tap))
            .map_err(KernelError::refused(format!("read from {LINK}")))?;
        let probe = ForwardProbe {
            tap: Arc::new(tap),
            sent: Arc::default(),
        };
        self.state().forward_probe = Some(probe.clone());
        Ok(probe)
    }
}

/// Returns the route to the addresses of the probe.
fn probe_route(range: Range, index: u32) -> RouteMessage {
    let mut route = match range {
        Range::Ipv6(range) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(range.network(), range.prefix_len())
            .output_interface(index)
            .build(),
        Range::Ipv4(range) => {
            let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(range.network(), range.prefix_len())
                .output_interface(index)
                .scope(RouteScope::Link)
                .build();
            route.header.tos = TYPE_OF_SERVICE;
            route
        }
    };
    route.header.table = FALLBACK_TABLE;
    route.header.protocol = PROTOCOL;
    route
}

fn index() -> Result<u32, KernelError> {
    if_nametoindex(LINK)
        .map_err(|errno| KernelError::refused(format!("find link {LINK}"))(errno.into()))
}

impl ForwardProbe {
    /// Reads frames that the host sent before, so that the queue has room for the next ones.
    fn drain(&self) -> io::Result<()> {
        let mut frame = [0; 2048];
        for _ in 0..MAX_QUEUED {
            match self.tap.try_read(&mut frame) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the host looks for this address on the link.
    async fn is_solicited(&self, address: IpAddr) -> io::Result<()> {
        let mut frame = [0; 2048];
        loop {
            self.tap.readable().await?;
            match self.tap.try_read(&mut frame) {
                Ok(length) => {
                    if is_solicitation(frame.get(..length).unwrap_or_default(), address) {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
