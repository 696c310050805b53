//! Chooses whom to dial.
//!
//! The rules, first to last: pinned peers, full or not; bootstrap while babeld knows nobody; then random nodes that
//! are no neighbours yet, and peers missing in babeld's table (these first while the node is young). Once
//! enough tunnels are left to chance, the candidate that shortens the ways most takes a random one's
//! place. A peer that a tunnel of either role leads to is never dialled.

use super::picture::Picture;
use crate::{
    gain::Gain,
    names::{Prefix, Slot},
    observation::{Candidate, Phase},
    orders::{Decision, OpenReason, Order},
    rng::Rng,
    units::Uptime,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// So long after the start all room is filled at once; later one dial per [`FILL_PACE`].
const YOUNG: Duration = Duration::from_secs(60);
/// Later one tunnel is filled in per this span: a death is answered by one dial, not by many.
const FILL_PACE: Duration = Duration::from_secs(5);
/// Peers that only the disk remembers are tried one per this span.
const CACHED_PACE: Duration = Duration::from_secs(10);
/// Endpoints confirmed longer ago count as remembered only.
const FRESH: Duration = Duration::from_secs(3600);
/// A peer missing this long in babeld's table is dialled even above the wanted number, one at a time.
const MISSING_FOR: Duration = Duration::from_secs(30);
/// An order to dial that no reading shows after this long is taken as lost.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// A failed peer is tried again after this, doubling with each failure, up to half as much again.
const RETRY_FROM: Duration = Duration::from_secs(2);
/// The longest wait before a failed peer is tried again.
const RETRY_TO: Duration = Duration::from_secs(600);

/// What dialling remembers between looks.
#[derive(Clone, Debug, Default)]
pub(super) struct Dialling {
    /// Makes this node's back-offs differ from its neighbours'.
    salt: u64,
    /// Orders given that no reading shows yet.
    pending: BTreeMap<Slot, (Prefix, Uptime)>,
    fill_not_before: Uptime,
    cached_not_before: Uptime,
    /// Since when a candidate has been missing in babeld's table.
    missing: BTreeMap<Prefix, Uptime>,
    /// Peers whose tunnel we closed as unused: others are preferred until then.
    passed_over: BTreeMap<Prefix, Uptime>,
}

/// What one look allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// Dialled tunnels wanted.
    pub(super) wanted: usize,
    /// Whether a missing peer may be dialled on top of them.
    pub(super) one_more: bool,
    /// When the planner began.
    pub(super) began: Uptime,
    /// Dialled tunnels that are still to be left to chance.
    pub(super) random: usize,
}

impl Dialling {
    pub(super) fn new(salt: u64) -> Self {
        Self {
            salt,
            ..Self::default()
        }
    }

    /// Prefers other peers than this one until `until`.
    pub(super) fn pass_over(&mut self, peer: Prefix, until: Uptime) {
        self.passed_over.insert(peer, until);
    }

    /// Whether a node that is no neighbour could be dialled in place of a closed tunnel.
    pub(super) fn has_distant(&self, picture: &Picture<'_>) -> bool {
        self.ready(picture)
            .iter()
            .any(|candidate| picture.ways.reaches(candidate.peer))
    }

    /// All dials of this look.
    pub(super) fn dial(
        &mut self,
        picture: &Picture<'_>,
        pinned: &BTreeSet<Prefix>,
        allowance: Allowance,
        rng: &mut Rng,
    ) -> Vec<Decision> {
        self.keep_up(picture);
        let mut round = Round {
            room: allowance
                .wanted
                .saturating_sub(picture.dialled().count() + self.pending.len()),
            free: picture
                .free
                .iter()
                .filter(|slot| !self.pending.contains_key(slot))
                .copied()
                .collect(),
            decisions: Vec::new(),
        };
        let now = picture.at;
        let young = now.since(allowance.began) < YOUNG;
        let mut ready = self.ready(picture);
        rng.shuffle(&mut ready);
        ready.sort_by_cached_key(|candidate| {
            let (dead, peer) = (candidate.is_dead(), candidate.peer);
            let passed_over = self.passed_over.contains_key(&peer);
            (
                dead,
                picture.measurements.is_full(peer),
                candidate.transit_cost,
                passed_over,
            )
        });
        let (favourites, others): (Vec<_>, Vec<_>) = ready
            .into_iter()
            .partition(|candidate| pinned.contains(&candidate.peer));
        for candidate in favourites {
            self.pinned(&mut round, picture, candidate);
        }
        let (known, unknown): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|candidate| picture.ways.reaches(candidate.peer));
        // Who died stays missing for long, and must not take the place of a node that lives.
        if young || known.is_empty() {
            self.unknown(&mut round, picture, &unknown, young);
        }
        if allowance.one_more && round.decisions.is_empty() && self.pending.is_empty() {
            self.one_more(&mut round, picture, &unknown, allowance.wanted);
        }
        let mut random = allowance.random;
        let mut gains = self.gains(picture, round.room, &known);
        for candidate in known {
            // Chance first; then who gains most, as long as anybody gains.
            let (candidate, reason) = match gains.pop() {
                Some(best) if random == 0 => (best, OpenReason::Gain),
                Some(best) => {
                    gains.push(best);
                    (candidate, OpenReason::Fill)
                }
                None => (candidate, OpenReason::Fill),
            };
            let due = young || self.fill_not_before <= now;
            if due
                && !self.is_pending(candidate.peer)
                && self.open(&mut round, picture, candidate, reason)
            {
                random = random.saturating_sub(1);
            }
        }
        round.decisions
    }

    /// Candidates that would shorten ways and were not closed as unused a short while ago, the best last.
    fn gains<'w>(
        &self,
        picture: &Picture<'w>,
        room: usize,
        known: &[&'w Candidate],
    ) -> Vec<&'w Candidate> {
        if room == 0 {
            return Vec::new();
        }
        let mut gains: Vec<_> = known
            .iter()
            .filter(|candidate| !self.passed_over.contains_key(&candidate.peer))
            .filter_map(|candidate| Some((picture.gain(candidate)?.total, *candidate)))
            .collect();
        gains.sort_unstable_by_key(|(total, candidate)| (*total, candidate.peer));
        gains.into_iter().map(|(_, candidate)| candidate).collect()
    }

    /// The candidate that shortens ways most, of those that could be dialled now.
    pub(super) fn best_gain<'w>(&self, picture: &Picture<'w>) -> Option<(&'w Candidate, Gain)> {
        let ready = self.ready(picture);
        let best = self.gains(picture, 1, &ready).pop()?;
        Some((best, picture.gain(best)?))
    }

    /// Dials that no reading shows yet.
    pub(super) fn is_pending(&self, peer: Prefix) -> bool {
        self.pending.values().any(|(other, _)| *other == peer)
    }

    /// Forgets what the readings have caught up with.
    fn keep_up(&mut self, picture: &Picture<'_>) {
        let now = picture.at;
        self.pending.retain(|slot, (_, ordered)| {
            !picture.tunnels.contains_key(slot) && now.since(*ordered) < LOST_AFTER
        });
        self.passed_over.retain(|_, until| *until > now);
        let missing = |peer: &Prefix| picture.told && !picture.ways.reaches(*peer);
        self.missing
            .retain(|peer, _| missing(peer) && picture.candidates.contains_key(peer));
        for peer in picture.candidates.keys().filter(|peer| missing(peer)) {
            self.missing.entry(*peer).or_insert(now);
        }
    }

    /// Candidates that no tunnel or order leads to and whose back-off is over, sorted by prefix.
    fn ready<'w>(&self, picture: &Picture<'w>) -> Vec<&'w Candidate> {
        let ready = |candidate: &&Candidate| {
            !picture.has_tunnel_to(candidate.peer)
                && !self.is_pending(candidate.peer)
                && retry_at(candidate, self.salt).is_none_or(|moment| moment <= picture.at)
        };
        picture.candidates.values().copied().filter(ready).collect()
    }

    /// Peers that babeld does not know: fresh ones at once, remembered ones one by one.
    fn unknown(
        &mut self,
        round: &mut Round,
        picture: &Picture<'_>,
        unknown: &[&Candidate],
        young: bool,
    ) {
        let now = picture.at;
        let alone = picture.ways.nodes().is_empty();
        let reason = if alone {
            OpenReason::Bootstrap
        } else {
            OpenReason::MissingFromTable
        };
        let trying = picture.dialled().any(|link| {
            link.tunnel.phase == Phase::Connecting && !picture.ways.reaches(link.tunnel.peer)
        });
        // Who is dead for good stays missing: outside bootstrap one try at a time is enough.
        let mut tries = if alone || young {
            usize::MAX
        } else {
            usize::from(!trying)
        };
        for candidate in unknown {
            let fresh = candidate
                .confirmed
                .is_some_and(|moment| now.since(moment) < FRESH);
            if tries == 0 || !fresh && self.cached_not_before > now {
                continue;
            }
            if self.open(round, picture, candidate, reason) {
                tries = tries.saturating_sub(1);
                if !fresh {
                    self.cached_not_before = now + CACHED_PACE;
                }
            }
        }
    }

    /// A pinned peer is dialled even above the wanted number, one at a time; the limit then closes another tunnel.
    fn pinned(&mut self, round: &mut Round, picture: &Picture<'_>, candidate: &Candidate) {
        let connecting = picture
            .dialled()
            .any(|link| link.tunnel.phase == Phase::Connecting);
        let above =
            round.room == 0 && round.decisions.is_empty() && self.pending.is_empty() && !connecting;
        if above {
            round.room = 1;
        }
        self.open(round, picture, candidate, OpenReason::Pinned);
        if above {
            round.room = 0;
        }
    }

    /// Islands whose nodes all have their wanted number would never merge without one more.
    fn one_more(
        &mut self,
        round: &mut Round,
        picture: &Picture<'_>,
        unknown: &[&Candidate],
        wanted: usize,
    ) {
        let now = picture.at;
        if picture.ways.nodes().is_empty() || picture.dialled().count() != wanted {
            return;
        }
        let lasting = |candidate: &&&Candidate| {
            candidate
                .confirmed
                .is_some_and(|moment| now.since(moment) < FRESH)
                && self
                    .missing
                    .get(&candidate.peer)
                    .is_some_and(|since| now.since(*since) >= MISSING_FOR)
        };
        if let Some(candidate) = unknown.iter().find(lasting) {
            round.room = 1;
            self.open(round, picture, candidate, OpenReason::MissingFromTable);
            round.room = 0;
        }
    }

    fn open(
        &mut self,
        round: &mut Round,
        picture: &Picture<'_>,
        candidate: &Candidate,
        reason: OpenReason,
    ) -> bool {
        let now = picture.at;
        if round.room == 0 {
            return false;
        }
        let Some(slot) = round.free.pop_first() else {
            return false;
        };
        round.room -= 1;
        self.pending.insert(slot, (candidate.peer, now));
        self.fill_not_before = now + FILL_PACE;
        let known_for = candidate
            .confirmed
            .map(|moment| now.since(moment).as_secs());
        let confirmed = known_for.map_or("never".to_owned(), |seconds| format!("{seconds} s ago"));
        let gain = picture
            .gain(candidate)
            .map_or(String::new(), |gain| format!(" {gain}"));
        let (failures, price) = (candidate.failures, candidate.transit_cost);
        let terms = format!(
            "confirmed={confirmed} failures={failures} transit-price={price} room={}",
            round.room + 1
        );
        round.decisions.push(Decision {
            order: Order::Open {
                slot,
                peer: candidate.peer,
                endpoints: candidate.endpoints.clone(),
                reason,
            },
            terms: terms + &gain,
        });
        true
    }
}

/// What is left to give in one look.
struct Round {
    room: usize,
    free: BTreeSet<Slot>,
    decisions: Vec<Decision>,
}

/// When a peer that failed may be dialled again; `None` where it has not failed.
fn retry_at(candidate: &Candidate, salt: u64) -> Option<Uptime> {
    let doubled = 2u32
        .checked_pow(candidate.failures.saturating_sub(1))
        .unwrap_or(u32::MAX);
    let wait = RETRY_FROM.saturating_mul(doubled).min(RETRY_TO);
    // The same for each look, another for each peer and failure.
    let seed = u64::from(candidate.peer.number()) << 32 | u64::from(candidate.failures);
    let wait = Rng::new(seed ^ salt).span(wait, wait.saturating_add(wait / 2));
    candidate.failed.map(|failed| failed + wait)
}
