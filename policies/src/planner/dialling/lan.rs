//! Dials peers on the LANs of this host.

use super::{Allowance, Dialling, Round};
use crate::{
    names::Prefix,
    observation::{Candidate, LinkReading, Phase},
    orders::OpenReason,
    planner::{lan::wanted_on_lan, snapshot::Snapshot},
};
use std::collections::BTreeSet;

impl Dialling {
    /// Dials peers on LANs while there are fewer tunnels within LANs than wanted; one at a time above the limit, which closes another
    /// tunnel later.
    pub(super) fn dial_lan(
        &mut self,
        round: &mut Round,
        snapshot: &Snapshot<'_>,
        candidates: &[&Candidate],
        allowance: Allowance<'_>,
    ) {
        let ordered = self
            .pending
            .values()
            .filter(|(peer, _)| snapshot.is_on_lan(*peer));
        let existing = snapshot.lan_tunnels().len() + ordered.count();
        let mut missing = wanted_on_lan(allowance.wanted).saturating_sub(existing);
        let mut dialled = snapshot.dialled();
        let is_connecting = dialled.any(|link| link.tunnel.phase == Phase::Connecting);
        let is_calm = round.decisions.is_empty() && self.pending.is_empty() && !is_connecting;
        let is_at_limit = snapshot.dialled().count() == allowance.wanted;
        let may_exceed = round.room == 0 && is_calm && is_at_limit;
        let on_lan = candidates
            .iter()
            .filter(|candidate| candidate.is_on_lan() && !candidate.is_dead());
        for candidate in on_lan {
            if missing == 0 {
                break;
            }
            if may_exceed && round.decisions.is_empty() {
                round.room = 1;
            }
            if self.open(round, snapshot, candidate, OpenReason::OnLan) {
                missing -= 1;
            }
        }
        if may_exceed {
            round.room = 0;
        }
    }

    /// Dials a peer on a LAN to which the route could leave the LAN, even above the limit, which closes another tunnel later. One at a
    /// time, as other routes may follow the tunnel.
    pub(super) fn bring_back_to_lan(
        &mut self,
        round: &mut Round,
        snapshot: &Snapshot<'_>,
        candidates: &[&Candidate],
        bring_back: &BTreeSet<Prefix>,
    ) {
        let is_connecting = |link: &LinkReading| {
            link.tunnel.phase == Phase::Connecting && snapshot.is_on_lan(link.tunnel.peer)
        };
        if self
            .pending
            .values()
            .any(|(peer, _)| snapshot.is_on_lan(*peer))
            || snapshot.dialled().any(is_connecting)
        {
            return;
        }
        let mut away = candidates.iter().filter(|candidate| {
            bring_back.contains(&candidate.peer) && candidate.is_on_lan() && !candidate.is_dead()
        });
        if let Some(candidate) = away.next() {
            let room = round.room;
            round.room = room.max(1);
            self.open(round, snapshot, candidate, OpenReason::OnLan);
            round.room = round.room.min(room);
        }
    }
}
