//! The numbers that mark what is ours in the kernel: routing tables, rule priorities, protocols.

use rtnetlink::packet_route::{AddressFamily, route::RouteProtocol};

/// The routing table that babeld fills.
pub const TABLE: u8 = 197;
/// Priority of the rule that looks into [`TABLE`].
pub const RULE_PRIORITY: u32 = 32000;
/// The table of the copies.
pub const FALLBACK_TABLE: u8 = 198;
/// Priority of the rule that looks into it: after babeld's own table.
pub const FALLBACK_PRIORITY: u32 = 32001;
/// The routing table of babeld's default route.
pub const DEFAULT_TABLE: u8 = 199;
/// The table of its copy.
pub const DEFAULT_COPY: u8 = 200;
/// Priorities of the rules; the first and the last.
pub const EXIT_RULE_PRIORITIES: (u32, u32) = (32002, 32006);
/// The address families of routes.
pub const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet6, AddressFamily::Inet];
/// Protocol number of our own routes.
pub const PROTOCOL: RouteProtocol = RouteProtocol::Other(197);
/// Protocol number of babeld's routes (linux/rtnetlink.h: `RTPROT_BABEL`).
pub const BABEL_PROTOCOL: RouteProtocol = RouteProtocol::Babel;
