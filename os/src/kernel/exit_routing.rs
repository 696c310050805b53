//! The rules that lead packets from the network's range to an exit gateway; the host's own packets
//! never match them.
//!
//! ```text
//! 32002  from NETWORK  main, without its default route: the host's own links and routes take
//! precedence
//! 32003  from NETWORK  unreachable for what OpenVPN sends: no tunnel inside itself
//! 32004  from NETWORK  babeld's default route
//! 32005  from NETWORK  its fallback copy, for the moment of a change
//! 32006  from NETWORK  unreachable, except on a gateway: no other node's default route is an exit
//! ```

use super::{
    Kernel, KernelError,
    numbers::{DEFAULT_COPY, DEFAULT_TABLE},
    request::Request,
};
use nix::errno::Errno;
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::RouteHeader,
    rule::{RuleAction, RuleAttribute, RuleMessage, RuleUidRange},
};
use wire::overlay::Network;

/// The role of a node in exit routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The network has no gateway: its packets are routed as the host's.
    None,
    /// Others are gateways: the network's packets leave it through them or not at all. What this user (OpenVPN's)
    /// sends does not.
    Others(u32),
    /// This node is one: the network's packets leave it by the host's default route or, while it has none, through
    /// others; likewise not those of this user.
    Own(u32),
}

impl Kernel {
    /// Makes the rules for packets from the network's range what they shall be. Does nothing twice.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn carry_default(&self, network: Network, exit: Exit) -> Result<(), KernelError> {
        let wanted = |place: &Place| match exit {
            Exit::None => false,
            Exit::Others(_) => true,
            Exit::Own(_) => *place != Place::Nowhere,
        };
        let uid = match exit {
            Exit::None => None,
            Exit::Others(uid) | Exit::Own(uid) => Some(uid),
        };
        let requests = PLACES.into_iter().map(|(priority, place)| {
            if wanted(&place) {
                make(network, priority, place, uid)
            } else {
                delete(priority, place)
            }
        });
        self.ask_all(requests).await
    }
}

/// The action of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the main table, for anything but a default route.
    Host,
    /// The lookup continues in one of our tables.
    Table(u8),
    /// Nowhere, for packets of OpenVPN.
    NowhereForTunnels,
    /// The destination is unreachable.
    Nowhere,
}

const PLACES: [(u32, Place); 5] = [
    (32002, Place::Host),
    (32003, Place::NowhereForTunnels),
    (32004, Place::Table(DEFAULT_TABLE)),
    (32005, Place::Table(DEFAULT_COPY)),
    (32006, Place::Nowhere),
];

/// Deletes all the rules, whichever network's they are.
pub(super) fn delete_all() -> impl Iterator<Item = Request> {
    PLACES
        .into_iter()
        .map(|(priority, place)| delete(priority, place))
}

fn make(network: Network, priority: u32, place: Place, uid: Option<u32>) -> Request {
    let mut message = rule(priority, place);
    let range = network.range();
    message.header.src_len = range.prefix_len();
    message
        .attributes
        .push(RuleAttribute::Source(range.network().into()));
    match (place, uid) {
        (Place::Host, _) => message.attributes.push(RuleAttribute::SuppressPrefixLen(0)),
        (Place::NowhereForTunnels, Some(uid)) => {
            message
                .attributes
                .push(RuleAttribute::UidRange(RuleUidRange {
                    start: uid,
                    end: uid,
                }));
        }
        (Place::Table(_) | Place::Nowhere | Place::NowhereForTunnels, _) => {}
    }
    let message = RouteNetlinkMessage::NewRule(message);
    Request::create(format!("make rule {priority}"), message).forgive(&[Errno::EEXIST])
}

fn delete(priority: u32, place: Place) -> Request {
    let message = RouteNetlinkMessage::DelRule(rule(priority, place));
    let forgiven: &[Errno] = &[Errno::ENOENT, Errno::EAFNOSUPPORT];
    Request::change(format!("delete rule {priority}"), message).forgive(forgiven)
}

/// The attributes that distinguish a rule from others.
fn rule(priority: u32, place: Place) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet6;
    (message.header.table, message.header.action) = match place {
        Place::Host => (RouteHeader::RT_TABLE_MAIN, RuleAction::ToTable),
        Place::Table(table) => (table, RuleAction::ToTable),
        Place::NowhereForTunnels | Place::Nowhere => (0, RuleAction::Unreachable),
    };
    message.attributes.push(RuleAttribute::Priority(priority));
    message
}
