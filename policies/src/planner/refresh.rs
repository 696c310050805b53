//! Chooses which tunnel to close, once a refresh, and says what it thinks of each.

use super::{
    Plan, Planner, Verdict,
    assess::{self, Assessment},
    picture::Picture,
};
use crate::{
    gain::{Gain, Rule},
    names::{Prefix, Role, Slot},
    observation::{Candidate, LinkReading, Phase},
    orders::CloseReason,
    rng::Rng,
    units::Uptime,
};
use std::{collections::BTreeSet, time::Duration};

/// A peer whose tunnel was closed as unused or replaced, or did not live long, is passed over for so
/// many refreshes.
pub(super) const PASSED_OVER_REFRESHES: u32 = 2;
/// The same for a tunnel that lost too much: as long as the operator of the way may take to mend it.
const LOSSY_PASSED_OVER_REFRESHES: u32 = 12;
/// Without traffic: so many refreshes without a planned closing, then one tunnel is rotated. Also the
/// longest wait between two closings decided by nodes served alone.
const ROTATE_AFTER: u32 = 12;
/// Above its limit a node closes one tunnel per this span.
const OVER_LIMIT_PACE: Duration = Duration::from_secs(30);

/// What a refresh has found to close.
struct Choice<'a> {
    one: &'a Assessment,
    reason: CloseReason,
    /// What speaks for it, beside the terms of the tunnel itself.
    terms: String,
}

impl Planner {
    /// Closes the least used tunnel while there are more than allowed.
    pub(super) fn over_limit(
        &mut self,
        picture: &Picture<'_>,
        all: &[Assessment],
        limit: usize,
        plan: &mut Plan,
    ) {
        // One that may never come up takes nobody's place.
        let dialled = picture
            .dialled()
            .filter(|link| link.tunnel.phase != Phase::Connecting)
            .count();
        if self.closing.is_some() || dialled <= limit || self.next_over_limit > picture.at {
            return;
        }
        if let Some(one) = all
            .iter()
            .filter(|one| one.spared.is_none())
            .min_by_key(|one| one.rank())
        {
            let terms = format!("dialled={dialled} limit={limit} {one}");
            self.next_over_limit =
                picture.at + OVER_LIMIT_PACE.min(self.settings.parameters.refresh);
            self.close(
                picture,
                one.slot,
                one.peer,
                CloseReason::OverLimit,
                terms,
                plan,
            );
        }
    }

    /// Once a refresh: closes at most one tunnel, and begins a new count.
    pub(super) fn refresh(
        &mut self,
        picture: &Picture<'_>,
        all: &[Assessment],
        limit: usize,
        plan: &mut Plan,
    ) {
        let now = picture.at;
        let refresh = self.settings.parameters.refresh;
        self.next_refresh = now
            + self
                .rng
                .span(refresh / 10 * 9, (refresh / 10).saturating_mul(11));
        self.refreshes = self.refreshes.saturating_add(1);
        if self.closing.is_none()
            && picture.dialled().count() >= limit
            && self.dialling.has_distant(picture)
        {
            self.close_one(picture, all, plan);
        }
        let unused = all
            .iter()
            .filter(|one| one.slot.role() == Role::Dialled && one.unused());
        self.unused_before = unused.map(|one| (one.slot, one.peer)).collect();
        self.usage
            .values_mut()
            .for_each(|(.., usage)| usage.start_count(now));
    }

    fn close_one(&mut self, picture: &Picture<'_>, all: &[Assessment], plan: &mut Plan) {
        let open: Vec<_> = all
            .iter()
            .filter(|one| one.spared.is_none() && one.share.is_some())
            .collect();
        let traffic = all.iter().any(|one| one.rate >= assess::NOISE);
        if self.settings.rule == Rule::Random {
            if let Some(one) = self.by_lot(&open) {
                self.close_for(
                    picture,
                    Choice {
                        one,
                        reason: CloseReason::Rotation,
                        terms: String::new(),
                    },
                    plan,
                );
            }
            return;
        }
        let replaced = replaced(&open, self.dialling.best_gain(picture));
        // Where round trips are known, and nothing but them counts, gains decide alone.
        let measured = !traffic && picture.measurements.has_rtts();
        let Some(choice) = replaced.or_else(|| self.unused(&open, traffic).filter(|_| !measured))
        else {
            return;
        };
        if !traffic && choice.reason != CloseReason::Replaced {
            self.patience = self.patience.saturating_mul(2).min(ROTATE_AFTER);
        }
        self.close_for(picture, choice, plan);
    }

    fn close_for(&mut self, picture: &Picture<'_>, choice: Choice<'_>, plan: &mut Plan) {
        let Choice { one, reason, terms } = choice;
        let terms = format!("{terms}{one} refreshes={}", self.refreshes);
        self.refreshes = 0;
        let refreshes = if one.lossy() {
            LOSSY_PASSED_OVER_REFRESHES
        } else {
            PASSED_OVER_REFRESHES
        };
        let passed_over = self.settings.parameters.refresh.saturating_mul(refreshes);
        self.dialling.pass_over(one.peer, picture.at + passed_over);
        self.close(picture, one.slot, one.peer, reason, terms, plan);
    }

    /// The tunnel that is significantly unused and lasting so; else, at long intervals, a random one.
    fn unused<'a>(&mut self, open: &[&'a Assessment], traffic: bool) -> Option<Choice<'a>> {
        let lasting =
            |one: &Assessment| one.unused() && self.unused_before.contains(&(one.slot, one.peer));
        let patient = traffic || self.refreshes >= self.patience;
        let least = open
            .iter()
            .filter(|one| lasting(one))
            .min_by_key(|one| one.rank())
            .copied();
        if let Some(one) = least.filter(|_| patient) {
            return Some(Choice {
                one,
                reason: CloseReason::Unused,
                terms: String::new(),
            });
        }
        if traffic || self.refreshes < ROTATE_AFTER {
            return None;
        }
        let one = self.by_lot(open)?;
        Some(Choice {
            one,
            reason: CloseReason::Rotation,
            terms: String::new(),
        })
    }

    fn by_lot<'a>(&mut self, open: &[&'a Assessment]) -> Option<&'a Assessment> {
        let which = self.rng.below(u64::try_from(open.len()).unwrap_or(0));
        open.get(usize::try_from(which).ok()?).copied()
    }

    /// Dialled tunnels that came by chance and hold the network together: to peers that carry others' traffic.
    pub(super) fn by_chance<'w>(
        &self,
        picture: &Picture<'w>,
    ) -> impl Iterator<Item = &'w LinkReading> {
        picture
            .dialled()
            .filter(|link| !self.is_chosen(link) && picture.carries(link.tunnel.peer))
    }

    /// The tunnels that are left to chance: drawn by lot among those that came by chance.
    pub(super) fn random(&self, picture: &Picture<'_>) -> BTreeSet<Slot> {
        let by_chance = self.by_chance(picture);
        let by_chance = by_chance.filter(|link| !self.settings.pinned.contains(&link.tunnel.peer));
        let lot = |peer: Prefix| Rng::new(self.salt ^ u64::from(peer.number())).bits();
        let mut lots: Vec<_> = by_chance
            .map(|link| (lot(link.tunnel.peer), link.tunnel.slot))
            .collect();
        lots.sort_unstable();
        lots.into_iter()
            .map(|(_, slot)| slot)
            .take(self.settings.rule.random_slots(self.wanted()))
            .collect()
    }

    pub(super) fn verdicts(
        &self,
        picture: &Picture<'_>,
        all: &[Assessment],
        limit: usize,
        progress: Option<&str>,
    ) -> Vec<Verdict> {
        let dialled = picture.dialled().count();
        let best = self
            .dialling
            .best_gain(picture)
            .filter(|_| self.settings.rule == Rule::Gain);
        let text = |one: &Assessment| {
            if let Some(closing) = self
                .closing
                .as_ref()
                .filter(|closing| closing.slot == one.slot)
            {
                let progress = progress.unwrap_or("drain ordered");
                return format!("closing, reason={}: {progress}", closing.reason);
            }
            match &one.spared {
                Some(spared) => format!("kept: {spared}; {one}"),
                None if dialled < limit => {
                    format!("kept: {dialled} of {limit} dialled, none is closed below that; {one}")
                }
                None if one.unused() => format!("unused, may be closed at the next refresh; {one}"),
                None => format!(
                    "kept: carries its share; {}; {one}",
                    self.what_if(one, best, picture.at)
                ),
            }
        };
        all.iter()
            .map(|one| Verdict {
                slot: one.slot,
                text: text(one),
            })
            .collect()
    }

    /// What would have to change for the tunnel to be closed.
    fn what_if(&self, one: &Assessment, best: Option<(&Candidate, Gain)>, now: Uptime) -> String {
        let next = self.next_refresh.since(now).as_secs();
        if self.settings.rule == Rule::Random {
            return format!("closed when the lot falls on it, next look in {next} s");
        }
        let unused = format!("closed as unused with a share below {}", one.threshold);
        if one.random {
            return format!(
                "left to chance, so no gain takes its place; {unused}, next look in {next} s"
            );
        }
        if one.needed {
            let wanted = self.wanted();
            return format!(
                "fewer than {wanted} dialled its peer, so no gain takes its place; {unused}, next look in {next} s"
            );
        }
        let best = best.map_or(
            "no candidate with a gain is known".to_owned(),
            |(candidate, gain)| {
                format!("the best candidate, {}, has {}", candidate.peer, gain.total)
            },
        );
        let worth = one.worth();
        format!("replaced for a gain of {worth} or more: {best}; {unused}, next look in {next} s")
    }
}

/// The tunnel that the least gain is worth, where a candidate gains that much.
fn replaced<'a>(open: &[&'a Assessment], best: Option<(&Candidate, Gain)>) -> Option<Choice<'a>> {
    let (candidate, gain) = best?;
    let replaceable = open
        .iter()
        .copied()
        .filter(|one| !one.random && !one.needed);
    let one = replaceable.min_by_key(|one| (one.worth(), one.slot))?;
    let terms = format!("for={} {gain} ", candidate.peer);
    (gain.total >= one.worth()).then_some(Choice {
        one,
        reason: CloseReason::Replaced,
        terms,
    })
}
