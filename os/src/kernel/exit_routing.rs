//! Routing rules by which packets from the network's range reach an exit gateway. Packets from the host's other
//! addresses match none of them.
//!
//! ```text
//! 32002  from NETWORK  main table without its default route: the host's own networks take precedence
//! 32003  from NETWORK  unreachable, for packets of OpenVPN: no tunnel runs inside itself
//! 32004  from NETWORK  table of babeld's default route
//! 32005  from NETWORK  table of its copy, for the moment in which babeld changes it
//! 32006  from NETWORK  unreachable, except on a gateway: only gateways use their host's default route
//! ```

use super::{
    Kernel, KernelError,
    numbers::{DEFAULT_FALLBACK_TABLE, DEFAULT_TABLE},
    rules::{add_rule, delete_rule},
};
use rtnetlink::packet_route::{
    AddressFamily,
    route::RouteHeader,
    rule::{RuleAction, RuleAttribute, RuleMessage, RuleUidRange},
};
use wire::overlay::Network;

/// The role of a node in exit routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The network has no gateway; its packets are routed as those of the host.
    None,
    /// Only other nodes are gateways: packets leave the network through them or not at all. Packets of this
    /// uid (that of OpenVPN) never do.
    Others(u32),
    /// This node is a gateway: packets leave the network by the host's default route or, while it has none,
    /// through other gateways. Packets of this uid (that of OpenVPN) never do.
    Own(u32),
}

impl Kernel {
    /// Adds the rules that this role requires, and deletes the others. A second call changes nothing.
    ///
    /// # Errors
    ///
    /// The kernel rejects a change.
    pub async fn apply_exit_rules(&self, network: Network, exit: Exit) -> Result<(), KernelError> {
        let _changing = self.host_changes.lock().await;
        self.state().placed.exit = Some((network, exit));
        let unneeded = RULES.into_iter().filter(|(_, action)| !exit.needs(*action));
        let unneeded = unneeded.map(|(priority, action)| rule_message(priority, action));
        let wanted = wanted_rules(network, exit).map(add_rule);
        self.execute_all(unneeded.map(delete_rule).chain(wanted))
            .await
    }
}

impl Exit {
    /// Returns whether a node of this role has the rule with this action.
    fn needs(self, action: Action) -> bool {
        match self {
            Self::None => false,
            Self::Others(_) => true,
            Self::Own(_) => action != Action::Unreachable,
        }
    }

    /// Returns the user whose packets never leave by an exit gateway.
    fn uid(self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Others(uid) | Self::Own(uid) => Some(uid),
        }
    }
}

/// Builds the rules that a node of this role has.
pub(super) fn wanted_rules(network: Network, exit: Exit) -> impl Iterator<Item = RuleMessage> {
    RULES
        .into_iter()
        .filter(move |(_, action)| exit.needs(*action))
        .map(move |(priority, action)| whole_rule(network, priority, action, exit.uid()))
}

/// The action of a rule for packets from the network's range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Looks up a route in the main table, but ignores its default route.
    LookupMain,
    /// Looks up a route in one of the node's own tables.
    Lookup(u8),
    /// Makes the destination unreachable for packets of OpenVPN.
    UnreachableForOpenvpn,
    /// Makes the destination unreachable.
    Unreachable,
}

/// All rules, by priority.
const RULES: [(u32, Action); 5] = [
    (32002, Action::LookupMain),
    (32003, Action::UnreachableForOpenvpn),
    (32004, Action::Lookup(DEFAULT_TABLE)),
    (32005, Action::Lookup(DEFAULT_FALLBACK_TABLE)),
    (32006, Action::Unreachable),
];

/// Builds all rules, each with only those attributes that distinguish it from others.
pub(super) fn rule_messages() -> impl Iterator<Item = RuleMessage> {
    RULES
        .into_iter()
        .map(|(priority, action)| rule_message(priority, action))
}

fn whole_rule(network: Network, priority: u32, action: Action, uid: Option<u32>) -> RuleMessage {
    let mut message = rule_message(priority, action);
    let range = network.range();
    message.header.src_len = range.prefix_len();
    message
        .attributes
        .push(RuleAttribute::Source(range.network().into()));
    match (action, uid) {
        (Action::LookupMain, _) => message.attributes.push(RuleAttribute::SuppressPrefixLen(0)),
        (Action::UnreachableForOpenvpn, Some(uid)) => {
            message
                .attributes
                .push(RuleAttribute::UidRange(RuleUidRange {
                    start: uid,
                    end: uid,
                }));
        }
        (Action::Lookup(_) | Action::Unreachable | Action::UnreachableForOpenvpn, _) => {}
    }
    message
}

/// Returns a rule with only those attributes that distinguish it from others.
fn rule_message(priority: u32, action: Action) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet6;
    (message.header.table, message.header.action) = match action {
        Action::LookupMain => (RouteHeader::RT_TABLE_MAIN, RuleAction::ToTable),
        Action::Lookup(table) => (table, RuleAction::ToTable),
        Action::UnreachableForOpenvpn | Action::Unreachable => (0, RuleAction::Unreachable),
    };
    message.attributes.push(RuleAttribute::Priority(priority));
    message
}
