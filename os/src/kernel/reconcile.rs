//! Compares what the node has put on its host with what is there, and restores what others removed or changed.
//!
//! Links come before addresses and routes, which disappear with them, and settings before all, since a link without IPv6 has neither.

use super::{
    Kernel, KernelError,
    host::{add_address, loopback, make_unreachable, matches_route},
    ledger::{Change, FORWARDING, LOOPBACK_DISABLED, is_followed, links, plan_forwarding},
    numbers::{ALTERNATE_PRIORITY, FAMILIES, PROTOCOL},
    placed::Placed,
    repair::{HostComparison, Repair, RepairKind, Step},
    request::Request,
    rules::{add_rule, is_wanted_rule, priority},
    slots::{TABLE_LOCAL, add_link_local, multicast_route},
    sysctl,
    underlay::is_link_of_node,
};
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::LinkFlags,
    route::{RouteAttribute, RouteMessage, RouteType},
    rule::{RuleAttribute, RuleMessage},
};
use std::{collections::BTreeSet, net::IpAddr};
use wire::overlay::link_local;

impl Kernel {
    /// Compares what the node has on the host with what it should have there, and restores what differs. A failure does not prevent the
    /// other steps.
    pub async fn reconcile_host(&self) -> HostComparison {
        let _changing = self.host_changes.lock().await;
        let placed = self.state().placed.clone();
        let mut comparison = HostComparison::default();
        comparison.add(self.reconcile_settings(&placed));
        let links = self.reconcile_links(&placed, &mut comparison);
        let links = links.await;
        comparison.add(links);
        comparison.add(self.reconcile_addresses(&placed).await);
        comparison.add(self.reconcile_routes(&placed).await);
        let rules = self.reconcile_rules(&placed, &mut comparison.earlier_rules);
        let rules = rules.await;
        comparison.add(rules);
        comparison.add(self.reconcile_packet_filter(placed.packet_filter.as_ref()));
        comparison
    }

    fn reconcile_settings(&self, placed: &Placed) -> Step {
        let mut host = Vec::new();
        if placed.ledger.is_some() {
            let read = KernelError::refused("read the host's settings");
            host.extend(plan_forwarding().map_err(read)?);
            host.extend(difference(LOOPBACK_DISABLED, "0"));
        }
        let forwards_ipv4 = placed.ipv4.is_some();
        let slots = self.slots().into_iter();
        let slots: Vec<_> = slots
            .flat_map(|slot| sysctl::slot_settings(&slot.to_string(), forwards_ipv4))
            .filter_map(|(path, wanted)| difference(&path, wanted))
            .collect();
        // The other changes only keep router advertisements accepted.
        let meddled = host
            .iter()
            .filter(|change| [FORWARDING, LOOPBACK_DISABLED].contains(&change.path.as_str()));
        let repairs = meddled.chain(&slots).map(|change| Repair {
            kind: RepairKind::Sysctl,
            object: format!(
                "{} = {} (was {})",
                change.path.replace('/', "."),
                change.new,
                change.old
            ),
        });
        let repairs = repairs.collect();
        host.extend(new_uplinks(placed));
        self.change_settings(host, is_followed)?;
        for change in slots {
            let doing = KernelError::refused(format!("set {} to {}", change.path, change.new));
            sysctl::write(&change.path, &change.new).map_err(doing)?;
        }
        Ok(repairs)
    }

    async fn reconcile_addresses(&self, placed: &Placed) -> Step {
        let lo = loopback()?;
        let (mut requests, mut repairs) = (Vec::new(), Vec::new());
        let mut restore = |object: String, request: Request| {
            requests.push(request);
            repairs.push(Repair {
                kind: RepairKind::Address,
                object,
            });
        };
        let mut present = BTreeSet::new();
        for family in FAMILIES {
            if placed.address(family).is_some() {
                self.addresses_of(family, &mut present).await?;
            }
        }
        for address in FAMILIES.iter().filter_map(|family| placed.address(*family)) {
            if !present.contains(&(lo, address)) {
                restore(format!("{address} on lo"), add_address(lo, address));
            }
        }
        if let Some((_, me)) = placed.ipv6 {
            for slot in &placed.up {
                let Ok(index) = self.index(*slot) else {
                    continue;
                };
                if !present.contains(&(index, link_local(me).into())) {
                    let name = slot.to_string();
                    let object = format!("{} on {name}", link_local(me));
                    restore(object, add_link_local(&name, index, me));
                }
            }
        }
        self.execute_all(requests).await?;
        Ok(repairs)
    }

    async fn addresses_of(
        &self,
        family: AddressFamily,
        found: &mut BTreeSet<(u32, IpAddr)>,
    ) -> Result<(), KernelError> {
        let mut query = AddressMessage::default();
        query.header.family = family;
        let query = RouteNetlinkMessage::GetAddress(query);
        self.dump("list addresses", query, |entry| {
            if let RouteNetlinkMessage::NewAddress(message) = entry {
                let addresses = message.attributes.iter().filter_map(|part| match part {
                    AddressAttribute::Local(address) | AddressAttribute::Address(address) => {
                        Some((message.header.index, *address))
                    }
                    _ => None,
                });
                found.extend(addresses);
            }
        })
        .await
    }

    async fn reconcile_routes(&self, placed: &Placed) -> Step {
        let (mut requests, mut repairs) = (Vec::new(), Vec::new());
        for family in FAMILIES {
            let wanted = placed.routes(family);
            if wanted.is_empty() {
                continue;
            }
            let mut query = RouteMessage::default();
            query.header.protocol = PROTOCOL;
            query.header.kind = RouteType::Unreachable;
            let present = self.filtered_routes(family, query).await?;
            for route in wanted {
                if !present.iter().any(|present| matches_route(present, route)) {
                    requests.push(make_unreachable(route));
                    repairs.push(Repair {
                        kind: RepairKind::Route,
                        object: format!("unreachable {} in table {}", route.range, route.table),
                    });
                }
            }
        }
        self.execute_all(requests).await?;
        repairs.extend(self.reconcile_multicast(placed).await?);
        Ok(repairs)
    }

    /// Restores the multicast routes of slots, which babeld's hellos need. A slot without a carrier has none.
    async fn reconcile_multicast(&self, placed: &Placed) -> Step {
        let mut query = RouteMessage::default();
        query.header.kind = RouteType::Multicast;
        query.header.table = TABLE_LOCAL;
        let present = self.filtered_routes(AddressFamily::Inet6, query).await?;
        let (mut requests, mut repairs) = (Vec::new(), Vec::new());
        for slot in placed.up.difference(&placed.silenced) {
            let Ok(index) = self.index(*slot) else {
                continue;
            };
            let is_there = present.iter().any(|route| {
                let parts = &route.attributes;
                parts
                    .iter()
                    .any(|part| matches!(part, RouteAttribute::Oif(link) if *link == index))
            });
            if is_there || !self.has_carrier(index).await? {
                continue;
            }
            let message = RouteNetlinkMessage::NewRoute(multicast_route(index));
            requests.push(Request::append(
                format!("restore multicast on {slot}"),
                message,
            ));
            repairs.push(Repair {
                kind: RepairKind::Route,
                object: format!("multicast on {slot}"),
            });
        }
        self.execute_all(requests).await?;
        Ok(repairs)
    }

    async fn has_carrier(&self, index: u32) -> Result<bool, KernelError> {
        let link = self.link(index).await?;
        Ok(link.is_some_and(|link| link.header.flags.contains(LinkFlags::LowerUp)))
    }

    async fn reconcile_rules(&self, placed: &Placed, earlier: &mut Vec<u32>) -> Step {
        let (mut requests, mut repairs) = (Vec::new(), Vec::new());
        for family in FAMILIES {
            let wanted = placed.rules(family);
            if wanted.is_empty() {
                continue;
            }
            let present = self.rules(family).await?;
            earlier.extend(present.iter().filter_map(earlier_priority));
            for rule in wanted {
                if !present.iter().any(|present| is_wanted_rule(&rule, present)) {
                    repairs.push(Repair {
                        kind: RepairKind::Rule,
                        object: format!("rule of priority {}", priority(&rule)),
                    });
                    requests.push(add_rule(rule));
                }
            }
        }
        earlier.sort_unstable();
        earlier.dedup();
        self.execute_all(requests).await?;
        Ok(repairs)
    }
}

/// Returns the change that gives a setting this value; `None` if it has the value, or does not exist.
fn difference(path: &str, wanted: &str) -> Option<Change> {
    let old = sysctl::read(path).ok().filter(|value| value != wanted)?;
    Some(Change {
        path: path.to_owned(),
        old,
        new: wanted.to_owned(),
    })
}

/// Returns the changes by which links that appeared since the start accept router advertisements in spite of the forwarding
/// that the node turned on.
fn new_uplinks(placed: &Placed) -> Vec<Change> {
    let is_noted = |path: &str| placed.changes.iter().any(|change| change.path == path);
    if !is_noted(FORWARDING) {
        return Vec::new();
    }
    let is_new = |link: &String| {
        let is_link = !["all", "default", "lo"].contains(&link.as_str()) && !is_link_of_node(link);
        is_link && !is_noted(&sysctl::ipv6(link, "forwarding"))
    };
    let ignores = |link: &String| {
        let reads = |key| sysctl::read(&sysctl::ipv6(link, key)).ok();
        reads("accept_ra").as_deref() == Some("1") && reads("forwarding").as_deref() == Some("1")
    };
    let links = links().unwrap_or_default().into_iter();
    let changes = links.filter(|link| is_new(link) && ignores(link));
    changes
        .filter_map(|link| difference(&sysctl::ipv6(&link, "accept_ra"), "2"))
        .collect()
}

/// Returns the priority of a rule if it is consulted before the node's, and is not the rule of all VRFs (`l3mdev`).
fn earlier_priority(rule: &RuleMessage) -> Option<u32> {
    let is_vrf = |part: &RuleAttribute| matches!(part, RuleAttribute::L3MDev(true));
    let priority = priority(rule);
    let is_earlier = (1..ALTERNATE_PRIORITY).contains(&priority);
    (is_earlier && !rule.attributes.iter().any(is_vrf)).then_some(priority)
}
