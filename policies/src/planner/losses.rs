//! Says how much a tunnel loses, and what is left of its worth.

use super::assess::PerMille;
use crate::observation::ProbeReading;

/// Fewer probes say nothing.
const LEAST_PROBES: u32 = 20;
/// Up to this a tunnel's loss is that of any way through the internet. Beyond it TCP has at most
/// 1.2/√0.05 = 5.5 segments under way (Mathis et al. 1997).
const BEARABLE: PerMille = PerMille(50);

/// A thousandth of probes, of which all is 1000.
const ALL: u64 = 1_000;

/// How much of a tunnel's probes is unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Losses(PerMille);

impl Losses {
    /// `None` where too few probes were sent, or none was answered: that is an echo kept off, since a
    /// tunnel that carries nothing is dead.
    pub(super) fn of(probe: &ProbeReading) -> Option<Self> {
        let (sent, lost) = (probe.recent.sent, probe.recent.lost);
        let answers = probe.rtt.is_some() && lost < sent;
        let known = sent >= LEAST_PROBES && answers;
        let share = (u64::from(lost) * ALL).checked_div(u64::from(sent))?;
        known.then_some(Self(PerMille(share)))
    }

    /// How much it is, of a thousand.
    pub(super) fn share(self) -> PerMille {
        self.0
    }

    /// Whether it is more than a tunnel may lose.
    pub(super) fn unbearable(self) -> bool {
        self.0 > BEARABLE
    }

    /// What is left of `worth` in a tunnel that loses too much: the share answered, squared.
    pub(super) fn weigh(self, worth: u64) -> u64 {
        if !self.unbearable() {
            return worth;
        }
        let answered = ALL.saturating_sub(self.0.0);
        let once = |worth: u64| worth.saturating_mul(answered) / ALL;
        once(once(worth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{names::Slot, observation::ProbeCounts};
    use std::time::Duration;

    /// What is left of a worth of 1000 after so many probes; `None`: the loss is not known.
    #[track_caller]
    fn check(sent: u32, lost: u32, answers: bool, left: Option<u64>) {
        let probe = ProbeReading {
            slot: Slot::Dialling(0),
            rtt: answers.then_some(Duration::from_millis(20)),
            jitter: Duration::ZERO,
            sent: 0,
            lost: 0,
            recent: ProbeCounts { sent, lost },
            rx_frames: 0,
            tx_frames: 0,
        };
        assert_eq!(Losses::of(&probe).map(|losses| losses.weigh(1_000)), left);
    }

    #[test]
    fn few_probes_say_nothing_nor_do_those_of_a_peer_that_answers_none() {
        check(0, 0, true, None);
        check(19, 10, true, None);
        check(200, 200, false, None);
        check(200, 200, true, None);
        check(u32::MAX, u32::MAX - 1, true, Some(0));
    }

    #[test]
    fn a_tunnel_is_worth_less_the_more_it_loses_beyond_a_twentieth() {
        check(20, 0, true, Some(1_000));
        check(20, 1, true, Some(1_000));
        check(20, 2, true, Some(810));
        check(2_400, 480, true, Some(640));
        check(2_400, 1_200, true, Some(250));
    }
}
