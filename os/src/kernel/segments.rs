//! Finds the links on which other hosts of the same LAN may be, with this host's addresses there.

use super::{Kernel, KernelError};
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use std::{collections::BTreeMap, fs, net::IpAddr};

/// Maximum number of links that are reported.
const MAX_SEGMENTS: usize = 8;

/// A link to a LAN.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// The index of the link.
    pub index: u32,
    /// The name of the link.
    pub name: String,
    /// This host's addresses on the link, each with the length of its subnet's prefix in bits; neither loopback nor link-local ones.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl Kernel {
    /// Returns the links that lead to a LAN, sorted: those that are up, have a carrier and an address, and carry broadcasts and
    /// multicasts. Slots, other tunnels, and bridges that only containers or virtual machines are plugged into do not count.
    ///
    /// # Errors
    ///
    /// The kernel rejects a request.
    pub async fn segments(&self) -> Result<Vec<Segment>, KernelError> {
        let mut by_link: BTreeMap<String, Vec<(IpAddr, u8)>> = BTreeMap::new();
        for found in self.addresses().await? {
            let subnet = found.in_subnet();
            by_link.entry(found.link).or_default().push(subnet);
        }
        let mut segments = Vec::new();
        for (name, addresses) in by_link {
            let Ok(index) = if_nametoindex(name.as_str()) else {
                continue;
            };
            if self.leads_to_lan(index, &name).await? {
                segments.push(Segment {
                    index,
                    name,
                    addresses,
                });
            }
        }
        segments.sort();
        segments.truncate(MAX_SEGMENTS);
        Ok(segments)
    }

    async fn leads_to_lan(&self, index: u32, name: &str) -> Result<bool, KernelError> {
        let Some(link) = self.link(index).await? else {
            return Ok(false);
        };
        let flags = link.header.flags;
        let needed =
            LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Broadcast | LinkFlags::Multicast;
        if !flags.contains(needed) || flags.contains(LinkFlags::Pointopoint) {
            return Ok(false);
        }
        match kind(&link) {
            Some(InfoKind::Tun | InfoKind::Dummy | InfoKind::Vxlan | InfoKind::Ifb) => Ok(false),
            Some(InfoKind::Bridge) => self.has_uplink_port(name).await,
            _ => Ok(true),
        }
    }

    /// Returns whether a port of the bridge is a network card, or stands for some.
    async fn has_uplink_port(&self, bridge: &str) -> Result<bool, KernelError> {
        let ports = fs::read_dir(format!("/sys/class/net/{bridge}/brif"));
        for port in ports.into_iter().flatten().flatten() {
            let port = port.file_name();
            let Ok(index) = if_nametoindex(port.as_os_str()) else {
                continue;
            };
            let link = self.link(index).await?;
            let is_uplink = |link: LinkMessage| match kind(&link) {
                None => true,
                Some(kind) => matches!(kind, InfoKind::Bond | InfoKind::Team | InfoKind::Vlan),
            };
            if link.is_some_and(is_uplink) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Returns the kind of a virtual link; `None` for a network card.
fn kind(link: &LinkMessage) -> Option<InfoKind> {
    let infos = link.attributes.iter().find_map(|part| match part {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    })?;
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.clone()),
        _ => None,
    })
}
