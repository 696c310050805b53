//! Decides which tunnels to open and close.
//!
//! The planner is given one complete observation after another. It remembers only what observations cannot show: the
//! traffic since the last refresh, the present closing, and when it may act next. `docs/POLICY.md` has the rules
//! and their formulas.

mod assessment;
mod closing;
mod closings;
mod dialling;
mod history;
mod lan;
mod loss_ratio;
mod per_mille;
mod refresh;
mod requests;
mod snapshot;
mod spare_reason;
mod transport;
mod verdicts;

use crate::{
    gain::{self, Rule},
    link_cost::LinkCost,
    names::{Prefix, Slot},
    observation::{LinkReading, Observation},
    orders::{Decision, OpenReason, Order},
    parameters::Parameters,
    rng::Rng,
    route_view::RouteView,
    units::Uptime,
    usage::Usage,
};
use assessment::{Assessment, assess};
use closing::Closing;
use dialling::{Allowance, Dialling};
use history::TrackedTunnel;
use requests::Requests;
pub use requests::{MAX_REQUESTS, Request};
use snapshot::{Snapshot, ViewSettings};
use spare_reason::SpareConditions;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The planner's opinion of one tunnel.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The slot of the tunnel.
    pub slot: Slot,
    /// One line: whether the tunnel is kept or closing, and by which rule.
    pub text: String,
}

/// The result of planning once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// New orders. Each is given once, and repeated only after seconds without effect.
    pub decisions: Vec<Decision>,
    /// One verdict per tunnel, in the order of slots; renewed with each order and every five seconds.
    pub verdicts: Option<Vec<Verdict>>,
    /// Tunnels that drain for a restart, and draining accepted ones, and whether each has become idle. The machine that ordered
    /// the drain closes them.
    pub draining: BTreeMap<Slot, bool>,
}

/// The settings that a planner starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannerSettings {
    /// The network's parameters, lowered by the node's configuration.
    pub parameters: Parameters,
    /// Peers whose tunnels are always kept.
    pub pinned: BTreeSet<Prefix>,
    /// The rule by which tunnels are chosen.
    pub rule: Rule,
    /// The seed of all random choices.
    pub seed: u64,
}

/// Number of dialled tunnels of a node that nobody has reached.
const UNREACHED_LIMIT: usize = 2;
/// Number of refreshes before a node that nobody has reached applies [`UNREACHED_LIMIT`].
const UNREACHED_GRACE: u32 = 2;
/// Interval between two renewals of the verdicts.
const VERDICT_INTERVAL: Duration = Duration::from_secs(5);

/// Plans for one node.
#[derive(Clone, Debug)]
pub struct Planner {
    me: Prefix,
    settings: PlannerSettings,
    view_settings: ViewSettings,
    /// Plans contain verdicts.
    has_verdicts: bool,
    rng: Rng,
    started_at: Option<Uptime>,
    next_refresh: Uptime,
    /// The earliest moment for the next closing above the limit.
    next_over_limit: Uptime,
    next_verdicts: Uptime,
    tracked: BTreeMap<Slot, TrackedTunnel>,
    closing: Option<Closing>,
    /// Tunnels whose closing was given up, and until when they are spared.
    given_up: BTreeMap<(Slot, Prefix), Uptime>,
    /// Tunnels that were significantly unused at the last refresh.
    unused_before: BTreeSet<(Slot, Prefix)>,
    /// Tunnels that were dialled for their gain; all others were dialled at random.
    chosen: BTreeSet<(Slot, Prefix)>,
    /// Dialled tunnels that came by hole punching.
    punched: BTreeSet<(Slot, Prefix)>,
    /// The seed that picks which of the tunnels dialled at random are protected from replacement.
    salt: u64,
    dialling: Dialling,
    /// Refreshes since the last planned closing.
    refreshes_since_close: u32,
    /// Without traffic: the number of refreshes to wait between two planned closings.
    closing_interval: u32,
    /// Tunnels that were closed as duplicates while they connected.
    closed_connecting: BTreeMap<Slot, Uptime>,
    /// When tunnels on a slot were closed by plan lately.
    closings: BTreeMap<Slot, Vec<Uptime>>,
    /// What an operator asks for.
    requests: Requests,
    lan_history: lan::LanHistory,
}

impl Planner {
    /// A planner without history.
    pub fn new(me: Prefix, settings: PlannerSettings) -> Self {
        let mut rng = Rng::new(settings.seed);
        let salt = rng.bits();
        Self {
            me,
            settings,
            view_settings: ViewSettings {
                link_cost: LinkCost::default(),
                nodes_per_entry: 1,
            },
            has_verdicts: true,
            rng,
            started_at: None,
            next_refresh: Uptime::default(),
            next_over_limit: Uptime::default(),
            next_verdicts: Uptime::default(),
            tracked: BTreeMap::new(),
            closing: None,
            given_up: BTreeMap::new(),
            unused_before: BTreeSet::new(),
            chosen: BTreeSet::new(),
            punched: BTreeSet::new(),
            salt,
            dialling: Dialling::new(salt),
            refreshes_since_close: 0,
            closing_interval: 1,
            closed_connecting: BTreeMap::new(),
            closings: BTreeMap::new(),
            requests: Requests::default(),
            lan_history: lan::LanHistory::default(),
        }
    }

    /// Replaces the network's parameters from the next plan on.
    pub fn set_parameters(&mut self, parameters: Parameters) {
        self.settings.parameters = parameters;
    }

    /// Replaces the rule by which tunnels are chosen, and the pinned peers, from the next plan on.
    pub fn set_choice(&mut self, rule: Rule, pinned: BTreeSet<Prefix>) {
        self.settings.rule = rule;
        self.settings.pinned = pinned;
    }

    /// Rates links by another cost than babeld's from the next plan on; for simulators.
    pub fn set_link_cost(&mut self, link_cost: LinkCost) {
        self.view_settings.link_cost = link_cost;
    }

    /// Takes tables for samples, each node of which stands for this number of nodes; for simulators.
    pub fn set_sample(&mut self, nodes_per_entry: u32) {
        self.view_settings.nodes_per_entry = nodes_per_entry;
    }

    /// Makes no verdicts from the next plan on; for simulators, where nobody reads them.
    pub fn disable_verdicts(&mut self) {
        self.has_verdicts = false;
    }

    /// Decides what to do now. `was_reached` is true once some peer has connected to this node's servers in this run.
    ///
    /// It is to be called with each reading of the links, twice a second.
    pub fn plan(&mut self, observation: &Observation, was_reached: bool) -> Plan {
        let max_age = self.refreshes(gain::VALID_REFRESHES);
        let snapshot = Snapshot::new(observation, self.me, self.view_settings, max_age);
        let now = snapshot.at;
        let started_at = self.start(now);
        self.track(observation, &snapshot);
        let mut plan = Plan {
            draining: self.drains_of_others(&snapshot),
            ..Plan::default()
        };
        let limit = self.limit(started_at, now, was_reached);
        let mut progress = None;
        self.continue_closing(&snapshot, &mut plan, &mut progress);
        self.carry_out_requests(&snapshot, &mut plan);
        self.close_duplicate(&snapshot, &mut plan);
        self.close_around_lan(&snapshot, &mut plan);
        self.leave_tcp(&snapshot, &mut plan);
        let is_refresh = self.next_refresh <= now;
        let is_over_limit = snapshot.dialled().count() > limit && self.next_over_limit <= now;
        if is_refresh || is_over_limit {
            let assessments = self.assess(&snapshot);
            self.close_over_limit(&snapshot, &assessments, limit, &mut plan);
            if is_refresh {
                self.refresh(&snapshot, &assessments, limit, &mut plan);
            }
        }
        let random = self.settings.rule.random_slots(limit);
        let bring_back = self.lan_history.to_bring_back(&snapshot, self.me, limit);
        let allowance = Allowance {
            wanted: limit,
            allows_one_more: limit == self.wanted(),
            started_at,
            random: random.saturating_sub(self.by_chance(&snapshot).count()),
            punched: self.wanted(),
            bring_back: &bring_back,
        };
        let pinned = self.pinned();
        let dials = self
            .dialling
            .dial(&snapshot, &pinned, allowance, &mut self.rng);
        self.note_reasons(&dials);
        plan.decisions.extend(dials);
        if self.has_verdicts && (self.next_verdicts <= now || !plan.decisions.is_empty()) {
            self.next_verdicts = now + VERDICT_INTERVAL;
            let assessments = self.assess(&snapshot);
            let verdicts = self.verdicts(&snapshot, &assessments, limit, progress.as_deref());
            plan.verdicts = Some(verdicts);
        }
        plan
    }

    /// This node's route view, with the metrics of at most `max_distances` nodes.
    pub fn route_view(&self, observation: &Observation, max_distances: usize) -> RouteView {
        let max_accepted = usize::from(self.settings.parameters.max_accepted);
        RouteView::new(observation, self.me, max_accepted, max_distances)
    }

    /// The moment at which tunnels are compared next.
    pub fn next_refresh(&self) -> Uptime {
        self.next_refresh
    }

    /// The span of that number of refreshes.
    fn refreshes(&self, count: u32) -> Duration {
        self.settings.parameters.refresh.saturating_mul(count)
    }

    /// The moment of the first plan, which also sets the first refresh.
    fn start(&mut self, now: Uptime) -> Uptime {
        if let Some(started_at) = self.started_at {
            return started_at;
        }
        self.started_at = Some(now);
        // Nodes that start together must not refresh together.
        let (earliest, latest) = (self.refreshes(1), self.refreshes(2));
        self.next_refresh = now + self.rng.span(earliest, latest);
        now
    }

    fn wanted(&self) -> usize {
        usize::from(self.settings.parameters.tunnels_to_dial)
    }

    /// The number of dialled tunnels now allowed.
    ///
    /// Nodes behind closed gateways would fill everybody's servers, so a node that nobody reaches dials few; its tunnels to
    /// others of its kind, which came by hole punching, do not count. While no node can know yet whether it is one, all dial
    /// what they want, so that a network that starts together is whole at once.
    fn limit(&self, started_at: Uptime, now: Uptime, was_reached: bool) -> usize {
        let grace = self.refreshes(UNREACHED_GRACE);
        let is_unreached = !was_reached && now.since(started_at) >= grace;
        if is_unreached {
            let limit = UNREACHED_LIMIT.saturating_add(self.punched.len());
            self.wanted().min(limit)
        } else {
            self.wanted()
        }
    }

    fn usage(&self, slot: Slot) -> Option<&Usage> {
        self.tracked.get(&slot).map(|tracked| &tracked.usage)
    }

    fn is_chosen(&self, link: &LinkReading) -> bool {
        self.chosen.contains(&(link.tunnel.slot, link.tunnel.peer))
    }

    fn note_reasons(&mut self, dials: &[Decision]) {
        for dial in dials {
            let Order::Open {
                slot, peer, reason, ..
            } = dial.order
            else {
                continue;
            };
            match reason {
                OpenReason::Gain => self.chosen.insert((slot, peer)),
                OpenReason::HolePunched => self.punched.insert((slot, peer)),
                OpenReason::Bootstrap
                | OpenReason::Pinned
                | OpenReason::OnLan
                | OpenReason::Operator
                | OpenReason::Fill
                | OpenReason::MissingFromTable => false,
            };
        }
    }

    fn assess(&self, snapshot: &Snapshot<'_>) -> Vec<Assessment> {
        let tracked = self.tracked.iter();
        let usage = tracked.map(|(slot, tracked)| (*slot, &tracked.usage));
        let conditions = SpareConditions {
            parameters: &self.settings.parameters,
            pinned: &self.settings.pinned,
            pins: &self.requests.pins,
            given_up: &self.given_up,
            closings: &self.closings,
            random: &self.random(snapshot),
            on_lan: &self.needed_on_lan(snapshot),
            refreshes_since_close: self.refreshes_since_close,
        };
        assess(snapshot, &usage.collect(), &conditions)
    }
}

#[cfg(test)]
mod tests;
