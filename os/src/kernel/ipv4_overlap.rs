//! Finds networks of the host that the network's IPv4 range would hide.

use super::{
    Kernel, KernelError,
    fallback_routes::destination,
    numbers::{BABEL_PROTOCOL, PROTOCOL},
    underlay::is_link_of_node,
};
use ipnet::{IpNet, Ipv4Net};
use rtnetlink::packet_route::{
    AddressFamily,
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteType},
};

impl Kernel {
    /// Returns the first network that the host has a route of its own to and that overlaps this range, with its link:
    /// `10.0.2.0/24 (eth0)`. Default routes do not count.
    ///
    /// # Errors
    ///
    /// The kernel rejects the request.
    pub async fn overlapping_network(&self, range: Ipv4Net) -> Result<Option<String>, KernelError> {
        let routes = self
            .routes(AddressFamily::Inet, RouteHeader::RT_TABLE_MAIN)
            .await?;
        Ok(routes.iter().find_map(|route| overlap(route, range)))
    }
}

fn overlap(route: &RouteMessage, range: Ipv4Net) -> Option<String> {
    let header = &route.header;
    let is_own = [PROTOCOL, BABEL_PROTOCOL].contains(&header.protocol);
    if is_own || header.kind != RouteType::Unicast {
        return None;
    }
    let IpNet::V4(network) = destination(route)? else {
        return None;
    };
    let overlaps = network.contains(&range.network()) || range.contains(&network.network());
    if !overlaps || network.prefix_len() == 0 {
        return None;
    }
    let link = route.attributes.iter().find_map(|part| match part {
        RouteAttribute::Oif(link) => nix::net::if_::if_indextoname(*link).ok(),
        _ => None,
    });
    let link = link
        .and_then(|link| link.into_string().ok())
        .unwrap_or_default();
    (!is_link_of_node(&link)).then(|| format!("{network} ({link})"))
}
