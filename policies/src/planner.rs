//! Decides which tunnels to open and close.
//!
//! Looks at one complete picture after another and remembers only what pictures cannot show: the
//! traffic since the last refresh, the closing under way, when what may be done next. The rules and
//! their formulas are in `docs/POLICY.md`.

mod assess;
mod dial;
mod drain;
mod losses;
mod picture;
mod refresh;

use crate::{
    gain::{self, Rule},
    link_cost::LinkCost,
    names::{Prefix, Role, Slot},
    observation::{LinkReading, Observation, Phase},
    orders::{CloseReason, Decision, OpenReason, Order},
    parameters::Parameters,
    rng::Rng,
    route_view::RouteView,
    units::Uptime,
    usage::{Floor, ProbeFrames, Usage},
};
use assess::{Assessment, Shields};
use dial::{Allowance, Dialling};
use drain::{Closing, Step};
use picture::{Lens, Picture};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What the planner thinks of one tunnel.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The tunnel.
    pub slot: Slot,
    /// One line: kept or closing, and by which rule.
    pub text: String,
}

/// What one look gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// New orders; each is given once, and again only after seconds without effect.
    pub decisions: Vec<Decision>,
    /// One a tunnel, in order of slots; made anew with each order and every five seconds.
    pub verdicts: Option<Vec<Verdict>>,
    /// Accepted tunnels that drain, and whether they may end; who drains them decides.
    pub draining: BTreeMap<Slot, bool>,
}

/// What a planner is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannerSettings {
    /// The network's parameters, lowered where the node's configuration says so.
    pub parameters: Parameters,
    /// Peers that are always kept.
    pub pinned: BTreeSet<Prefix>,
    /// By what tunnels are chosen.
    pub rule: Rule,
    /// Chance of this run.
    pub seed: u64,
}

/// A node nobody ever reached keeps so many dialled tunnels.
const UNREACHED_LIMIT: usize = 2;
/// So many refreshes pass before a node that nobody reached takes that for lasting.
const UNREACHED_GRACE: u32 = 2;
/// A tunnel whose closing was given up is left alone for so many refreshes.
const GIVEN_UP_REFRESHES: u32 = 4;
/// No slot's tunnel is closed by plan more than [`assess::MOST_CLOSINGS`] times in so many refreshes: an
/// hour, at the default.
const REST_REFRESHES: u32 = 12;
/// Verdicts are made anew this often.
const VERDICT_PACE: Duration = Duration::from_secs(5);

/// Decides for one node.
#[derive(Clone, Debug)]
pub struct Planner {
    me: Prefix,
    settings: PlannerSettings,
    lens: Lens,
    /// Whether verdicts are made.
    explains: bool,
    rng: Rng,
    began: Option<Uptime>,
    next_refresh: Uptime,
    next_over_limit: Uptime,
    next_verdicts: Uptime,
    usage: BTreeMap<Slot, (Prefix, Option<Uptime>, Usage)>,
    closing: Option<Closing>,
    given_up: BTreeMap<Slot, Uptime>,
    /// Tunnels that were significantly unused at the last refresh.
    unused_before: BTreeSet<(Slot, Prefix)>,
    /// Tunnels that were dialled for what they gain; all others came by chance.
    chosen: BTreeSet<(Slot, Prefix)>,
    /// Draws the lots among the others.
    salt: u64,
    dialling: Dialling,
    /// Refreshes since the last planned closing.
    refreshes: u32,
    /// Refreshes between two closings that nodes served decide alone.
    patience: u32,
    closed_connecting: BTreeMap<Slot, Uptime>,
    /// When tunnels on a slot were closed by plan within the last [`REST_REFRESHES`].
    closings: BTreeMap<Slot, Vec<Uptime>>,
}

impl Planner {
    /// A planner without history.
    pub fn new(me: Prefix, settings: PlannerSettings) -> Self {
        let mut rng = Rng::new(settings.seed);
        let salt = rng.bits();
        Self {
            me,
            settings,
            lens: Lens {
                link_cost: LinkCost::default(),
                stands_for: 1,
            },
            explains: true,
            rng,
            began: None,
            next_refresh: Uptime::default(),
            next_over_limit: Uptime::default(),
            next_verdicts: Uptime::default(),
            usage: BTreeMap::new(),
            closing: None,
            given_up: BTreeMap::new(),
            unused_before: BTreeSet::new(),
            chosen: BTreeSet::new(),
            salt,
            dialling: Dialling::new(salt),
            refreshes: 0,
            patience: 1,
            closed_connecting: BTreeMap::new(),
            closings: BTreeMap::new(),
        }
    }

    /// Replaces the network's parameters from the next look on.
    pub fn set_parameters(&mut self, parameters: Parameters) {
        self.settings.parameters = parameters;
    }

    /// Judges links by another cost than babeld's, from the next look on: for simulators.
    pub fn set_link_cost(&mut self, link_cost: LinkCost) {
        self.lens.link_cost = link_cost;
    }

    /// The tables that are looked at are samples: each node in them stands for so many.
    pub fn set_sample(&mut self, stands_for: u32) {
        self.lens.stands_for = stands_for;
    }

    /// Makes no verdicts from the next look on: for simulators, where nobody reads them.
    pub fn set_silent(&mut self) {
        self.explains = false;
    }

    /// Looks at the world; `was_reached`: some peer got through to our servers in this run.
    ///
    /// To be called with each reading of the links, twice a second.
    pub fn plan(&mut self, world: &Observation, was_reached: bool) -> Plan {
        let fresh = self
            .settings
            .parameters
            .refresh
            .saturating_mul(gain::VALID_REFRESHES);
        let picture = Picture::of(world, self.me, self.lens, fresh);
        let now = picture.at;
        let began = self.begin(now);
        self.count(world, &picture);
        let mut plan = Plan {
            draining: self.draining(&picture),
            ..Plan::default()
        };
        let limit = self.limit(began, now, was_reached);
        let mut progress = None;
        self.carry_on(&picture, &mut plan, &mut progress);
        self.duplicates(&picture, &mut plan);
        let refresh = self.next_refresh <= now;
        let over = picture.dialled().count() > limit && self.next_over_limit <= now;
        if refresh || over {
            let all = self.assess(&picture);
            self.over_limit(&picture, &all, limit, &mut plan);
            if refresh {
                self.refresh(&picture, &all, limit, &mut plan);
            }
        }
        let by_chance = self.by_chance(&picture).count();
        let random = self
            .settings
            .rule
            .random_slots(limit)
            .saturating_sub(by_chance);
        let allowance = Allowance {
            wanted: limit,
            one_more: limit == self.wanted(),
            began,
            random,
        };
        let dials = self
            .dialling
            .dial(&picture, &self.settings.pinned, allowance, &mut self.rng);
        self.remember_gains(&dials);
        plan.decisions.extend(dials);
        if self.explains && (self.next_verdicts <= now || !plan.decisions.is_empty()) {
            self.next_verdicts = now + VERDICT_PACE;
            let all = self.assess(&picture);
            plan.verdicts = Some(self.verdicts(&picture, &all, limit, progress.as_deref()));
        }
        plan
    }

    /// What others may know of how this node sees the network: metrics to `most` nodes, room, losses.
    pub fn route_view(&self, world: &Observation, most: usize) -> RouteView {
        RouteView::new(
            world,
            self.me,
            usize::from(self.settings.parameters.max_accepted),
            most,
        )
    }

    /// When tunnels are compared next.
    pub fn next_refresh(&self) -> Uptime {
        self.next_refresh
    }

    fn begin(&mut self, now: Uptime) -> Uptime {
        if let Some(began) = self.began {
            return began;
        }
        self.began = Some(now);
        let refresh = self.settings.parameters.refresh;
        // Nodes that start together must not refresh together.
        self.next_refresh = now + self.rng.span(refresh, refresh.saturating_mul(2));
        now
    }

    fn draining(&self, picture: &Picture<'_>) -> BTreeMap<Slot, bool> {
        let drains = |slot: &Slot, link: &LinkReading| {
            slot.role() == Role::Accepted && link.tunnel.phase.is_draining()
        };
        let drained = |slot: Slot, link: &LinkReading| {
            let usage = self.usage.get(&slot).map(|(_, _, usage)| usage);
            drain::is_drained(
                picture,
                slot,
                link.tunnel.since,
                usage,
                &self.settings.parameters,
            )
        };
        let all = picture
            .tunnels
            .iter()
            .filter(|(slot, link)| drains(slot, link));
        all.map(|(slot, link)| (*slot, drained(*slot, link)))
            .collect()
    }

    fn wanted(&self) -> usize {
        usize::from(self.settings.parameters.tunnels_to_dial)
    }

    /// Nodes behind closed gateways would fill everybody's servers; while nobody can tell yet who is
    /// one, all dial what they want, so that a network that starts together is whole at once.
    fn limit(&self, began: Uptime, now: Uptime, was_reached: bool) -> usize {
        let grace = self
            .settings
            .parameters
            .refresh
            .saturating_mul(UNREACHED_GRACE);
        let unreached = !was_reached && now.since(began) >= grace;
        if unreached {
            self.wanted().min(UNREACHED_LIMIT)
        } else {
            self.wanted()
        }
    }

    /// Feeds each tunnel's counters to its usage; a tunnel made anew begins anew.
    fn count(&mut self, world: &Observation, picture: &Picture<'_>) {
        let floor = Floor::new(
            &self.settings.parameters,
            picture.ways.nodes().len().saturating_add(1),
        );
        let frames: BTreeMap<_, _> = world
            .probes
            .iter()
            .map(|probe| (probe.slot, ProbeFrames::from(probe)))
            .collect();
        self.lost(picture);
        self.usage.retain(|slot, (peer, up_since, _)| {
            picture
                .tunnels
                .get(slot)
                .is_some_and(|link| link.tunnel.peer == *peer && link.tunnel.up_since == *up_since)
        });
        for (slot, link) in &picture.tunnels {
            let probes = frames.get(slot).copied().unwrap_or_default();
            let begin = || {
                (
                    link.tunnel.peer,
                    link.tunnel.up_since,
                    Usage::new(link.counters, probes, picture.at),
                )
            };
            let (_, _, usage) = self.usage.entry(*slot).or_insert_with(begin);
            usage.read(link.counters, probes, floor, picture.at);
        }
        self.chosen.retain(|(slot, peer)| {
            let same = picture
                .tunnels
                .get(slot)
                .is_some_and(|link| link.tunnel.peer == *peer);
            same || self.dialling.is_pending(*peer)
        });
        self.given_up.retain(|_, until| *until > picture.at);
        let rest = self
            .settings
            .parameters
            .refresh
            .saturating_mul(REST_REFRESHES);
        self.closings.retain(|_, moments| {
            moments.retain(|moment| picture.at.since(*moment) < rest);
            !moments.is_empty()
        });
        self.closed_connecting
            .retain(|slot, _| picture.tunnels.contains_key(slot));
    }

    /// Tunnels that ended unasked: a better topology is looked for sooner, and a peer whose tunnel did
    /// not live long is not the next to be dialled.
    fn lost(&mut self, picture: &Picture<'_>) {
        let parameters = &self.settings.parameters;
        let passed_over = picture.at
            + parameters
                .refresh
                .saturating_mul(refresh::PASSED_OVER_REFRESHES);
        for (slot, (peer, up_since, _)) in &self.usage {
            let ours = self
                .closing
                .as_ref()
                .is_some_and(|closing| closing.slot == *slot);
            if slot.role() == Role::Accepted || ours || picture.tunnels.contains_key(slot) {
                continue;
            }
            self.patience = 1;
            if up_since.is_some_and(|since| picture.at.since(since) < parameters.min_age) {
                self.dialling.pass_over(*peer, passed_over);
            }
        }
    }

    /// The closing under way. A drain that another policy began is carried through for that policy's reason.
    fn carry_on(&mut self, picture: &Picture<'_>, plan: &mut Plan, progress: &mut Option<String>) {
        if self.closing.is_none() {
            let mut dialled = picture.dialled();
            self.closing = dialled.find_map(|link| {
                let reason = link.tunnel.phase.drain_reason()?;
                let (slot, peer) = (link.tunnel.slot, link.tunnel.peer);
                Some(Closing::begin(slot, peer, reason, picture))
            });
        }
        let Some(mut closing) = self.closing.take() else {
            return;
        };
        let usage = self.usage.get(&closing.slot).map(|(_, _, usage)| usage);
        match closing.step(picture, usage, &self.settings.parameters) {
            Step::Gone => return,
            Step::GivenUp => {
                let rest = self
                    .settings
                    .parameters
                    .refresh
                    .saturating_mul(GIVEN_UP_REFRESHES);
                self.given_up.insert(closing.slot, picture.at + rest);
                return;
            }
            Step::Wait(text) => *progress = Some(text),
            Step::Order(decision) => {
                *progress = Some(decision.terms.clone());
                plan.decisions.push(decision);
            }
        }
        self.closing = Some(closing);
    }

    /// Of two nodes that dialled each other the one with the lower prefix closes its own.
    fn duplicates(&mut self, picture: &Picture<'_>, plan: &mut Plan) {
        let accepted: BTreeSet<_> = picture
            .tunnels
            .values()
            .filter(|link| link.tunnel.role() == Role::Accepted && link.tunnel.phase == Phase::Up)
            .map(|link| link.tunnel.peer)
            .collect();
        let doubled = |peer: Prefix| self.me < peer && accepted.contains(&peer);
        let doubles: Vec<_> = picture
            .dialled()
            .filter(|link| doubled(link.tunnel.peer))
            .collect();
        for link in doubles {
            let (slot, peer) = (link.tunnel.slot, link.tunnel.peer);
            let reason = CloseReason::Duplicate;
            let terms = format!("peer={peer} dialled us too, ours={}", self.me);
            match link.tunnel.phase {
                Phase::Connecting if !self.closed_connecting.contains_key(&slot) => {
                    self.closed_connecting.insert(slot, picture.at);
                    plan.decisions.push(Decision {
                        order: Order::Close { slot, reason },
                        terms,
                    });
                }
                Phase::Up => {
                    let given_up = self.given_up.contains_key(&slot);
                    if self.closing.is_none()
                        && picture.told
                        && !given_up
                        && picture.only_route(slot).is_none()
                    {
                        self.close(picture, slot, peer, reason, terms, plan);
                    }
                }
                Phase::Connecting | Phase::Draining { .. } | Phase::Closing => {}
            }
        }
    }

    fn close(
        &mut self,
        picture: &Picture<'_>,
        slot: Slot,
        peer: Prefix,
        reason: CloseReason,
        terms: String,
        plan: &mut Plan,
    ) {
        self.closing = Some(Closing::begin(slot, peer, reason, picture));
        self.closings.entry(slot).or_default().push(picture.at);
        plan.decisions.push(Decision {
            order: Order::Drain { slot, reason },
            terms,
        });
    }

    fn is_chosen(&self, link: &LinkReading) -> bool {
        self.chosen.contains(&(link.tunnel.slot, link.tunnel.peer))
    }

    fn remember_gains(&mut self, dials: &[Decision]) {
        for dial in dials {
            if let Order::Open {
                slot,
                peer,
                reason: OpenReason::Gain,
                endpoints: _,
            } = dial.order
            {
                self.chosen.insert((slot, peer));
            }
        }
    }

    fn assess(&self, picture: &Picture<'_>) -> Vec<Assessment> {
        let usage: BTreeMap<_, _> = self
            .usage
            .iter()
            .map(|(slot, (.., usage))| (*slot, usage))
            .collect();
        let shields = Shields {
            parameters: &self.settings.parameters,
            pinned: &self.settings.pinned,
            given_up: &self.given_up,
            closings: &self.closings,
            random: &self.random(picture),
            rest: self.refreshes,
        };
        assess::assess(picture, &usage, &shields)
    }
}

#[cfg(test)]
mod tests;
