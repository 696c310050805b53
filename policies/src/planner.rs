//! Decides which tunnels to open and close.
//!
//! Looks at one complete picture after another and remembers only what pictures cannot show: the
//! traffic since the last refresh, the closing under way, when what may be done next. The rules and
//! their formulas are in `docs/POLICY.md`.

mod assess;
mod dial;
mod drain;
mod picture;

use crate::{
    names::{Prefix, Role, Slot},
    orders::{CloseReason, Order},
    parameters::Parameters,
    rng::Rng,
    units::Uptime,
    usage::{Floor, ProbeFrames, Usage},
    world::{Phase, World},
};
use assess::{Assessment, Shields};
use dial::{Allowance, Dialling};
use drain::{Closing, Step};
use picture::Picture;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// One order together with the terms it was decided by.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What shall be done.
    pub order: Order,
    /// The terms, as `name=value unit`, for people.
    pub terms: String,
}

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
}

/// What a planner is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannerSettings {
    /// The network's parameters, lowered where the node's configuration says so.
    pub parameters: Parameters,
    /// Peers that are always kept.
    pub pinned: BTreeSet<Prefix>,
    /// Chance of this run.
    pub seed: u64,
}

/// A node nobody ever reached keeps so many dialled tunnels.
const UNREACHED_LIMIT: usize = 2;
/// So many refreshes pass before a node that nobody reached takes that for lasting.
const UNREACHED_GRACE: u32 = 2;
/// A tunnel whose closing was given up is left alone for so many refreshes.
const GIVEN_UP_REFRESHES: u32 = 4;
/// A peer whose tunnel was closed as unused is passed over for so many refreshes.
const PASSED_OVER_REFRESHES: u32 = 2;
/// Without traffic: so many refreshes without a planned closing, then one tunnel is rotated. Also the
/// longest wait between two closings decided by nodes served alone.
const ROTATE_AFTER: u32 = 12;
/// Above its limit a node closes one tunnel per this span.
const OVER_LIMIT_PACE: Duration = Duration::from_secs(30);
/// Verdicts are made anew this often.
const VERDICT_PACE: Duration = Duration::from_secs(5);

/// Decides for one node.
#[derive(Clone, Debug)]
pub struct Planner {
    me: Prefix,
    settings: PlannerSettings,
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
    dialling: Dialling,
    /// Refreshes since the last planned closing.
    refreshes: u32,
    /// Refreshes between two closings that nodes served decide alone.
    patience: u32,
    closed_connecting: BTreeMap<Slot, Uptime>,
}

impl Planner {
    /// A planner without history.
    pub fn new(me: Prefix, settings: PlannerSettings) -> Self {
        let mut rng = Rng::new(settings.seed);
        let salt = rng.bits();
        Self {
            me,
            settings,
            rng,
            began: None,
            next_refresh: Uptime::default(),
            next_over_limit: Uptime::default(),
            next_verdicts: Uptime::default(),
            usage: BTreeMap::new(),
            closing: None,
            given_up: BTreeMap::new(),
            unused_before: BTreeSet::new(),
            dialling: Dialling::new(salt),
            refreshes: 0,
            patience: 1,
            closed_connecting: BTreeMap::new(),
        }
    }

    /// Replaces the network's parameters from the next look on.
    pub fn set_parameters(&mut self, parameters: Parameters) {
        self.settings.parameters = parameters;
    }

    /// Looks at the world; `was_reached`: some peer got through to our servers in this run.
    ///
    /// To be called with each reading of the links, twice a second.
    pub fn look(&mut self, world: &World, was_reached: bool) -> Plan {
        let picture = Picture::of(world, self.me);
        let now = picture.at;
        let began = self.begin(now);
        self.count(world, &picture);
        let mut plan = Plan::default();
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
        let allowance = Allowance { wanted: limit, one_more: limit == self.wanted(), began };
        plan.decisions.extend(self.dialling.dial(&picture, &self.settings.pinned, allowance, &mut self.rng));
        if self.next_verdicts <= now || !plan.decisions.is_empty() {
            self.next_verdicts = now + VERDICT_PACE;
            let all = self.assess(&picture);
            plan.verdicts = Some(self.verdicts(&picture, &all, limit, progress.as_deref()));
        }
        plan
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

    fn wanted(&self) -> usize {
        usize::from(self.settings.parameters.tunnels_to_dial)
    }

    /// Nodes behind closed gateways would fill everybody's servers; while nobody can tell yet who is
    /// one, all dial what they want, so that a network that starts together is whole at once.
    fn limit(&self, began: Uptime, now: Uptime, was_reached: bool) -> usize {
        let grace = self.settings.parameters.refresh.saturating_mul(UNREACHED_GRACE);
        let unreached = !was_reached && now.since(began) >= grace;
        if unreached { self.wanted().min(UNREACHED_LIMIT) } else { self.wanted() }
    }

    /// Feeds each tunnel's counters to its usage; a tunnel made anew begins anew.
    fn count(&mut self, world: &World, picture: &Picture<'_>) {
        let floor = Floor::of(&self.settings.parameters, picture.known.len().saturating_add(1));
        let frames: BTreeMap<_, _> =
            world.probes.iter().map(|probe| (probe.slot, ProbeFrames::from(probe))).collect();
        let lost = self.usage.keys().any(|slot| {
            let ours = self.closing.as_ref().is_some_and(|closing| closing.slot == *slot);
            slot.role() == Role::Dialled && !ours && !picture.tunnels.contains_key(slot)
        });
        if lost {
            self.patience = 1;
        }
        self.usage.retain(|slot, (peer, up_since, _)| {
            picture
                .tunnels
                .get(slot)
                .is_some_and(|link| link.tunnel.peer == *peer && link.tunnel.up_since == *up_since)
        });
        for (slot, link) in &picture.tunnels {
            let probes = frames.get(slot).copied().unwrap_or_default();
            let begin =
                || (link.tunnel.peer, link.tunnel.up_since, Usage::new(link.counters, probes, picture.at));
            let (_, _, usage) = self.usage.entry(*slot).or_insert_with(begin);
            usage.read(link.counters, probes, floor, picture.at);
        }
        self.given_up.retain(|_, until| *until > picture.at);
        self.closed_connecting.retain(|slot, _| picture.tunnels.contains_key(slot));
    }

    /// The closing under way; a drain that somebody else began is taken over.
    fn carry_on(&mut self, picture: &Picture<'_>, plan: &mut Plan, progress: &mut Option<String>) {
        if self.closing.is_none() {
            let draining = picture.dialled().find(|link| link.tunnel.phase == Phase::Draining);
            self.closing = draining.map(|link| {
                Closing::begin(link.tunnel.slot, link.tunnel.peer, CloseReason::Operator, picture)
            });
        }
        let Some(mut closing) = self.closing.take() else { return };
        let usage = self.usage.get(&closing.slot).map(|(_, _, usage)| usage);
        match closing.step(picture, usage, &self.settings.parameters) {
            Step::Gone => return,
            Step::GivenUp => {
                let rest = self.settings.parameters.refresh.saturating_mul(GIVEN_UP_REFRESHES);
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
        let doubles: Vec<_> = picture.dialled().filter(|link| doubled(link.tunnel.peer)).collect();
        for link in doubles {
            let (slot, peer) = (link.tunnel.slot, link.tunnel.peer);
            let reason = CloseReason::Duplicate;
            let terms = format!("peer={peer} dialled us too, ours={}", self.me);
            match link.tunnel.phase {
                Phase::Connecting if !self.closed_connecting.contains_key(&slot) => {
                    self.closed_connecting.insert(slot, picture.at);
                    plan.decisions.push(Decision { order: Order::Close { slot, reason }, terms });
                }
                Phase::Up => {
                    let given_up = self.given_up.contains_key(&slot);
                    if self.closing.is_none() && picture.told && !given_up && picture.only_way(slot).is_none()
                    {
                        self.close(picture, slot, peer, reason, terms, plan);
                    }
                }
                Phase::Connecting | Phase::Draining | Phase::Closing => {}
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
        plan.decisions.push(Decision { order: Order::Drain { slot, reason }, terms });
    }

    fn assess(&self, picture: &Picture<'_>) -> Vec<Assessment> {
        let usage: BTreeMap<_, _> = self.usage.iter().map(|(slot, (.., usage))| (*slot, usage)).collect();
        let shields = Shields {
            parameters: &self.settings.parameters,
            pinned: &self.settings.pinned,
            given_up: &self.given_up,
        };
        assess::assess(picture, &usage, &shields)
    }

    /// Closes the least used tunnel while there are more than allowed.
    fn over_limit(&mut self, picture: &Picture<'_>, all: &[Assessment], limit: usize, plan: &mut Plan) {
        let dialled = picture.dialled().count();
        if self.closing.is_some() || dialled <= limit || self.next_over_limit > picture.at {
            return;
        }
        if let Some(one) = all.iter().filter(|one| one.spared.is_none()).min_by_key(|one| one.rank()) {
            let terms = format!("dialled={dialled} limit={limit} {one}");
            self.next_over_limit = picture.at + OVER_LIMIT_PACE.min(self.settings.parameters.refresh);
            self.close(picture, one.slot, one.peer, CloseReason::OverLimit, terms, plan);
        }
    }

    /// Once a refresh: closes at most one tunnel, and begins a new count.
    fn refresh(&mut self, picture: &Picture<'_>, all: &[Assessment], limit: usize, plan: &mut Plan) {
        let now = picture.at;
        let refresh = self.settings.parameters.refresh;
        self.next_refresh = now + self.rng.span(refresh / 10 * 9, (refresh / 10).saturating_mul(11));
        self.refreshes = self.refreshes.saturating_add(1);
        if self.closing.is_none() && picture.dialled().count() >= limit && self.dialling.has_distant(picture)
        {
            self.close_unused(picture, all, plan);
        }
        let unused = all.iter().filter(|one| one.slot.role() == Role::Dialled && one.unused());
        self.unused_before = unused.map(|one| (one.slot, one.peer)).collect();
        self.usage.values_mut().for_each(|(.., usage)| usage.look(now));
    }

    fn close_unused(&mut self, picture: &Picture<'_>, all: &[Assessment], plan: &mut Plan) {
        let open: Vec<_> = all.iter().filter(|one| one.spared.is_none() && one.share.is_some()).collect();
        let traffic = all.iter().any(|one| one.rate >= assess::NOISE);
        let lasting = |one: &&&Assessment| one.unused() && self.unused_before.contains(&(one.slot, one.peer));
        let patient = traffic || self.refreshes >= self.patience;
        let least = open.iter().filter(lasting).min_by_key(|one| one.rank()).filter(|_| patient);
        let chosen = match least {
            Some(one) => Some((*one, CloseReason::Unused)),
            None if !traffic && self.refreshes >= ROTATE_AFTER => {
                let which = self.rng.below(u64::try_from(open.len()).unwrap_or(0));
                let one = usize::try_from(which).ok().and_then(|which| open.get(which).copied());
                one.map(|one| (one, CloseReason::Rotation))
            }
            None => None,
        };
        let Some((one, reason)) = chosen else { return };
        if !traffic {
            self.patience = self.patience.saturating_mul(2).min(ROTATE_AFTER);
        }
        let terms = format!("{one} refreshes={}", self.refreshes);
        self.refreshes = 0;
        let passed_over = self.settings.parameters.refresh.saturating_mul(PASSED_OVER_REFRESHES);
        self.dialling.pass_over(one.peer, picture.at + passed_over);
        self.close(picture, one.slot, one.peer, reason, terms, plan);
    }

    fn verdicts(
        &self,
        picture: &Picture<'_>,
        all: &[Assessment],
        limit: usize,
        progress: Option<&str>,
    ) -> Vec<Verdict> {
        let dialled = picture.dialled().count();
        let text = |one: &Assessment| {
            if let Some(closing) = self.closing.as_ref().filter(|closing| closing.slot == one.slot) {
                let progress = progress.unwrap_or("drain ordered");
                return format!("closing, reason={}: {progress}", closing.reason);
            }
            match &one.spared {
                Some(spared) => format!("kept: {spared}; {one}"),
                None if dialled < limit => {
                    format!("kept: {dialled} of {limit} dialled, none is closed below that; {one}")
                }
                None if one.unused() => format!("unused, may be closed at the next refresh; {one}"),
                None => format!("kept: carries its share; {one}"),
            }
        };
        all.iter().map(|one| Verdict { slot: one.slot, text: text(one) }).collect()
    }
}

#[cfg(test)]
mod tests;
