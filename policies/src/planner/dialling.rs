//! Chooses which peers to dial.
//!
//! Pinned peers come first, whether or not there is room, then a few on the LANs of this host, and those behind NATs whose path is open. While babeld knows nobody, all candidates serve to
//! bootstrap. Otherwise random nodes that are no neighbours are dialled, and peers missing from babeld's table (these
//! first while the node is young). Once enough tunnels are left to chance, the candidate that shortens routes most
//! takes the place of a random one. A peer that a tunnel of either role leads to is never dialled.

mod lan;
mod punched;
mod retry;

use super::snapshot::Snapshot;
use crate::{
    gain::Gain,
    names::{Prefix, Slot},
    observation::{Candidate, Phase},
    orders::{Decision, OpenReason, Order},
    rng::Rng,
    units::Uptime,
};
use retry::retry_at;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// For this long after the start all room is filled at once; later one dial follows per [`FILL_INTERVAL`].
const YOUNG_TIME: Duration = Duration::from_secs(60);
/// Interval between two dials that fill room, so that a death is answered by one dial and not by many.
const FILL_INTERVAL: Duration = Duration::from_secs(5);
/// Interval between two dials of peers that only the disk remembers.
const REMEMBERED_INTERVAL: Duration = Duration::from_secs(10);
/// A peer whose endpoints were confirmed longer ago counts as remembered only.
const CONFIRMATION_LIFETIME: Duration = Duration::from_secs(3600);
/// A peer that is missing from babeld's table for this long is dialled even above the limit, one at a time.
const MISSING_TIME: Duration = Duration::from_secs(30);
/// The same while the node is young: nodes that start together may form islands before they know of each other, and
/// routes to their peers follow within a second or two.
const YOUNG_MISSING_TIME: Duration = Duration::from_secs(3);
/// An order to dial is taken for lost if no reading shows it after this time.
const ORDER_TIMEOUT: Duration = Duration::from_secs(5);

/// The memory of dialling between two plans.
#[derive(Clone, Debug, Default)]
pub(super) struct Dialling {
    /// Makes this node's back-offs differ from its neighbours'.
    salt: u64,
    /// Orders that no reading shows yet.
    pending: BTreeMap<Slot, (Prefix, Uptime)>,
    next_fill: Uptime,
    next_remembered: Uptime,
    /// Since when a candidate has been missing from babeld's table.
    missing: BTreeMap<Prefix, Uptime>,
    /// Peers whose tunnel was closed: others are preferred until that moment.
    passed_over: BTreeMap<Prefix, Uptime>,
}

/// The dials that one plan may order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance<'a> {
    /// Number of dialled tunnels wanted.
    pub(super) wanted: usize,
    /// Whether a missing peer may be dialled on top of them.
    pub(super) allows_one_more: bool,
    /// The moment of the first plan.
    pub(super) started_at: Uptime,
    /// Number of dialled tunnels that are still to be left to chance.
    pub(super) random: usize,
    /// Number of dialled tunnels up to which peers behind NATs are dialled whose path is open.
    pub(super) punched: usize,
    /// Peers on LANs to which the route could leave the LAN.
    pub(super) bring_back: &'a BTreeSet<Prefix>,
}

/// What is left of an allowance within one plan.
struct Round {
    room: usize,
    free: BTreeSet<Slot>,
    decisions: Vec<Decision>,
}

impl Dialling {
    pub(super) fn new(salt: u64) -> Self {
        Self {
            salt,
            ..Self::default()
        }
    }

    /// Prefers other peers to this one until that moment.
    pub(super) fn pass_over(&mut self, peer: Prefix, until: Uptime) {
        self.passed_over.insert(peer, until);
    }

    /// Returns whether a node that is no neighbour could be dialled in place of a closed tunnel.
    pub(super) fn has_distant_candidate(&self, snapshot: &Snapshot<'_>) -> bool {
        let ready = self.ready(snapshot);
        let mut peers = ready.iter().map(|candidate| candidate.peer);
        peers.any(|peer| snapshot.routes.reaches(peer))
    }

    /// Decides all dials of one plan.
    pub(super) fn dial(
        &mut self,
        snapshot: &Snapshot<'_>,
        pinned: &BTreeSet<Prefix>,
        allowance: Allowance<'_>,
        rng: &mut Rng,
    ) -> Vec<Decision> {
        self.follow(snapshot);
        let used = snapshot.dialled().count() + self.pending.len();
        let is_free = |slot: &&Slot| !self.pending.contains_key(slot);
        let mut round = Round {
            room: allowance.wanted.saturating_sub(used),
            free: snapshot.free.iter().filter(is_free).copied().collect(),
            decisions: Vec::new(),
        };
        let is_young = snapshot.at.since(allowance.started_at) < YOUNG_TIME;
        let (pinned, others): (Vec<_>, Vec<_>) = self
            .by_preference(snapshot, rng)
            .into_iter()
            .partition(|candidate| pinned.contains(&candidate.peer));
        for candidate in pinned {
            self.dial_pinned(&mut round, snapshot, candidate);
        }
        self.dial_lan(&mut round, snapshot, &others, allowance);
        self.bring_back_to_lan(&mut round, snapshot, &others, allowance.bring_back);
        self.dial_punched(&mut round, snapshot, allowance);
        let (known, unknown): (Vec<_>, Vec<_>) = others
            .into_iter()
            .filter(|candidate| !self.is_pending(candidate.peer))
            .partition(|candidate| snapshot.routes.reaches(candidate.peer));
        // A dead peer stays missing for long, and must not take the place of a living one.
        if is_young || known.is_empty() {
            self.dial_unknown(&mut round, snapshot, &unknown, is_young);
        }
        let nothing_ordered = round.decisions.is_empty() && self.pending.is_empty();
        if allowance.allows_one_more && nothing_ordered {
            let missing_time = if is_young {
                YOUNG_MISSING_TIME
            } else {
                MISSING_TIME
            };
            self.dial_one_more(
                &mut round,
                snapshot,
                &unknown,
                (allowance.wanted, missing_time),
            );
        }
        self.fill(&mut round, snapshot, known, is_young, allowance.random);
        round.decisions
    }

    /// Dials a peer that an operator asked for, whatever the limit and its back-off. `None` if it is no candidate, or if no slot is free.
    pub(super) fn dial_requested(
        &mut self,
        snapshot: &Snapshot<'_>,
        peer: Prefix,
    ) -> Option<Decision> {
        let candidate = snapshot.candidates.get(&peer).copied()?;
        let is_free = |slot: &&Slot| !self.pending.contains_key(slot);
        let mut round = Round {
            room: 1,
            free: snapshot.free.iter().filter(is_free).copied().collect(),
            decisions: Vec::new(),
        };
        self.open(&mut round, snapshot, candidate, OpenReason::Operator);
        round.decisions.pop()
    }

    /// Candidates that could be dialled now, in random order, the preferred ones first.
    fn by_preference<'o>(&self, snapshot: &Snapshot<'o>, rng: &mut Rng) -> Vec<&'o Candidate> {
        let mut ready = self.ready(snapshot);
        rng.shuffle(&mut ready);
        ready.sort_by_cached_key(|candidate| {
            let peer = candidate.peer;
            (
                candidate.is_dead(),
                snapshot.measurements.is_full(peer),
                candidate.transit_cost,
                self.passed_over.contains_key(&peer),
            )
        });
        ready
    }

    /// Fills the room with nodes that babeld knows: random ones first, then those that gain most.
    fn fill(
        &mut self,
        round: &mut Round,
        snapshot: &Snapshot<'_>,
        known: Vec<&Candidate>,
        is_young: bool,
        mut random: usize,
    ) {
        let mut by_gain = self.by_gain(snapshot, round.room, &known);
        for candidate in known {
            let (candidate, reason) = match by_gain.pop() {
                Some(best) if random == 0 => (best, OpenReason::Gain),
                Some(best) => {
                    by_gain.push(best);
                    (candidate, OpenReason::Fill)
                }
                None => (candidate, OpenReason::Fill),
            };
            let is_due = is_young || self.next_fill <= snapshot.at;
            if is_due
                && !self.is_pending(candidate.peer)
                && self.open(round, snapshot, candidate, reason)
            {
                random = random.saturating_sub(1);
            }
        }
    }

    /// Candidates that would shorten routes and are not passed over, the best last.
    fn by_gain<'o>(
        &self,
        snapshot: &Snapshot<'o>,
        room: usize,
        known: &[&'o Candidate],
    ) -> Vec<&'o Candidate> {
        if room == 0 {
            return Vec::new();
        }
        let mut gains: Vec<_> = known
            .iter()
            .filter(|candidate| !self.passed_over.contains_key(&candidate.peer))
            .filter_map(|candidate| Some((snapshot.gain(candidate)?.total, *candidate)))
            .collect();
        gains.sort_unstable_by_key(|(total, candidate)| (*total, candidate.peer));
        gains.into_iter().map(|(_, candidate)| candidate).collect()
    }

    /// The candidate that shortens routes most, of those that could be dialled now.
    pub(super) fn best_gain<'o>(&self, snapshot: &Snapshot<'o>) -> Option<(&'o Candidate, Gain)> {
        let ready = self.ready(snapshot);
        let best = self.by_gain(snapshot, 1, &ready).pop()?;
        Some((best, snapshot.gain(best)?))
    }

    /// Returns whether a dial of this peer is ordered, and no reading shows it yet.
    pub(super) fn is_pending(&self, peer: Prefix) -> bool {
        self.pending.values().any(|(other, _)| *other == peer)
    }

    /// Drops what the readings have caught up with, and notes which candidates are missing.
    fn follow(&mut self, snapshot: &Snapshot<'_>) {
        let now = snapshot.at;
        self.pending.retain(|slot, (_, ordered_at)| {
            !snapshot.tunnels.contains_key(slot) && now.since(*ordered_at) < ORDER_TIMEOUT
        });
        self.passed_over.retain(|_, until| *until > now);
        let is_missing = |peer: &Prefix| snapshot.is_table_known && !snapshot.routes.reaches(*peer);
        self.missing
            .retain(|peer, _| is_missing(peer) && snapshot.candidates.contains_key(peer));
        for peer in snapshot.candidates.keys().filter(|peer| is_missing(peer)) {
            self.missing.entry(*peer).or_insert(now);
        }
    }

    /// Candidates that no tunnel or order leads to and whose back-off has elapsed, sorted by prefix.
    fn ready<'o>(&self, snapshot: &Snapshot<'o>) -> Vec<&'o Candidate> {
        let is_ready = |candidate: &&Candidate| {
            !snapshot.has_tunnel_to(candidate.peer)
                && !self.is_pending(candidate.peer)
                && retry_at(candidate, self.salt).is_none_or(|moment| moment <= snapshot.at)
        };
        let candidates = snapshot.candidates.values().copied();
        candidates.filter(is_ready).collect()
    }

    /// Dials peers that babeld does not know: confirmed ones at once, remembered ones one by one.
    fn dial_unknown(
        &mut self,
        round: &mut Round,
        snapshot: &Snapshot<'_>,
        unknown: &[&Candidate],
        is_young: bool,
    ) {
        let now = snapshot.at;
        let is_alone = snapshot.routes.nodes().is_empty();
        let reason = if is_alone {
            OpenReason::Bootstrap
        } else {
            OpenReason::MissingFromTable
        };
        let is_trying = snapshot.dialled().any(|link| {
            link.tunnel.phase == Phase::Connecting && !snapshot.routes.reaches(link.tunnel.peer)
        });
        // A peer that is dead for good stays missing: outside bootstrap one dial at a time is enough.
        let mut dials_left = if is_alone || is_young {
            usize::MAX
        } else {
            usize::from(!is_trying)
        };
        for candidate in unknown {
            let is_confirmed = is_confirmed(candidate, now);
            if dials_left == 0 || !is_confirmed && self.next_remembered > now {
                continue;
            }
            if self.open(round, snapshot, candidate, reason) {
                dials_left = dials_left.saturating_sub(1);
                if !is_confirmed {
                    self.next_remembered = now + REMEMBERED_INTERVAL;
                }
            }
        }
    }

    /// Dials a pinned peer, even above the limit, but then one at a time; the limit closes another tunnel later.
    fn dial_pinned(&mut self, round: &mut Round, snapshot: &Snapshot<'_>, candidate: &Candidate) {
        let is_connecting = snapshot
            .dialled()
            .any(|link| link.tunnel.phase == Phase::Connecting);
        let nothing_ordered = round.decisions.is_empty() && self.pending.is_empty();
        let is_above_limit = round.room == 0 && nothing_ordered && !is_connecting;
        if is_above_limit {
            round.room = 1;
        }
        self.open(round, snapshot, candidate, OpenReason::Pinned);
        if is_above_limit {
            round.room = 0;
        }
    }

    /// Dials one missing peer above the limit: islands whose nodes are all at their limit would never merge otherwise.
    fn dial_one_more(
        &mut self,
        round: &mut Round,
        snapshot: &Snapshot<'_>,
        unknown: &[&Candidate],
        (wanted, missing_time): (usize, Duration),
    ) {
        let now = snapshot.at;
        if snapshot.routes.nodes().is_empty() || snapshot.dialled().count() != wanted {
            return;
        }
        let is_long_missing = |candidate: &&&Candidate| {
            let missing_since = self.missing.get(&candidate.peer);
            is_confirmed(candidate, now)
                && missing_since.is_some_and(|since| now.since(*since) >= missing_time)
        };
        if let Some(candidate) = unknown.iter().find(is_long_missing) {
            round.room = 1;
            self.open(round, snapshot, candidate, OpenReason::MissingFromTable);
            round.room = 0;
        }
    }

    /// Orders one dial; returns whether there was room and a free slot.
    fn open(
        &mut self,
        round: &mut Round,
        snapshot: &Snapshot<'_>,
        candidate: &Candidate,
        reason: OpenReason,
    ) -> bool {
        let now = snapshot.at;
        if round.room == 0 {
            return false;
        }
        let Some(slot) = round.free.pop_first() else {
            return false;
        };
        self.pending.insert(slot, (candidate.peer, now));
        self.next_fill = now + FILL_INTERVAL;
        let confirmed = candidate.confirmed_at.map_or("never".to_owned(), |moment| {
            format!("{} s ago", now.since(moment).as_secs())
        });
        let gain = snapshot
            .gain(candidate)
            .map_or(String::new(), |gain| format!(" {gain}"));
        let terms = format!(
            "confirmed={confirmed} failures={} transit_cost={} room={}{gain}",
            candidate.failures, candidate.transit_cost, round.room
        );
        round.room -= 1;
        round.decisions.push(Decision {
            order: Order::Open {
                slot,
                peer: candidate.peer,
                endpoints: candidate.endpoints.clone(),
                reason,
            },
            terms,
        });
        true
    }
}

/// Returns whether the candidate's endpoints were confirmed within the last hour.
fn is_confirmed(candidate: &Candidate, now: Uptime) -> bool {
    let confirmed = candidate.confirmed_at;
    confirmed.is_some_and(|moment| now.since(moment) < CONFIRMATION_LIFETIME)
}
