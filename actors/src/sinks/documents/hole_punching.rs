//! Builds the part of the status about paths through NATs.

use super::View;
use policies::{hole_punching::PunchResult, names::Prefix};
use wire::control::{FailedPunchEntry, HolePunchingState};

impl View<'_> {
    pub(super) fn hole_punching(&self) -> HolePunchingState {
        let punches = &self.node.hole_punches;
        let entry = |(node, result): (&Prefix, &PunchResult)| FailedPunchEntry {
            prefix: node.to_string(),
            name: self.name(*node),
            result: result.label().to_owned(),
        };
        let results = punches.results.iter();
        let failed = results.filter(|(_, result)| **result != PunchResult::TunnelUp);
        HolePunchingState {
            nat_mapping: punches.mapping.label().to_owned(),
            failed: failed.map(entry).collect(),
        }
    }
}
