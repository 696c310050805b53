//! Builds the part of the status about the health of the node.

use crate::sinks::health::{Finding, Health, Severity};
use wire::control::{DEGRADED, FindingEntry, HEALTHY, HealthReport, NOT_READY};

pub(super) fn health_report(health: &Health) -> HealthReport {
    let entry = |finding: &Finding| FindingEntry {
        id: finding.id.label().to_owned(),
        severity: finding.severity.label().to_owned(),
        count: finding.count,
        seconds: finding.seconds,
        seen: finding.seen.clone(),
        advice: finding.id.advice().to_owned(),
    };
    let state = match health.severity() {
        Severity::Error => NOT_READY,
        Severity::Degraded => DEGRADED,
        Severity::Information => HEALTHY,
    };
    HealthReport {
        state: state.to_owned(),
        findings: health.findings.iter().map(entry).collect(),
    }
}
