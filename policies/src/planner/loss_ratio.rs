//! Judges how much a tunnel loses, and discounts its worth by that.

use super::per_mille::PerMille;
use crate::observation::ProbeReading;

/// Least number of probes from which the loss is known.
const MIN_PROBES: u32 = 20;
/// Up to this ratio a tunnel loses no more than any path through the internet. Beyond it TCP has at most
/// 1.2/√0.05 = 5.5 segments under way (Mathis et al. 1997).
const MAX_TOLERATED_LOSS: PerMille = PerMille(50);
/// The ratio of all probes, in thousandths.
const ALL_PROBES: u64 = 1_000;

/// The share of a tunnel's probes that is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LossRatio(PerMille);

impl LossRatio {
    /// The ratio over the last ten minutes. `None` if too few probes were sent, or if none was answered: then the
    /// peer filters echo, since a tunnel that carries nothing would be dead.
    pub(super) fn new(probe: &ProbeReading) -> Option<Self> {
        let (sent, lost) = (probe.recent.sent, probe.recent.lost);
        let is_answered = probe.rtt.is_some() && lost < sent;
        let is_known = sent >= MIN_PROBES && is_answered;
        let ratio = (u64::from(lost) * ALL_PROBES).checked_div(u64::from(sent))?;
        is_known.then_some(Self(PerMille(ratio)))
    }

    /// The ratio in thousandths.
    pub(super) fn per_mille(self) -> PerMille {
        self.0
    }

    /// Returns whether the tunnel loses more than is tolerated.
    pub(super) fn exceeds_limit(self) -> bool {
        self.0 > MAX_TOLERATED_LOSS
    }

    /// The part of `worth` that is left if the tunnel loses too much: the share that is answered, squared.
    pub(super) fn discount(self, worth: u64) -> u64 {
        if !self.exceeds_limit() {
            return worth;
        }
        let answered = ALL_PROBES.saturating_sub(self.0.0);
        let discount = |worth: u64| worth.saturating_mul(answered) / ALL_PROBES;
        discount(discount(worth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{names::Slot, observation::ProbeCounts};
    use std::time::Duration;

    /// Checks the part of a worth of 1000 that is left after these probes; `None` if the loss is not known.
    #[track_caller]
    fn check(sent: u32, lost: u32, is_answered: bool, expected: Option<u64>) {
        let probe = ProbeReading {
            slot: Slot::Dialling(0),
            rtt: is_answered.then_some(Duration::from_millis(20)),
            jitter: Duration::ZERO,
            sent: 0,
            lost: 0,
            recent: ProbeCounts { sent, lost },
            rx_frames: 0,
            tx_frames: 0,
            full_size: crate::path_mtu::FullSize::Carried,
        };
        let left = LossRatio::new(&probe).map(|ratio| ratio.discount(1_000));
        assert_eq!(left, expected);
    }

    #[test]
    fn the_loss_is_unknown_after_few_probes_and_of_a_peer_that_answers_none() {
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
