//! Judges a snapshot: is the node healthy, and if not, what was seen, and what should be done?
//!
//! `warren status`, `warren_ready`, `/readyz` and `warren doctor` all show what [`assess`] returns. It is a pure function
//! of the snapshot and the time.

mod findings;
mod host;
mod reachability;

pub use findings::{FindingId, Severity};

use crate::sinks::telemetry::{PresentFinding, STALE, Snapshot};
use policies::units::Uptime;
use std::time::Duration;

/// A node counts as healthy with this deviation of its clock from the registry's, in seconds.
const MAX_CLOCK_OFFSET_S: u64 = 30;

/// A certificate is expected to be renewed this long before it expires, or earlier (see [`RENEWAL_SHARE`]).
const RENEWAL_EXPECTED: Duration = Duration::from_secs(7 * 86_400);

/// A certificate is expected to be renewed before this share of its lifetime is left; the node begins with a third left.
const RENEWAL_SHARE: u64 = 6;

/// Span over which restarts of a process are counted.
const RESTART_SPAN: Duration = Duration::from_secs(600);

/// Number of restarts within [`RESTART_SPAN`] from which a process is said to exit again and again.
const MANY_RESTARTS: usize = 3;

/// One thing that was seen of the node.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The kind of finding, which says what to do.
    pub id: FindingId,
    /// How bad it is in this state of the node; mostly what [`FindingId::severity`] returns.
    pub severity: Severity,
    /// What was seen, in one sentence without a full stop.
    pub seen: String,
    /// The number in the sentence: of tunnels, peers, restarts or keys.
    pub count: Option<u64>,
    /// The time in the sentence: since when, until when, or how far off; negative if it lies behind.
    pub seconds: Option<f64>,
}

impl Finding {
    fn new(id: FindingId, seen: impl Into<String>) -> Self {
        Self {
            id,
            severity: id.severity(),
            seen: seen.into(),
            count: None,
            seconds: None,
        }
    }

    fn severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    fn count(self, count: usize) -> Self {
        Self {
            count: u64::try_from(count).ok(),
            ..self
        }
    }

    fn time(self, time: Duration) -> Self {
        self.seconds(time.as_secs_f64())
    }

    fn seconds(self, seconds: f64) -> Self {
        Self {
            seconds: Some(seconds),
            ..self
        }
    }
}

/// All findings about a node at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// The findings, the worst first.
    pub findings: Vec<Finding>,
}

impl Health {
    /// Returns the findings that make the node unready.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        let is_error = |finding: &&Finding| finding.severity == Severity::Error;
        self.findings.iter().filter(is_error)
    }

    /// Returns whether the node does its work: no finding is an error.
    pub fn is_ready(&self) -> bool {
        self.errors().next().is_none()
    }

    /// Returns the severity of the worst finding; [`Severity::Information`] if the node is healthy.
    pub fn severity(&self) -> Severity {
        let severities = self.findings.iter().map(|finding| finding.severity);
        severities.min().unwrap_or(Severity::Information)
    }
}

/// Returns all findings about the node of this snapshot at the time `now`.
pub fn assess(node: &Snapshot, now: Uptime) -> Health {
    let mut findings: Vec<_> = [
        stale_telemetry(node, now),
        revoked(node),
        host::own_key_shared(node),
        host::peer_key_shared(node, now),
        certificate(node, now),
        babeld_down(node),
        host::routes_diverted(node),
        reachability::connection(node, now),
        registry_away(node, now),
        clock_off(node),
        reachability::udp_blocked(node),
        reachability::private_endpoints_only(node),
        reachability::narrow_path(node),
        software_outdated(node),
        reachability::not_reached(node, now),
        reachability::port_mapping_missing(node),
        reachability::ipv6_firewall_closed(node),
        reachability::endpoint_dependent_nat(node),
        host::ipv4_overlap(node),
        host::transit_blocked(node),
        host::another_babeld(node),
        host::host_changed(node, now),
        host::host_not_restored(node),
        host::earlier_rules(node),
        host::port_unused(node),
        restart_pending(node),
        dry_run(node),
        actor_restarted(node),
    ]
    .into_iter()
    .flatten()
    .collect();
    findings.extend(servers_down(node));
    findings.extend(process_restarting(node, now));
    findings.sort_by_key(|finding| (finding.severity, finding.id));
    Health { findings }
}

/// Returns the present findings by their labels, for the log of events.
pub fn present_findings(node: &Snapshot, now: Uptime) -> Vec<PresentFinding> {
    let present = |finding: Finding| PresentFinding {
        finding: finding.id.label(),
        severity: finding.severity.label(),
        seen: finding.seen,
    };
    assess(node, now)
        .findings
        .into_iter()
        .map(present)
        .collect()
}

fn stale_telemetry(node: &Snapshot, now: Uptime) -> Option<Finding> {
    let age = now.since(node.at);
    let seen = || format!("the figures below are {} old", span(age));
    (age > STALE).then(|| Finding::new(FindingId::StaleTelemetry, seen()).time(age))
}

fn revoked(node: &Snapshot) -> Option<Finding> {
    let own = node.certificate.as_ref();
    if own.is_some_and(|own| node.documents.is_serial_revoked(&own.serial)) {
        let seen = "the certificate of this node is revoked, and other nodes reject it";
        return Some(Finding::new(FindingId::Revoked, seen));
    }
    let is_rejected = node.registry.is_certificate_rejected && node.registry.failure.is_some();
    is_rejected.then(|| {
        let seen =
            "the registry rejects the certificate of this node: it is revoked, unknown or expired";
        Finding::new(FindingId::Revoked, seen)
    })
}

fn certificate(node: &Snapshot, now: Uptime) -> Option<Finding> {
    let own = node.certificate.as_ref()?;
    let wall_s = node.unix(now).as_secs();
    let Some(left_s) = own.not_after_s.checked_sub(wall_s).filter(|left| *left > 0) else {
        let ago = Duration::from_secs(wall_s.saturating_sub(own.not_after_s));
        let seen = format!("the certificate of this node expired {} ago", span(ago));
        let finding = Finding::new(FindingId::CertificateExpired, seen);
        return Some(finding.seconds(-ago.as_secs_f64()));
    };
    let left = Duration::from_secs(left_s);
    let lifetime_s = own.not_after_s.saturating_sub(own.not_before_s);
    let expected = Duration::from_secs(lifetime_s / RENEWAL_SHARE).min(RENEWAL_EXPECTED);
    (left < expected).then(|| {
        let seen = format!(
            "the certificate of this node expires in {} and was not renewed",
            span(left)
        );
        Finding::new(FindingId::CertificateExpires, seen).time(left)
    })
}

fn babeld_down(node: &Snapshot) -> Option<Finding> {
    if node.is_babel_up() {
        return None;
    }
    let process = node.processes.processes.iter();
    let process = process.clone().find(|process| process.name == "babeld");
    let seen = match process {
        Some(process) => match (&process.failure, process.pid) {
            (Some(failure), None) => format!("babeld does not run: {failure}"),
            (None, None) => "babeld does not run".to_owned(),
            (_, Some(pid)) => format!("babeld (pid {pid}) does not answer"),
        },
        None => "babeld has not been started yet".to_owned(),
    };
    Some(Finding::new(FindingId::BabeldDown, seen))
}

fn registry_away(node: &Snapshot, now: Uptime) -> Option<Finding> {
    let registry = &node.registry;
    let failure = registry.failure.as_deref()?;
    if registry.is_certificate_rejected {
        return None;
    }
    let failing = now.since(registry.failing_since?);
    let last = match registry.answered_at {
        Some(at) => format!("its last answer came {} ago", span(now.since(at))),
        None => "it has not answered since the start".to_owned(),
    };
    let seen = format!("{failure}; {last}");
    Some(Finding::new(FindingId::RegistryAway, seen).time(failing))
}

fn clock_off(node: &Snapshot) -> Option<Finding> {
    let offset = node.registry.clock_offset_s?;
    if offset.unsigned_abs() <= MAX_CLOCK_OFFSET_S {
        return None;
    }
    let size = span(Duration::from_secs(offset.unsigned_abs()));
    let direction = if offset > 0 { "behind" } else { "ahead of" };
    let seen = format!("the clock of this host is {size} {direction} the registry's");
    let seconds = Duration::from_secs(offset.unsigned_abs()).as_secs_f64();
    let signed = if offset > 0 { -seconds } else { seconds };
    Some(Finding::new(FindingId::ClockOff, seen).seconds(signed))
}

fn software_outdated(node: &Snapshot) -> Option<Finding> {
    let required = node.required_release()?;
    let own = node.identity.software;
    let seen = format!("the network asks for warren {required} or newer, this is {own}");
    Some(Finding::new(FindingId::SoftwareOutdated, seen))
}

fn restart_pending(node: &Snapshot) -> Option<Finding> {
    let keys = node.pending_restart.as_slice();
    let seen = || {
        format!(
            "the new values of these keys need a restart: {}",
            keys.join(", ")
        )
    };
    (!keys.is_empty()).then(|| Finding::new(FindingId::RestartPending, seen()).count(keys.len()))
}

fn dry_run(node: &Snapshot) -> Option<Finding> {
    let seen = "decisions of the policy are logged and not carried out";
    node.identity
        .dry_run
        .then(|| Finding::new(FindingId::DryRun, seen))
}

fn actor_restarted(node: &Snapshot) -> Option<Finding> {
    let restarted = node.counts.actor_restarts.iter();
    let restarted: Vec<_> = restarted.filter(|(_, count)| **count > 0).collect();
    let names: Vec<_> = restarted.iter().map(|(name, _)| **name).collect();
    let seen = || {
        format!(
            "parts of the daemon were restarted after a panic: {}",
            names.join(", ")
        )
    };
    (!names.is_empty()).then(|| Finding::new(FindingId::ActorRestarted, seen()).count(names.len()))
}

fn servers_down(node: &Snapshot) -> Vec<Finding> {
    let servers = node.processes.processes.iter();
    let down =
        servers.filter(|process| process.name.starts_with("server-") && process.pid.is_none());
    let finding = |process: &os::process::ProcessReading| {
        let cause = process.failure.as_deref().unwrap_or("it has not started");
        let seen = format!("{} does not run: {cause}", process.name);
        Finding::new(FindingId::ServerDown, seen)
    };
    down.map(finding).collect()
}

fn process_restarting(node: &Snapshot, now: Uptime) -> Vec<Finding> {
    let finding = |(name, times): (&String, &std::collections::VecDeque<Uptime>)| {
        let is_recent = |at: &&Uptime| now.since(**at) < RESTART_SPAN;
        let count = times.iter().filter(is_recent).count();
        let seen = || {
            format!(
                "{name} was restarted {count} times within {}",
                span(RESTART_SPAN)
            )
        };
        (count >= MANY_RESTARTS)
            .then(|| Finding::new(FindingId::ProcessRestarting, seen()).count(count))
    };
    node.restarts.iter().filter_map(finding).collect()
}

/// Shows a time span by its two largest parts.
fn span(time: Duration) -> String {
    let total = time.as_secs();
    let (days, hours) = (total / 86_400, total / 3_600 % 24);
    let (minutes, seconds) = (total / 60 % 60, total % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests;
