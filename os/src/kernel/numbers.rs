//! Numbers of routing tables, rules and routing protocols that mark what belongs to a node in the kernel.

use rtnetlink::packet_route::{AddressFamily, route::RouteProtocol};

/// The table of alternate routes, which only packets of this host use.
pub const ALTERNATE_TABLE: u8 = 201;
/// Priority of the rule for [`ALTERNATE_TABLE`], which is consulted before babeld's own table: that may make a
/// destination unreachable.
pub const ALTERNATE_PRIORITY: u32 = 31999;
/// The routing table that babeld fills.
pub const TABLE: u8 = 197;
/// Priority of the rule for [`TABLE`].
pub const RULE_PRIORITY: u32 = 32000;
/// The fallback route table: copies of the routes in [`TABLE`].
pub const FALLBACK_TABLE: u8 = 198;
/// Priority of the rule for [`FALLBACK_TABLE`], which is consulted after babeld's own table.
pub const FALLBACK_PRIORITY: u32 = 32001;
/// The routing table of babeld's default route.
pub const DEFAULT_TABLE: u8 = 199;
/// The table for the copy of babeld's default route.
pub const DEFAULT_FALLBACK_TABLE: u8 = 200;
/// First and last priority of the rules for packets that leave the network.
pub const EXIT_RULE_PRIORITIES: (u32, u32) = (32002, 32006);
/// The address families of the routes.
pub const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet6, AddressFamily::Inet];
/// Protocol number of the routes that the daemon adds itself.
pub const PROTOCOL: RouteProtocol = RouteProtocol::Other(197);
/// Protocol number of babeld's routes (linux/rtnetlink.h: `RTPROT_BABEL`).
pub const BABEL_PROTOCOL: RouteProtocol = RouteProtocol::Babel;
/// Metric of the `unreachable` route for the node's own range; any other route takes precedence.
pub const NODE_METRIC: u32 = 4_294_967;
/// Metric of the `unreachable` route for the network's range.
pub const NETWORK_METRIC: u32 = 4_294_968;
/// Metric of the `unreachable` route for a blocked range; it takes precedence over babeld's routes, which
/// have metric 1024.
pub const BLOCK_METRIC: u32 = 1;
