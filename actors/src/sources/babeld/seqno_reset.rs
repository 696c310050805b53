//! Restarts babeld after a neighbour announced another node's range under that node's router id.
//!
//! babeld remembers the newest sequence number of each origin for 200 s, and uses no route with an older one (RFC 8966, section 3.5.1). A lie can have
//! any number, and babeld has processed it before the tunnel is closed. It then ignores the updates of the honest route, which expires after 3.5 update intervals.
//! A restart forgets the numbers, and interrupts transit for about a second.

use super::*;
use policies::names::{Prefix, Slot};

/// Time from the lie to the restart, in which the tunnel is closed.
const RESET_DELAY: Duration = Duration::from_secs(2);
/// Shortest time between two of these restarts, so that several liars cannot keep babeld from its work. Honest routes last longer.
const MIN_RESET_INTERVAL: Duration = Duration::from_secs(30);

/// The restart that is due, and the last one.
#[derive(Default)]
pub(super) struct SeqnoReset {
    due: Option<Due>,
    last: Option<Uptime>,
}

#[derive(Clone, Copy)]
struct Due {
    at: Uptime,
    slot: Slot,
    liar: Prefix,
}

impl SeqnoReset {
    /// Notes a lie that came by the tunnel to `liar`.
    fn note(&mut self, slot: Slot, liar: Prefix, now: Uptime) {
        let earliest = self.last.map_or(now, |last| last + MIN_RESET_INTERVAL);
        let at = (now + RESET_DELAY).max(earliest);
        self.due.get_or_insert(Due { at, slot, liar });
    }

    /// Drops a restart that is due: babeld has exited, and its next process knows no sequence numbers.
    pub(super) fn forget(&mut self) {
        self.due = None;
    }

    /// Returns the liar's tunnel once the restart is due.
    fn take_due(&mut self, now: Uptime) -> Option<(Slot, Prefix)> {
        let due = self.due.filter(|due| due.at <= now)?;
        self.due = None;
        Some((due.slot, due.liar))
    }
}

impl Babeld {
    /// Notes the lies among the claims of a packet after which babeld may know a false sequence number.
    pub(super) fn note_false_seqnos(&mut self, slot: Slot, claims: &[OriginClaim]) {
        let Some(peer) = self.peer_on(slot) else {
            return;
        };
        let is_forged =
            |claim: &OriginClaim| claim.originator == Some(claim.node) && claim.node != peer;
        if claims.iter().any(is_forged) {
            self.seqno_reset.note(slot, peer, self.clock.now());
        }
    }

    /// Restarts babeld if that is due and the liar's tunnel was closed.
    pub(super) fn forget_false_seqnos(&mut self) {
        let now = self.clock.now();
        let Some((slot, liar)) = self.seqno_reset.take_due(now) else {
            return;
        };
        if self.peer_on(slot) == Some(liar) {
            return;
        }
        self.seqno_reset.last = Some(now);
        tracing::warn!(peer = %liar, "babeld restarts, since a false route may have left a sequence number that no node has issued");
        self.handle_event(Event::Unwanted);
        self.handle_event(Event::Wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lies_within_half_a_minute_lead_to_one_restart_each_half_minute() {
        let (slot, liar) = (Slot::Dialling(0), Prefix::new(7, 16).unwrap());
        let mut reset = SeqnoReset::default();
        let mut restarts = Vec::new();
        for second in 10..=80 {
            let now = Uptime::from_secs(second);
            if second < 50 {
                reset.note(slot, liar, now);
            }
            if reset.take_due(now) == Some((slot, liar)) {
                reset.last = Some(now);
                restarts.push(second);
            }
        }
        assert_eq!(restarts, [12, 42, 72]);
    }
}
