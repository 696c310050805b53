//! Explains for each tunnel whether it is kept, and what would have to change for it to be closed.

use super::{Planner, Verdict, assessment::Assessment, snapshot::Snapshot};
use crate::{
    gain::{Gain, Rule},
    names::Slot,
    observation::Candidate,
    units::Uptime,
};

impl Planner {
    /// One verdict per tunnel. `progress` describes the present closing.
    pub(super) fn verdicts(
        &self,
        snapshot: &Snapshot<'_>,
        assessments: &[Assessment],
        limit: usize,
        progress: Option<&str>,
    ) -> Vec<Verdict> {
        let dialled = snapshot.dialled().count();
        let best = self
            .dialling
            .best_gain(snapshot)
            .filter(|_| self.settings.rule == Rule::Gain);
        let text = |tunnel: &Assessment| {
            if let Some(text) = self.closing_verdict(tunnel.slot, progress) {
                return text;
            }
            match &tunnel.spared {
                Some(spared) => format!("kept: {spared}; {tunnel}"),
                None if dialled < limit => format!(
                    "kept: {dialled} of {limit} dialled, none is closed below that; {tunnel}"
                ),
                None if tunnel.is_unused() => {
                    format!("unused, may be closed at the next refresh; {tunnel}")
                }
                None => format!(
                    "kept: carries its share; {}; {tunnel}",
                    self.what_would_close(tunnel, best, snapshot.at)
                ),
            }
        };
        let verdict = |tunnel: &Assessment| Verdict {
            slot: tunnel.slot,
            text: text(tunnel),
        };
        assessments.iter().map(verdict).collect()
    }

    /// The verdict on the tunnel that is being closed.
    fn closing_verdict(&self, slot: Slot, progress: Option<&str>) -> Option<String> {
        let closing = self
            .closing
            .as_ref()
            .filter(|closing| closing.slot == slot)?;
        let progress = progress.unwrap_or("the drain is ordered");
        Some(format!(
            "closing, for the reason {}; {progress}",
            closing.reason
        ))
    }

    /// What would have to change for the tunnel to be closed.
    fn what_would_close(
        &self,
        tunnel: &Assessment,
        best: Option<(&Candidate, Gain)>,
        now: Uptime,
    ) -> String {
        let next = self.next_refresh.since(now).as_secs();
        if self.settings.rule == Rule::Random {
            return format!("closed if drawn at random; next refresh in {next} s");
        }
        let unused = format!("closed as unused with a share below {}", tunnel.threshold);
        if tunnel.random {
            return format!(
                "left to chance, so no gain takes its place; {unused}, next refresh in {next} s"
            );
        }
        if tunnel.needed {
            let wanted = self.wanted();
            return format!(
                "fewer than {wanted} dialled its peer, so no gain takes its place; {unused}, next refresh in {next} s"
            );
        }
        let best = best.map_or(
            "no candidate with a gain is known".to_owned(),
            |(candidate, gain)| {
                format!("the best candidate, {}, has {}", candidate.peer, gain.total)
            },
        );
        let required = tunnel.required_gain();
        format!(
            "replaced for a gain of {required} or more: {best}; {unused}, next refresh in {next} s"
        )
    }
}
