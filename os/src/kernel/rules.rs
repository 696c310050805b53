//! Routing rules that lead to the node's own tables.

use super::{
    Kernel, KernelError,
    numbers::{
        ALTERNATE_PRIORITY, ALTERNATE_TABLE, FALLBACK_PRIORITY, FALLBACK_TABLE, RULE_PRIORITY,
        TABLE,
    },
    request::Request,
};
use nix::errno::Errno;
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
};

/// The tables for which the node adds a rule, with the priority of each rule.
pub(super) const RULES: [(u8, u32); 3] = [
    (ALTERNATE_TABLE, ALTERNATE_PRIORITY),
    (TABLE, RULE_PRIORITY),
    (FALLBACK_TABLE, FALLBACK_PRIORITY),
];

/// Builds the rules that lead packets of one family to the node's tables.
pub(super) fn table_rules(family: AddressFamily) -> [RuleMessage; RULES.len()] {
    RULES.map(|(table, priority)| rule(family, table, priority))
}

fn rule(family: AddressFamily, table: u8, priority: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.table = table;
    message.header.action = RuleAction::ToTable;
    message.attributes.push(RuleAttribute::Priority(priority));
    if table == ALTERNATE_TABLE {
        // Only packets that this host sends "arrive" by lo; forwarded packets use no alternate routes, which could form loops.
        message
            .attributes
            .push(RuleAttribute::Iifname("lo".to_owned()));
    }
    message
}

/// Builds a request that adds a rule. It is no error if the rule exists.
pub(super) fn add_rule(rule: RuleMessage) -> Request {
    let doing = format!("add the rule of priority {}", priority(&rule));
    Request::create(doing, RouteNetlinkMessage::NewRule(rule)).forgive(&[Errno::EEXIST])
}

/// Builds a request that deletes a rule. It is no error if the rule does not exist.
pub(super) fn delete_rule(rule: RuleMessage) -> Request {
    let doing = format!("delete the rule of priority {}", priority(&rule));
    Request::change(doing, RouteNetlinkMessage::DelRule(rule))
        .forgive(&[Errno::ENOENT, Errno::EAFNOSUPPORT])
}

/// Returns the priority of a rule; 0 for the rule of table `local`, which has none.
pub(super) fn priority(rule: &RuleMessage) -> u32 {
    let found = rule.attributes.iter().find_map(|part| match part {
        RuleAttribute::Priority(priority) => Some(*priority),
        _ => None,
    });
    found.unwrap_or(0)
}

/// Returns whether a rule of the kernel has the family, priority, action and table of a rule that nodes add.
pub(super) fn is_same_rule(known: &RuleMessage, rule: &RuleMessage) -> bool {
    let key = |rule: &RuleMessage| {
        let header = &rule.header;
        (header.family, header.table, header.action, priority(rule))
    };
    key(known) == key(rule)
}

/// Returns whether a rule of the kernel is the one that the node wants, with the same selectors.
pub(super) fn is_wanted_rule(wanted: &RuleMessage, rule: &RuleMessage) -> bool {
    is_same_rule(wanted, rule) && selectors(wanted) == selectors(rule)
}

/// Returns what a rule selects packets by, and the length of prefixes that it ignores.
fn selectors(rule: &RuleMessage) -> impl PartialEq {
    let header = &rule.header;
    let is_selector = |part: &&RuleAttribute| match part {
        RuleAttribute::Source(_)
        | RuleAttribute::Destination(_)
        | RuleAttribute::Iifname(_)
        | RuleAttribute::Oifname(_)
        | RuleAttribute::UidRange(_)
        | RuleAttribute::IpProtocol(_)
        | RuleAttribute::SourcePortRange(_)
        | RuleAttribute::DestinationPortRange(_) => true,
        // The kernel lists these although they select nothing.
        RuleAttribute::SuppressPrefixLen(length) => *length != u32::MAX,
        RuleAttribute::FwMark(value) | RuleAttribute::FwMask(value) => *value != 0,
        _ => false,
    };
    let mut parts: Vec<_> = rule
        .attributes
        .iter()
        .filter(is_selector)
        .map(|part| format!("{part:?}"))
        .collect();
    parts.sort();
    let is_inverted = header.flags.contains(RuleFlags::Invert);
    (
        header.src_len,
        header.dst_len,
        header.tos,
        is_inverted,
        parts,
    )
}

impl Kernel {
    /// Returns all rules of one family.
    pub(super) async fn rules(
        &self,
        family: AddressFamily,
    ) -> Result<Vec<RuleMessage>, KernelError> {
        let mut query = RuleMessage::default();
        query.header.family = family;
        let mut found = Vec::new();
        let query = RouteNetlinkMessage::GetRule(query);
        self.dump("list rules", query, |entry| {
            // A kernel without IPv6 lists the rules of the other families.
            if let RouteNetlinkMessage::NewRule(rule) = entry
                && rule.header.family == family
            {
                found.push(rule);
            }
        })
        .await?;
        Ok(found)
    }
}
