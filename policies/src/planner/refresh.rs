//! Chooses which tunnel to close: once a refresh, or when there are more than allowed.

use super::{
    Plan, Planner,
    assessment::{Assessment, NOISE},
    snapshot::Snapshot,
};
use crate::{
    gain::{Gain, Rule},
    names::{Prefix, Role, Slot},
    observation::{Candidate, LinkReading, Phase},
    orders::CloseReason,
    rng::Rng,
};
use std::{collections::BTreeSet, time::Duration};

/// Number of refreshes for which a peer is passed over whose tunnel was closed as unused or replaced, or did not live
/// long.
pub(super) const PASSED_OVER_REFRESHES: u32 = 2;
/// The same for a peer whose tunnel lost too much: as long as the operator of the path may take to repair it.
const LOSSY_PASSED_OVER_REFRESHES: u32 = 12;
/// Without traffic one tunnel is rotated after this number of refreshes without a planned closing. It is also
/// the upper limit of `closing_interval`.
const ROTATION_REFRESHES: u32 = 12;
/// Interval in which a node above its limit closes one tunnel.
const OVER_LIMIT_INTERVAL: Duration = Duration::from_secs(30);

/// A tunnel to close.
struct Choice<'a> {
    tunnel: &'a Assessment,
    reason: CloseReason,
    /// What speaks for closing it, beside the terms of the tunnel itself.
    terms: String,
}

impl Planner {
    /// Closes the least used tunnel if there are more than allowed.
    pub(super) fn close_over_limit(
        &mut self,
        snapshot: &Snapshot<'_>,
        assessments: &[Assessment],
        limit: usize,
        plan: &mut Plan,
    ) {
        // A tunnel that may never come up takes nobody's place.
        let connected = |link: &&LinkReading| link.tunnel.phase != Phase::Connecting;
        let dialled = snapshot.dialled().filter(connected).count();
        let is_due = self.next_over_limit <= snapshot.at;
        if !self.can_begin_closing(snapshot) || dialled <= limit || !is_due {
            return;
        }
        let closable = assessments.iter().filter(|tunnel| tunnel.spared.is_none());
        let Some(tunnel) = closable.min_by_key(|tunnel| tunnel.rank()) else {
            return;
        };
        let interval = OVER_LIMIT_INTERVAL.min(self.settings.parameters.refresh);
        self.next_over_limit = snapshot.at + interval;
        let terms = format!("dialled={dialled} limit={limit} {tunnel}");
        let reason = CloseReason::OverLimit;
        self.begin_closing(snapshot, (tunnel.slot, tunnel.peer), reason, terms, plan);
    }

    /// Closes at most one tunnel, and starts a new count of the traffic; once a refresh.
    pub(super) fn refresh(
        &mut self,
        snapshot: &Snapshot<'_>,
        assessments: &[Assessment],
        limit: usize,
        plan: &mut Plan,
    ) {
        let now = snapshot.at;
        let tenth = self.settings.parameters.refresh / 10;
        self.next_refresh = now + self.rng.span(tenth * 9, tenth.saturating_mul(11));
        self.refreshes_since_close = self.refreshes_since_close.saturating_add(1);
        if self.can_begin_closing(snapshot)
            && snapshot.dialled().count() >= limit
            && self.dialling.has_distant_candidate(snapshot)
        {
            self.close_one(snapshot, assessments, plan);
        }
        let dialled = assessments
            .iter()
            .filter(|tunnel| tunnel.slot.role() == Role::Dialled);
        let unused = dialled.filter(|tunnel| tunnel.is_unused());
        self.unused_before = unused.map(|tunnel| (tunnel.slot, tunnel.peer)).collect();
        self.tracked
            .values_mut()
            .for_each(|tracked| tracked.usage.start_count(now));
    }

    fn close_one(&mut self, snapshot: &Snapshot<'_>, assessments: &[Assessment], plan: &mut Plan) {
        let closable: Vec<_> = assessments
            .iter()
            .filter(|tunnel| tunnel.spared.is_none() && tunnel.share.is_some())
            .collect();
        let has_traffic = assessments.iter().any(|tunnel| tunnel.rate >= NOISE);
        if self.settings.rule == Rule::Random {
            if let Some(choice) = self.rotate(&closable) {
                self.close_chosen(snapshot, choice, plan);
            }
            return;
        }
        let replaced = replaced(&closable, self.dialling.best_gain(snapshot));
        // If round trips are known and nothing else counts, gains decide alone.
        let only_gains = !has_traffic && snapshot.measurements.has_rtts();
        let choice = replaced.or_else(|| {
            let unused = self.unused(&closable, has_traffic);
            unused.filter(|_| !only_gains)
        });
        let Some(choice) = choice else {
            return;
        };
        if !has_traffic && choice.reason != CloseReason::Replaced {
            let doubled = self.closing_interval.saturating_mul(2);
            self.closing_interval = doubled.min(ROTATION_REFRESHES);
        }
        self.close_chosen(snapshot, choice, plan);
    }

    fn close_chosen(&mut self, snapshot: &Snapshot<'_>, choice: Choice<'_>, plan: &mut Plan) {
        let Choice {
            tunnel,
            reason,
            terms,
        } = choice;
        let terms = format!("{terms}{tunnel} refreshes={}", self.refreshes_since_close);
        self.refreshes_since_close = 0;
        let refreshes = if tunnel.is_lossy() {
            LOSSY_PASSED_OVER_REFRESHES
        } else {
            PASSED_OVER_REFRESHES
        };
        let passed_over_until = snapshot.at + self.refreshes(refreshes);
        self.dialling.pass_over(tunnel.peer, passed_over_until);
        self.begin_closing(snapshot, (tunnel.slot, tunnel.peer), reason, terms, plan);
    }

    /// A tunnel that is significantly unused and was so at the last refresh; at long intervals a random one.
    fn unused<'a>(&mut self, closable: &[&'a Assessment], has_traffic: bool) -> Option<Choice<'a>> {
        let is_lasting = |tunnel: &&&Assessment| {
            let was_unused = self.unused_before.contains(&(tunnel.slot, tunnel.peer));
            tunnel.is_unused() && was_unused
        };
        let lasting = closable.iter().filter(is_lasting);
        let least = lasting.min_by_key(|tunnel| tunnel.rank()).copied();
        let may_close = has_traffic || self.refreshes_since_close >= self.closing_interval;
        if let Some(tunnel) = least.filter(|_| may_close) {
            return Some(Choice {
                tunnel,
                reason: CloseReason::Unused,
                terms: String::new(),
            });
        }
        if has_traffic || self.refreshes_since_close < ROTATION_REFRESHES {
            return None;
        }
        self.rotate(closable)
    }

    /// A random tunnel.
    fn rotate<'a>(&mut self, closable: &[&'a Assessment]) -> Option<Choice<'a>> {
        let count = u64::try_from(closable.len()).unwrap_or(0);
        let drawn = usize::try_from(self.rng.below(count)).ok()?;
        let tunnel = closable.get(drawn).copied()?;
        Some(Choice {
            tunnel,
            reason: CloseReason::Rotation,
            terms: String::new(),
        })
    }

    /// Dialled tunnels that came by chance and hold the network together, since their peers carry others' traffic.
    pub(super) fn by_chance<'o>(
        &self,
        snapshot: &Snapshot<'o>,
    ) -> impl Iterator<Item = &'o LinkReading> {
        snapshot
            .dialled()
            .filter(|link| !self.is_chosen(link) && snapshot.has_free_transit(link.tunnel.peer))
    }

    /// The slots of tunnels that are left to chance, drawn among those that came by chance.
    pub(super) fn random(&self, snapshot: &Snapshot<'_>) -> BTreeSet<Slot> {
        let pinned = self.pinned();
        let lot = |peer: Prefix| Rng::new(self.salt ^ u64::from(peer.number())).bits();
        let mut lots: Vec<_> = self
            .by_chance(snapshot)
            .filter(|link| !pinned.contains(&link.tunnel.peer))
            .map(|link| (lot(link.tunnel.peer), link.tunnel.slot))
            .collect();
        lots.sort_unstable();
        let slots = lots.into_iter().map(|(_, slot)| slot);
        slots
            .take(self.settings.rule.random_slots(self.wanted()))
            .collect()
    }
}

/// The tunnel that the least gain replaces, if the best candidate gains that much.
fn replaced<'a>(
    closable: &[&'a Assessment],
    best: Option<(&Candidate, Gain)>,
) -> Option<Choice<'a>> {
    let (candidate, gain) = best?;
    let replaceable = closable
        .iter()
        .copied()
        .filter(|tunnel| !tunnel.random && !tunnel.needed);
    let tunnel = replaceable.min_by_key(|tunnel| (tunnel.required_gain(), tunnel.slot))?;
    let terms = format!("for={} {gain} ", candidate.peer);
    (gain.total >= tunnel.required_gain()).then_some(Choice {
        tunnel,
        reason: CloseReason::Replaced,
        terms,
    })
}
