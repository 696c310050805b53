//! Finds out whether the host forwards packets from one tunnel to another, or whether a firewall drops them.
//!
//! The daemon sends one packet into a TAP of its own, as if a neighbour had sent it, to an address behind the same TAP. If the
//! host forwards the packet, it looks for the next hop there: by a Neighbor Solicitation (RFC 4861), which the daemon reads.

use super::{
    Kernel, KernelError,
    numbers::{FALLBACK_TABLE, PROTOCOL},
    request::Request,
    slots::{add_link_local, set_link, set_link_up},
    sysctl,
    tun::Tap,
};
use ipnet::Ipv6Net;
use nix::{errno::Errno, net::if_::if_nametoindex, unistd::write};
use policies::names::Prefix;
use rtnetlink::{LinkUnspec, RouteMessageBuilder, packet_route::RouteNetlinkMessage};
use std::{
    io,
    net::Ipv6Addr,
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
/// The MAC of that link.
const MAC: [u8; 6] = [0x02, 0x57, 0x52, 0x46, 0, 0];
/// The MAC of the neighbour that seems to send the packet.
const NEIGHBOUR_MAC: [u8; 6] = [0x02, 0x57, 0x52, 0x46, 0, 1];

/// Number of packets that are sent before the host counts as not forwarding.
const ATTEMPTS: usize = 3;
/// Time within which the host must have looked for the next hop. It does so at once, unless the machine is very busy.
const TIMEOUT: Duration = Duration::from_millis(300);

const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
const ECHO_REQUEST: u8 = 128;
const NEIGHBOR_SOLICITATION: u8 = 135;
/// Offsets in a frame: of the type of the packet, of the packet, of the type of an ICMPv6 message, and of the target of a solicitation.
const ETHERTYPE_AT: usize = 12;
const PACKET_AT: usize = 14;
const NEXT_HEADER_AT: usize = PACKET_AT + 6;
const ICMP_AT: usize = PACKET_AT + 40;
const TARGET_AT: usize = ICMP_AT + 8;

/// Length of the prefix of the addresses of the probe, the last ones of the node's range. Nobody has them.
const PREFIX_LENGTH: u8 = 112;
/// The source of the packets within that range. The targets come before it, another one for each packet: the host solicits an address
/// for seconds, and does not start again meanwhile.
const SOURCE: u128 = 0x100;
/// Largest number of frames that are read before a packet is sent; the queue of a TAP holds 500.
const MAX_QUEUED: usize = 1000;

/// The TAP of the probe. It disappears with its descriptor.
#[derive(Clone)]
pub(super) struct ForwardProbe {
    tap: Arc<Receiver>,
    /// Number of packets that were sent, which wraps.
    sent: Arc<AtomicU8>,
}

impl Kernel {
    /// Returns whether the host forwards an IPv6 packet from one tunnel to another.
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
        let range = Ipv6Net::new(last, PREFIX_LENGTH).unwrap_or_default();
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

    async fn probe_forwarding(&self, me: Prefix, range: Ipv6Net) -> Result<bool, KernelError> {
        let known = self.state().forward_probe.clone();
        let probe = match known {
            Some(probe) => probe,
            None => self.create_probe().await?,
        };
        let failed = || KernelError::refused("probe the forwarding of packets");
        let first = range.network().to_bits();
        let from = Ipv6Addr::from_bits(first | SOURCE);
        for _ in 0..ATTEMPTS {
            // Without the address on the link, which somebody may have removed, the host could not look for the next hop.
            self.configure_probe(me, range).await?;
            probe.drain().map_err(failed())?;
            let sent = probe.sent.fetch_add(1, Ordering::Relaxed);
            let to = Ipv6Addr::from_bits(first | u128::from(sent));
            write(&*probe.tap, &echo_request(from, to)).map_err(|errno| failed()(errno.into()))?;
            match tokio::time::timeout(TIMEOUT, probe.is_solicited(to)).await {
                Ok(Ok(())) => return Ok(true),
                Ok(Err(error)) => return Err(failed()(error)),
                Err(_) => {}
            }
        }
        Ok(false)
    }

    /// Sets the link up, and gives it an address and the route to the addresses of the probe, which disappear when it is set down.
    async fn configure_probe(&self, me: Prefix, range: Ipv6Net) -> Result<(), KernelError> {
        let index = index()?;
        let mut route = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(range.network(), range.prefix_len())
            .output_interface(index)
            .build();
        route.header.table = FALLBACK_TABLE;
        route.header.protocol = PROTOCOL;
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
    async fn is_solicited(&self, address: Ipv6Addr) -> io::Result<()> {
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

fn is_solicitation(frame: &[u8], address: Ipv6Addr) -> bool {
    frame.get(ETHERTYPE_AT..PACKET_AT) == Some(&ETHERTYPE_IPV6)
        && frame.get(NEXT_HEADER_AT) == Some(&ICMPV6)
        && frame.get(ICMP_AT) == Some(&NEIGHBOR_SOLICITATION)
        && frame.get(TARGET_AT..TARGET_AT + 16) == Some(&address.octets())
}

/// Encodes a frame with an ICMPv6 echo request (RFC 4443, section 4.1) without data.
fn echo_request(from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let mut message = [ECHO_REQUEST, 0, 0, 0, 0x57, 0x52, 0, 1];
    let length: u8 = 8;
    let mut summed = [from.octets(), to.octets()].concat();
    summed.extend([0, 0, 0, length, 0, 0, 0, ICMPV6]);
    summed.extend(message);
    if let Some(checksum) = message.get_mut(2..4) {
        checksum.copy_from_slice(&checksum_of(&summed).to_be_bytes());
    }
    let mut frame = [MAC, NEIGHBOUR_MAC].concat();
    frame.extend(ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0, 0, length, ICMPV6, 64]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    frame.extend(message);
    frame
}

/// Computes the Internet checksum (RFC 1071) of bytes whose number is even.
fn checksum_of(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).filter_map(<[u8]>::first_chunk);
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).map_or(0, |sum| !sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_request_has_a_valid_checksum() {
        let (from, to) = (
            "2001:db8::1".parse().unwrap(),
            "2001:db8::2".parse().unwrap(),
        );
        let frame = echo_request(from, to);
        assert_eq!(frame.len(), ICMP_AT + 8);
        let mut summed = frame[PACKET_AT + 8..ICMP_AT].to_vec();
        summed.extend([0, 0, 0, 8, 0, 0, 0, ICMPV6]);
        summed.extend(&frame[ICMP_AT..]);
        assert_eq!(checksum_of(&summed), 0);
    }

    #[test]
    fn only_a_solicitation_of_that_address_counts() {
        let address: Ipv6Addr = "2001:db8::2".parse().unwrap();
        let mut frame = vec![0; TARGET_AT + 16];
        frame[ETHERTYPE_AT..PACKET_AT].copy_from_slice(&ETHERTYPE_IPV6);
        frame[NEXT_HEADER_AT] = ICMPV6;
        frame[ICMP_AT] = NEIGHBOR_SOLICITATION;
        frame[TARGET_AT..].copy_from_slice(&address.octets());
        assert!(is_solicitation(&frame, address));
        assert!(!is_solicitation(&frame, "2001:db8::3".parse().unwrap()));
        assert!(!is_solicitation(&frame[..TARGET_AT + 15], address));
        frame[ICMP_AT] = ECHO_REQUEST;
        assert!(!is_solicitation(&frame, address));
    }
}
