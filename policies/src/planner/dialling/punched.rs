//! Dials peers behind NATs while the path to them is open.

use super::{Allowance, Dialling, Round};
use crate::{observation::Candidate, orders::OpenReason, planner::snapshot::Snapshot};

impl Dialling {
    /// Dials the peers whose path is open, as long as this node dials fewer tunnels than it wants.
    pub(super) fn dial_punched(
        &mut self,
        round: &mut Round,
        snapshot: &Snapshot<'_>,
        allowance: Allowance<'_>,
    ) {
        for path in snapshot.punched {
            let used = snapshot.dialled().count() + self.pending.len();
            let is_open = path.until > snapshot.at;
            let is_linked = snapshot.has_tunnel_to(path.peer) || self.is_pending(path.peer);
            if !is_open || is_linked || used >= allowance.punched {
                continue;
            }
            let candidate = Candidate {
                peer: path.peer,
                endpoints: vec![path.endpoint],
                on_lan: 0,
                confirmed_at: Some(snapshot.at),
                failed_at: None,
                failures: 0,
                transit_cost: 0,
            };
            let room = round.room;
            round.room = room.max(1);
            let is_opened = self.open(round, snapshot, &candidate, OpenReason::HolePunched);
            round.room = room.saturating_sub(usize::from(is_opened));
        }
    }
}
