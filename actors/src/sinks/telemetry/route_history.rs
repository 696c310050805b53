//! Follows the installed routes from one table of babeld to the next: how often they change, and how long it takes until
//! the nodes behind a lost tunnel have other routes.

use policies::{
    histogram::{Histogram, SPAN_BOUNDS},
    names::{Prefix, Slot},
    observation::{BabelTable, INFINITY},
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Routes that have not moved within this span after a loss belong to nodes that are gone themselves.
const HEAL_SPAN: Duration = Duration::from_secs(60);

/// Maximum number of losses that are followed at the same time.
const MAX_LOSSES: usize = 64;

/// What happened to the installed route to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteChange {
    /// A node without a route has one.
    Gained,
    /// A node has no route any more.
    Lost,
    /// The route leads by another tunnel or neighbour.
    Moved,
}

impl RouteChange {
    /// All changes that are counted.
    pub const ALL: [Self; 3] = [Self::Gained, Self::Lost, Self::Moved];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Gained => "gained",
            Self::Lost => "lost",
            Self::Moved => "moved",
        }
    }
}

/// The installed route to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hop {
    slot: Slot,
    via: Prefix,
    /// When a table first showed this route.
    since: Uptime,
}

/// A lost tunnel, until the routes by it have moved.
#[derive(Clone, Debug)]
struct Loss {
    decided_at: Uptime,
    /// The nodes that have no other route yet.
    waiting: BTreeSet<Prefix>,
    /// When the last route moved.
    moved_at: Option<Uptime>,
}

/// The installed routes as last read, and how they changed.
#[derive(Clone, Debug)]
pub struct RouteHistory {
    hops: BTreeMap<Prefix, Hop>,
    /// For each node, the slot that its route left last, and when, for [`HEAL_SPAN`].
    left: BTreeMap<Prefix, (Slot, Uptime)>,
    losses: Vec<Loss>,
    /// Number of changes since the start.
    pub changes: BTreeMap<RouteChange, u64>,
    /// For each lost tunnel, the time from the verdict to the last route that moved.
    pub healed: Histogram,
}

impl Default for RouteHistory {
    fn default() -> Self {
        Self {
            hops: BTreeMap::new(),
            left: BTreeMap::new(),
            losses: Vec::new(),
            changes: RouteChange::ALL.map(|change| (change, 0)).into(),
            healed: Histogram::new(SPAN_BOUNDS),
        }
    }
}

impl RouteHistory {
    /// Records a table of babeld.
    pub(super) fn on_table(&mut self, at: Uptime, table: &BabelTable) {
        let leads_on =
            |route: &&policies::observation::Route| route.installed && route.metric != INFINITY;
        let installed = table.routes.iter().filter(leads_on);
        let mut before = std::mem::take(&mut self.hops);
        for route in installed {
            let (slot, via) = (route.slot, route.via);
            let earlier = before.remove(&route.node);
            let same = earlier.filter(|hop| (hop.slot, hop.via) == (slot, via));
            let hop = same.unwrap_or(Hop {
                slot,
                via,
                since: at,
            });
            match earlier {
                None => self.count(RouteChange::Gained),
                Some(_) if same.is_some() => {}
                Some(earlier) => {
                    self.count(RouteChange::Moved);
                    self.note_left(route.node, earlier.slot, at);
                }
            }
            self.hops.insert(route.node, hop);
        }
        for (node, hop) in before {
            self.count(RouteChange::Lost);
            self.note_left(node, hop.slot, at);
        }
        self.left
            .retain(|_, (_, left_at)| at.since(*left_at) < HEAL_SPAN);
        for loss in &mut self.losses {
            let hops = &self.hops;
            let is_moved = |node: &Prefix| {
                let mut hop = hops.get(node).into_iter();
                hop.any(|hop| hop.since > loss.decided_at)
            };
            let count = loss.waiting.len();
            loss.waiting.retain(|node| !is_moved(node));
            if loss.waiting.len() < count {
                loss.moved_at = Some(at);
            }
        }
        self.finish_losses(at);
    }

    /// Records that the tunnel on a slot was lost: `decided_at` is the moment of the verdict.
    pub(super) fn on_loss(&mut self, slot: Slot, decided_at: Uptime) {
        let by_slot = |(node, hop): (&Prefix, &Hop)| (hop.slot == slot).then_some(*node);
        let mut waiting: BTreeSet<_> = self.hops.iter().filter_map(by_slot).collect();
        let mut moved_at = None;
        // A table may have been read between the verdict and the exit of OpenVPN.
        for (node, (left_slot, left_at)) in &self.left {
            if *left_slot != slot || *left_at < decided_at || waiting.contains(node) {
                continue;
            }
            match self.hops.get(node) {
                Some(hop) => moved_at = moved_at.max(Some(hop.since)),
                None => {
                    waiting.insert(*node);
                }
            }
        }
        if self.losses.len() < MAX_LOSSES {
            self.losses.push(Loss {
                decided_at,
                waiting,
                moved_at,
            });
        }
        self.finish_losses(decided_at);
    }

    /// Observes the losses whose routes have all moved, or will not move any more.
    fn finish_losses(&mut self, at: Uptime) {
        let is_over =
            |loss: &mut Loss| loss.waiting.is_empty() || at.since(loss.decided_at) >= HEAL_SPAN;
        for loss in self.losses.extract_if(.., is_over) {
            if let Some(moved_at) = loss.moved_at {
                self.healed.observe(moved_at.since(loss.decided_at));
            }
        }
    }

    fn note_left(&mut self, node: Prefix, slot: Slot, at: Uptime) {
        self.left.insert(node, (slot, at));
    }

    fn count(&mut self, change: RouteChange) {
        let count = self.changes.entry(change).or_default();
        *count = count.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::observation::Route;

    const A: Slot = Slot::Dialling(0);
    const B: Slot = Slot::Dialling(1);

    fn node(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    /// A table with these routes: node, slot, whether it leads anywhere.
    fn table(routes: &[(u32, Slot, bool)]) -> BabelTable {
        let route = |&(number, slot, leads_on): &(u32, Slot, bool)| Route {
            node: node(number),
            slot,
            via: node(1),
            installed: true,
            metric: if leads_on { 96 } else { INFINITY },
            refmetric: 0,
        };
        BabelTable {
            neighbours: vec![],
            routes: routes.iter().map(route).collect(),
        }
    }

    enum Step<'a> {
        Table(&'a [(u32, Slot, bool)]),
        Loss(Slot, u64),
    }

    /// Takes the steps at the given milliseconds; checks the changes (gained, lost, moved), and the number and sum of the
    /// observed times in milliseconds.
    #[track_caller]
    fn check(steps: &[(u64, Step<'_>)], changes: [u64; 3], healed: (u64, u64)) {
        let mut history = RouteHistory::default();
        for (millis, step) in steps {
            match step {
                Step::Table(routes) => {
                    history.on_table(Uptime::from_millis(*millis), &table(routes))
                }
                Step::Loss(slot, decided) => history.on_loss(*slot, Uptime::from_millis(*decided)),
            }
        }
        let counts: Vec<_> = history.changes.values().copied().collect();
        assert_eq!(counts, changes);
        let sum = u64::try_from(history.healed.sum().as_millis()).unwrap();
        assert_eq!((history.healed.count(), sum), healed);
    }

    #[test]
    fn each_change_of_an_installed_route_is_counted() {
        let steps = [
            (0, Step::Table(&[(7, A, true), (8, A, true)][..])),
            (1, Step::Table(&[(7, A, true), (8, B, true)])),
            (2, Step::Table(&[(7, A, false), (8, B, true)])),
            (3, Step::Table(&[(7, A, false), (8, B, true)])),
            (4, Step::Table(&[(7, B, true), (8, B, true)])),
        ];
        check(&steps, [3, 1, 1], (0, 0));
    }

    #[test]
    fn a_loss_is_healed_when_the_last_route_has_moved() {
        let steps = [
            (
                0,
                Step::Table(&[(7, A, true), (8, A, true), (9, B, true)][..]),
            ),
            (2_300, Step::Loss(A, 2_000)),
            (
                2_500,
                Step::Table(&[(7, B, true), (8, A, true), (9, B, true)]),
            ),
            (2_750, Step::Table(&[(7, B, true), (9, B, true)])),
            (
                3_000,
                Step::Table(&[(7, B, true), (8, B, true), (9, B, true)]),
            ),
        ];
        check(&steps, [4, 1, 1], (1, 1_000));
    }

    #[test]
    fn routes_that_moved_between_the_verdict_and_the_exit_of_openvpn_count() {
        let steps = [
            (0, Step::Table(&[(7, A, true), (8, A, true)][..])),
            (2_250, Step::Table(&[(7, B, true)])),
            (2_500, Step::Table(&[(7, B, true), (8, B, true)])),
            (3_000, Step::Loss(A, 2_000)),
        ];
        check(&steps, [3, 1, 1], (1, 500));
    }

    #[test]
    fn a_dead_node_itself_is_not_waited_for_longer_than_a_minute() {
        let lost = (1_000, Step::Loss(A, 1_000));
        let routes = (0, Step::Table(&[(7, A, true), (8, A, true)][..]));
        let moved = || (1_500, Step::Table(&[(8, B, true)][..]));
        check(&[routes, lost, moved()], [2, 1, 1], (0, 0));
        let lost = (1_000, Step::Loss(A, 1_000));
        let routes = (0, Step::Table(&[(7, A, true), (8, A, true)][..]));
        let later = (61_000, Step::Table(&[(8, B, true)][..]));
        check(&[routes, lost, moved(), later], [2, 1, 1], (1, 500));
    }

    #[test]
    fn a_lost_tunnel_that_served_nobody_heals_nothing() {
        let steps = [
            (0, Step::Table(&[(7, B, true)][..])),
            (1_000, Step::Loss(A, 1_000)),
            (90_000, Step::Table(&[(7, B, true)])),
        ];
        check(&steps, [1, 0, 0], (0, 0));
    }
}
