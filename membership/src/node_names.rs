//! The names of nodes, as their certificates state them.
//!
//! A name is learnt only from a certificate that TLS verified on a connection with its node, so no node can claim the name of
//! another. Each node holds one name; of two nodes whose certificates state the same name, the one with the newer certificate
//! has it, since the registry gives a name away only after its last holder lost it. Reads no clock and no disk.

use arc_swap::ArcSwap;
use policies::{names::Prefix, node_name::NodeName};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Maximum number of names that a node remembers; each takes about 100 bytes.
pub const MAX_NAMES: usize = 16_384;

/// A name that a certificate stated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedName {
    /// The name in lower case.
    pub name: NodeName,
    /// The certificate's notBefore, in seconds since 1970.
    pub issued_s: i64,
}

/// The changes to be written to disk: the new name of each node, `None` for a forgotten one.
pub type NameChanges = BTreeMap<Prefix, Option<CertifiedName>>;

/// The names that are in force: at most one for each node, and one node for each name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamesInForce(BTreeMap<Prefix, NodeName>);

impl NamesInForce {
    /// Returns the name of a node; `None` if it has none, it is not known, or another node has it now.
    pub fn get(&self, node: Prefix) -> Option<&NodeName> {
        self.0.get(&node)
    }

    /// Describes a node by its name and prefix, or by its prefix alone.
    pub fn describe(&self, node: Prefix) -> String {
        match self.get(node) {
            Some(name) => format!("{name} ({node})"),
            None => node.to_string(),
        }
    }

    /// Returns all nodes that have a name, by ascending prefix.
    pub fn nodes(&self) -> impl Iterator<Item = Prefix> {
        self.0.keys().copied()
    }
}

#[derive(Debug, Default)]
struct Certified {
    names: BTreeMap<Prefix, CertifiedName>,
    /// The nodes whose changes are not on disk yet.
    unwritten: BTreeSet<Prefix>,
}

/// All names that this node knows. Clones share them, on all threads.
#[derive(Clone, Debug, Default)]
pub struct NodeNames {
    certified: Arc<Mutex<Certified>>,
    in_force: Arc<ArcSwap<NamesInForce>>,
}

impl NodeNames {
    /// Returns the names that are in force now.
    pub fn load(&self) -> Arc<NamesInForce> {
        self.in_force.load_full()
    }

    /// Learns the name that a verified certificate of `node` states, issued at `issued_s` (notBefore, in seconds since 1970).
    /// A certificate that is older than the known one changes nothing.
    pub fn learn(&self, node: Prefix, name: Option<NodeName>, issued_s: i64) {
        let mut certified = self.lock();
        let known = certified.names.get(&node);
        let new = name.map(|name| CertifiedName { name, issued_s });
        if known == new.as_ref() || known.is_some_and(|known| known.issued_s > issued_s) {
            return;
        }
        certified.unwritten.insert(node);
        match new {
            Some(new) => certified.names.insert(node, new),
            None => certified.names.remove(&node),
        };
        self.limit_and_publish(&mut certified);
    }

    /// Forgets the name of a node, such as a revoked one.
    pub fn forget(&self, node: Prefix) {
        let mut certified = self.lock();
        if certified.names.remove(&node).is_some() {
            certified.unwritten.insert(node);
            self.limit_and_publish(&mut certified);
        }
    }

    /// Adds the names that are stored on disk.
    pub fn restore(&self, stored: impl IntoIterator<Item = (Prefix, CertifiedName)>) {
        let mut certified = self.lock();
        for (node, name) in stored {
            certified.names.entry(node).or_insert(name);
        }
        self.limit_and_publish(&mut certified);
    }

    /// Returns the changes since the last call, to be written to disk.
    pub fn take_changes(&self) -> NameChanges {
        let mut certified = self.lock();
        let unwritten = std::mem::take(&mut certified.unwritten);
        unwritten
            .into_iter()
            .map(|node| (node, certified.names.get(&node).cloned()))
            .collect()
    }

    /// Marks changes as unwritten again, after the disk rejected them.
    pub fn mark_unwritten(&self, changes: NameChanges) {
        self.lock().unwritten.extend(changes.into_keys());
    }

    fn lock(&self) -> MutexGuard<'_, Certified> {
        self.certified
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the oldest names above [`MAX_NAMES`], and publishes which names are in force.
    fn limit_and_publish(&self, certified: &mut Certified) {
        while certified.names.len() > MAX_NAMES {
            let oldest = certified.names.iter().min_by_key(|(_, name)| name.issued_s);
            let Some(oldest) = oldest.map(|(node, _)| *node) else {
                break;
            };
            certified.names.remove(&oldest);
            certified.unwritten.insert(oldest);
        }
        let in_force = names_in_force(&certified.names);
        self.in_force.store(Arc::new(in_force));
    }
}

/// Gives each name to the node with the newest certificate that states it; to none if two are equally new.
fn names_in_force(certified: &BTreeMap<Prefix, CertifiedName>) -> NamesInForce {
    let mut holders: BTreeMap<&NodeName, (i64, Option<Prefix>)> = BTreeMap::new();
    for (node, CertifiedName { name, issued_s }) in certified {
        let holder = holders.entry(name).or_insert((*issued_s, Some(*node)));
        if holder.1 != Some(*node) && holder.0 <= *issued_s {
            *holder = (*issued_s, (holder.0 < *issued_s).then_some(*node));
        }
    }
    let held = holders
        .into_iter()
        .filter_map(|(name, (_, node))| Some((node?, name.clone())));
    NamesInForce(held.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    fn learn(names: &NodeNames, number: u32, name: &str, issued_s: i64) {
        names.learn(node(number), name.parse().ok(), issued_s);
    }

    /// Compares the names in force, written as `7 web, 9 printer`.
    #[track_caller]
    fn check(names: &NodeNames, expected: &str) {
        let names = names.load();
        let shown: Vec<_> = names
            .nodes()
            .map(|node| format!("{} {}", node.number(), names.get(node).unwrap()))
            .collect();
        assert_eq!(shown.join(", "), expected);
    }

    #[test]
    fn the_newest_certificate_of_a_node_states_its_name() {
        let names = NodeNames::default();
        learn(&names, 7, "web", 100);
        learn(&names, 7, "www", 200);
        check(&names, "7 www");
        learn(&names, 7, "web", 100);
        check(&names, "7 www");
        learn(&names, 7, "", 300);
        check(&names, "");
    }

    #[test]
    fn a_name_belongs_to_the_node_with_the_newest_certificate_that_states_it() {
        let names = NodeNames::default();
        learn(&names, 7, "web", 100);
        learn(&names, 9, "web", 200);
        learn(&names, 5, "web", 150);
        check(&names, "9 web");
        let described = [7, 9].map(|number| names.load().describe(node(number)));
        assert_eq!(described, ["7/16", "web (9/16)"]);
        // The registry never issues these two: both nodes are shown by their prefixes.
        learn(&names, 8, "web", 200);
        check(&names, "");
        names.forget(node(8));
        check(&names, "9 web");
        learn(&names, 9, "printer", 300);
        check(&names, "5 web, 9 printer");
    }

    #[test]
    fn changes_are_returned_once_and_again_if_the_disk_rejects_them() {
        let names = NodeNames::default();
        names.restore([(
            node(7),
            CertifiedName {
                name: "web".parse().unwrap(),
                issued_s: 100,
            },
        )]);
        check(&names, "7 web");
        assert!(names.take_changes().is_empty());
        learn(&names, 7, "web", 100);
        learn(&names, 9, "printer", 100);
        names.forget(node(7));
        let changes = names.take_changes();
        let is_kept: Vec<_> = changes.values().map(Option::is_some).collect();
        assert_eq!(is_kept, [false, true]);
        assert!(names.take_changes().is_empty());
        names.mark_unwritten(changes.clone());
        assert_eq!(names.take_changes(), changes);
    }

    #[test]
    fn the_oldest_names_are_dropped_above_the_limit() {
        let names = NodeNames::default();
        let stored = (0..=u32::try_from(MAX_NAMES).unwrap()).map(|number| {
            let name = format!("n{number}").parse().unwrap();
            let issued_s = i64::from(number);
            (node(number), CertifiedName { name, issued_s })
        });
        names.restore(stored);
        assert_eq!(names.load().nodes().count(), MAX_NAMES);
        assert_eq!(names.load().get(node(0)), None);
    }
}
