//! Alternate routes, which packets of this host use while babeld has no route to a node.

use super::{
    Kernel, KernelError,
    host::delete_route,
    link_index,
    numbers::{ALTERNATE_TABLE, PROTOCOL},
    request::Request,
};
use ipnet::Ipv6Net;
use nix::errno::Errno;
use policies::alternates::NextHop;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::{AddressFamily, RouteNetlinkMessage, route::RouteMessage},
};
use std::net::Ipv6Addr;
use wire::overlay::link_local;

impl Kernel {
    /// Adds or replaces the alternate route to a range.
    ///
    /// # Errors
    ///
    /// The kernel rejects it.
    pub async fn set_alternate(&self, to: Ipv6Net, next_hop: NextHop) -> Result<(), KernelError> {
        let Some(link) = link_index(next_hop.slot) else {
            return Ok(());
        };
        let route = builder(to)
            .gateway(link_local(next_hop.via))
            .output_interface(link);
        let message = RouteNetlinkMessage::NewRoute(in_table(route));
        let request = Request::replace("set an alternate route", message);
        // The link may have gone down since the next hop was chosen.
        let forgiven: &[Errno] = &[Errno::ENODEV, Errno::ENETDOWN, Errno::EHOSTUNREACH];
        self.execute(request.forgive(forgiven)).await
    }

    /// Deletes all alternate routes.
    ///
    /// # Errors
    ///
    /// The kernel rejects a change.
    pub async fn clear_alternates(&self) -> Result<(), KernelError> {
        let routes = self.routes(AddressFamily::Inet6, ALTERNATE_TABLE).await?;
        self.execute_all(routes.into_iter().map(delete_route)).await
    }

    /// Deletes the alternate route to a range.
    ///
    /// # Errors
    ///
    /// The kernel rejects it.
    pub async fn delete_alternate(&self, to: Ipv6Net) -> Result<(), KernelError> {
        let message = RouteNetlinkMessage::DelRoute(in_table(builder(to)));
        let request = Request::change("delete an alternate route", message);
        self.execute(request.forgive(&[Errno::ESRCH])).await
    }
}

fn builder(to: Ipv6Net) -> RouteMessageBuilder<Ipv6Addr> {
    RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to.network(), to.prefix_len())
}

fn in_table(builder: RouteMessageBuilder<Ipv6Addr>) -> RouteMessage {
    let mut route = builder.build();
    route.header.table = ALTERNATE_TABLE;
    route.header.protocol = PROTOCOL;
    route
}
