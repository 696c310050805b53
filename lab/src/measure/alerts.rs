//! Provokes each shipped alert by its fault: real networks, a real Prometheus with the shipped rules, and a real Alertmanager.

mod certificates;
mod drains;
mod hosts;
mod lines;
mod network;
mod processes;
mod registry;

use crate::{
    Lab,
    progress::{progress, seconds},
    prometheus::{Alertmanager, Prometheus, SHORT_FOR_S, short_rules},
    wait::wait_until,
};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::{
    rc::Rc,
    time::{Duration, Instant},
};

/// Longest wait until an alert fires.
const FIRE_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest wait until an alert has ended after the repair: a shortened range, and the time until the network is whole.
const END_TIMEOUT: Duration = Duration::from_secs(240);
/// Longest wait until no alert is active on a network without a fault.
const QUIET_TIMEOUT: Duration = Duration::from_secs(120);
/// No alert may be active for this time before the first fault.
const QUIET_SPAN: Duration = Duration::from_secs(15);
/// An alert must not have fired for this time before its fault.
const MIN_SILENCE: Duration = Duration::from_secs(SHORT_FOR_S);
/// What differs from the shipped rules and the example of a scrape configuration.
const SHORTENED: &str =
    "scraped and evaluated each second; `for` 5 s; ranges [10m] 60 s, longer ones 120 s";

/// Alerts that are provoked in one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Group {
    /// Splits, disconnected nodes, killed daemons.
    Network,
    /// Failed uplinks, lossy and slow lines, and a node with one neighbour.
    Lines,
    /// Processes that exit or hang, panics, and a node that lies.
    Processes,
    /// Clocks, routers, and other programs on a host.
    Hosts,
    /// A registry that is stopped, or cannot write.
    Registry,
    /// Certificates and CAs that expire.
    Certificates,
    /// Closes that are given up.
    Drains,
}

/// Which faults are injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All faults are injected.
    Full,
    /// Those faults whose alerts fire and end within seconds.
    Short,
}

/// One alert and the fault that provoked it.
#[derive(Clone, Debug, Serialize)]
pub struct AlertRecord {
    /// The alert's name.
    pub alert: &'static str,
    /// What was done to the network.
    pub fault: &'static str,
    /// Time before the fault in which the alert did not fire; 0 if the network had the fault from its start.
    pub silent_before_s: f64,
    /// Time from the fault until Alertmanager had the alert; `null` if it never had.
    pub fires_s: Option<f64>,
    /// Time from the end of the fault, or from the beginning of its repair, until the alert ended; `null` if it did not, or if that was not awaited.
    pub ends_s: Option<f64>,
    /// When the fault was over, or its repair began; `None` if that is the repair of all.
    #[serde(skip)]
    over_at: Option<Instant>,
}

/// The output of `measure alerts`.
#[derive(Clone, Debug, Serialize)]
pub struct Alerts {
    /// What was shortened for the measurement.
    shortened: &'static str,
    /// Number of alerts that were provoked, that fired, and that ended after the repair.
    provoked: usize,
    fired: usize,
    ended: usize,
    /// The longest time until an alert fired, and until one ended.
    slowest_fire_s: f64,
    slowest_end_s: f64,
    /// Alerts that did not fire, or did not end, in time.
    failed: Vec<&'static str>,
    alerts: Vec<AlertRecord>,
}

/// Provokes the alerts of these groups, each group in a network of its own.
///
/// # Errors
/// Fails if a lab cannot be built, if an alert fires without a fault, or if a fault cannot be injected.
pub fn measure(groups: &[Group], extent: Extent) -> Result<Alerts> {
    let (mut failed, mut records) = (Vec::new(), Vec::new());
    for group in groups {
        let watch = match group {
            Group::Network => network::measure()?,
            Group::Lines => lines::measure()?,
            Group::Processes => processes::measure(extent)?,
            Group::Hosts => hosts::measure()?,
            Group::Registry => registry::measure()?,
            Group::Certificates => certificates::measure()?,
            Group::Drains => drains::measure()?,
        };
        failed.extend(watch.failed);
        records.extend(watch.records);
    }
    let alerts = Alerts::new(failed, records);
    progress(alerts.summary());
    Ok(alerts)
}

impl Alerts {
    fn new(failed: Vec<&'static str>, alerts: Vec<AlertRecord>) -> Self {
        let count = |times: &dyn Fn(&AlertRecord) -> Option<f64>| {
            let known: Vec<_> = alerts.iter().filter_map(times).collect();
            (known.len(), known.into_iter().fold(0.0, f64::max))
        };
        let (fired, slowest_fire_s) = count(&|alert| alert.fires_s);
        let (ended, slowest_end_s) = count(&|alert| alert.ends_s);
        Self {
            shortened: SHORTENED,
            provoked: alerts.len(),
            fired,
            ended,
            slowest_fire_s,
            slowest_end_s,
            failed,
            alerts,
        }
    }

    /// The outcome in one line.
    fn summary(&self) -> String {
        let Self {
            provoked,
            fired,
            ended,
            ..
        } = self;
        format!(
            "{fired} of {provoked} alerts fired, after {:.1} s at most; {ended} ended, {:.1} s after the repair at most; failed: {:?}",
            self.slowest_fire_s, self.slowest_end_s, self.failed
        )
    }

    /// Alerts that did not fire, or did not end, in time.
    pub fn failed(&self) -> &[&'static str] {
        &self.failed
    }
}

/// Prometheus and Alertmanager of a network, and what has fired so far.
struct Watch {
    prometheus: Rc<Prometheus>,
    alertmanager: Alertmanager,
    started_at: Instant,
    records: Vec<AlertRecord>,
    /// Alerts that did not fire, or did not end, in time.
    failed: Vec<&'static str>,
}

impl Watch {
    /// Starts both beside a network that has converged.
    fn start(lab: &Lab) -> Result<Self> {
        let alertmanager = Alertmanager::start(lab)?;
        Ok(Self {
            prometheus: Rc::new(Prometheus::start_with_alerts(lab, &short_rules(lab)?)?),
            alertmanager,
            started_at: Instant::now(),
            records: Vec::new(),
            failed: Vec::new(),
        })
    }

    /// Starts both, and waits until no alert has been active for a while.
    fn start_quiet(lab: &Lab) -> Result<Self> {
        let watch = Self::start(lab)?;
        let mut quiet_since = Instant::now();
        let mut last = None;
        let is_quiet = || {
            let active = watch.alertmanager.active().ok()?;
            if !active.is_empty() {
                quiet_since = Instant::now();
                last = Some(active);
            }
            (quiet_since.elapsed() >= QUIET_SPAN).then_some(())
        };
        let is_quiet = wait_until(QUIET_TIMEOUT, is_quiet);
        is_quiet.with_context(|| format!("alerts fire without a fault: {last:?}"))?;
        progress("no alert fires without a fault");
        Ok(watch)
    }

    /// Waits until these alerts are silent, and injects a fault that lasts until [`Watch::end`].
    /// Then waits until all of them have reached Alertmanager.
    fn fire(
        &mut self,
        fault: &'static str,
        alerts: &[&'static str],
        inject: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let silences = || -> Result<Vec<_>> {
            let silences = alerts.iter().map(|alert| self.silent_for(alert));
            silences.collect()
        };
        let mut last = Ok(Vec::new());
        let are_silent = wait_until(QUIET_TIMEOUT, || {
            last = silences();
            let mut silences = last.as_ref().ok()?.iter();
            silences.all(|silent| *silent >= MIN_SILENCE).then_some(())
        });
        let silent = last?;
        ensure!(
            are_silent.is_some(),
            "{alerts:?}: one fires before its fault; they have been silent for {silent:?}"
        );
        progress(fault);
        let injected_at = Instant::now();
        inject().context(fault)?;
        for (alert, silent) in alerts.iter().zip(silent) {
            let is_active = || {
                let active = self.alertmanager.active().ok()?;
                active
                    .contains(*alert)
                    .then(|| seconds(injected_at.elapsed()))
            };
            let deadline = FIRE_TIMEOUT.saturating_sub(injected_at.elapsed());
            let fires_s = wait_until(deadline, is_active);
            self.record(fault, alert, silent, fires_s);
        }
        Ok(())
    }

    /// Like [`Watch::fire`], for a fault that is over when `inject` returns.
    fn fire_once(
        &mut self,
        fault: &'static str,
        alerts: &[&'static str],
        inject: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut over_at = None;
        let fired = self.fire(fault, alerts, || {
            let injected = inject();
            over_at = Some(Instant::now());
            injected
        });
        let of_fault = self
            .records
            .iter_mut()
            .filter(|record| alerts.contains(&record.alert));
        of_fault.for_each(|record| record.over_at = over_at);
        fired
    }

    /// Waits until alerts have reached Alertmanager whose fault the network has had from its start.
    fn fire_from_start(&mut self, fault: &'static str, alerts: &[&'static str]) -> Result<()> {
        for alert in alerts {
            let is_active = || {
                let active = self.alertmanager.active().ok()?;
                active
                    .contains(*alert)
                    .then(|| seconds(self.started_at.elapsed()))
            };
            let fires_s = wait_until(FIRE_TIMEOUT, is_active);
            self.record(fault, alert, Duration::ZERO, fires_s);
        }
        Ok(())
    }

    fn record(
        &mut self,
        fault: &'static str,
        alert: &'static str,
        silent: Duration,
        fires_s: Option<f64>,
    ) {
        progress(format!("{alert} fires after {fires_s:?} s"));
        self.failed.extend(fires_s.is_none().then_some(alert));
        self.records.push(AlertRecord {
            alert,
            fault,
            silent_before_s: seconds(silent),
            fires_s,
            ends_s: None,
            over_at: None,
        });
    }

    /// Repairs the fault of one alert at once, and does not wait for the end of the alert.
    fn repair(&mut self, alert: &'static str, repair: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut records = self.records.iter_mut();
        if let Some(record) = records.find(|record| record.alert == alert) {
            record.over_at = Some(Instant::now());
        }
        repair()
    }

    /// Repairs all other faults, and waits until all alerts that fired have left Alertmanager.
    fn end(&mut self, repair: impl FnOnce() -> Result<()>) -> Result<()> {
        let repaired_at = Instant::now();
        repair()?;
        let mut records = std::mem::take(&mut self.records);
        for record in records.iter_mut().filter(|record| record.ends_s.is_none()) {
            let deadline = END_TIMEOUT.saturating_sub(repaired_at.elapsed());
            let has_ended = || {
                let active = self.alertmanager.active().ok()?;
                (!active.contains(record.alert)).then_some(())
            };
            match wait_until(deadline, has_ended) {
                Some(()) => {
                    let over_at = record.over_at.unwrap_or(repaired_at);
                    let silent = self.silent_for(record.alert)?;
                    record.ends_s = Some(seconds(over_at.elapsed().saturating_sub(silent)));
                }
                None => self.failed.push(record.alert),
            }
            progress(format!("{} ends after {:?} s", record.alert, record.ends_s));
        }
        self.records = records;
        Ok(())
    }

    /// How long an alert has not fired.
    fn silent_for(&self, alert: &str) -> Result<Duration> {
        let firing = format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}");
        let span = self.started_at.elapsed();
        let query = format!(
            "time() - max(max_over_time(timestamp({firing})[{}s:1s]))",
            span.as_secs().max(1)
        );
        let samples = self.prometheus.query(&query)?;
        let silent = samples
            .first()
            .map(|sample| Duration::from_secs_f64(sample.value.max(0.0)));
        Ok(silent.unwrap_or(span))
    }
}
