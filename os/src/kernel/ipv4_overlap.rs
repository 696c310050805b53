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
    route::{RouteAttribute, RouteMessage, RouteType},
};

impl Kernel {
    /// Returns the first network that the host has a route of its own to and that overlaps this range, with its link:
    /// `10.0.2.0/24 (eth0)`. Default routes do not count. Where the host has many routes, the answer may be some time old: 0.2 s for a
    /// thousand of them.
    ///
    /// # Errors
    ///
    /// The kernel rejects the request.
    pub async fn overlapping_network(&self, range: Ipv4Net) -> Result<Option<String>, KernelError> {
        let add = |found: &mut Option<String>, route: &RouteMessage| {
            *found = found.take().or_else(|| overlap(route, range));
        };
        self.read_main_table(
            &[AddressFamily::Inet],
            range,
            |state| &mut state.overlap,
            add,
        )
        .await
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
