//! Dials peers on the LANs of this host.

use super::{Allowance, Dialling, Round};
use crate::{
    observation::{Candidate, Phase},
    orders::OpenReason,
    planner::{lan::wanted_on_lan, snapshot::Snapshot},
};

impl Dialling {
    /// Dials peers on LANs while there are fewer tunnels within LANs than wanted, and those to which the route could leave the LAN; one at a
    /// time above the limit, which closes another tunnel later.
    pub(super) fn dial_lan(
        &mut self,
        round: &mut Round,
        snapshot: &Snapshot<'_>,
        candidates: &[&Candidate],
        allowance: Allowance<'_>,
    ) {
        let is_on_lan = |peer| {
            let candidate = snapshot.candidates.get(peer);
            candidate.is_some_and(|candidate| candidate.is_on_lan())
        };
        let ordered = self.pending.values().filter(|(peer, _)| is_on_lan(peer));
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
        // One at a time, as other routes may follow the tunnel.
        let mut may_bring_back = is_calm;
        for candidate in on_lan {
            let is_away = allowance.bring_back.contains(&candidate.peer);
            let is_wanted = missing > 0 || may_bring_back && is_away;
            if !is_wanted {
                continue;
            }
            if may_exceed && round.decisions.is_empty() {
                round.room = 1;
            }
            if self.open(round, snapshot, candidate, OpenReason::OnLan) {
                missing = missing.saturating_sub(1);
                may_bring_back = false;
            }
        }
        if may_exceed {
            round.room = 0;
        }
    }
}
