//! All metrics of the registry; `docs/REGISTRY.md` documents them.

use crate::{numbers::signed, service::queue::Work};
use os::process_usage::OwnUsage;
use prometheus::{
    Counter, Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, core::Collector,
};
use std::{fs, path::Path};

/// The bounds of the time to answer a call, in seconds. A long poll for revocations takes up to a minute.
const BOUNDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 90.0,
];

/// All metrics of the registry, registered.
pub(super) struct Families {
    pub(super) registry: Registry,
    pub(super) build: IntGaugeVec,
    pub(super) answers: IntCounterVec,
    pub(super) durations: HistogramVec,
    pub(super) nodes: IntGaugeVec,
    pub(super) versions: IntGaugeVec,
    pub(super) document_nodes: IntGaugeVec,
    pub(super) ca_end: IntGaugeVec,
    /// When the figures of nodes, documents and CAs were read.
    pub(super) read_at: IntGauge,
    pub(super) now: IntGauge,
    pub(super) own: OwnProcess,
    work: WorkFigures,
}

/// The figures of the registry's own process.
pub(super) struct OwnProcess {
    cpu: Counter,
    resident: IntGauge,
    virtual_memory: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    threads: IntGauge,
    pub(super) start_time: Gauge,
}

/// The figures of the queue and of the database.
struct WorkFigures {
    requests: IntCounter,
    transactions: IntCounter,
    waiting: IntGauge,
    database_bytes: IntGauge,
}

impl Families {
    /// Registers all metrics.
    ///
    /// # Errors
    /// Prometheus does not allow a name or a label.
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let new = New(&registry);
        Ok(Self {
            build: new.gauges(
                "warren_registry_build_info",
                "Software of the registry; always 1.",
                &["version", "revision"],
            )?,
            answers: new.register(IntCounterVec::new(
                Opts::new(
                    "warren_registry_responses_total",
                    "Responses to nodes, by call and HTTP status.",
                ),
                &["call", "status"],
            ))?,
            durations: new.register(HistogramVec::new(
                HistogramOpts::new(
                    "warren_registry_response_seconds",
                    "Time from a request of a node to the response, by call; a long poll waits up to a minute.",
                )
                .buckets(BOUNDS.to_vec()),
                &["call"],
            ))?,
            nodes: new.gauges(
                "warren_registry_nodes",
                "Nodes with a live certificate; those with a valid announcement; those that at least two others cannot dial.",
                &["state"],
            )?,
            versions: new.gauges(
                "warren_registry_document_version",
                "Versions of the signed documents.",
                &["document"],
            )?,
            document_nodes: new.gauges(
                "warren_registry_document_nodes",
                "Nodes that have received, or have applied, the latest version of a document.",
                &["document", "state"],
            )?,
            ca_end: new.gauges(
                "warren_registry_ca_expiry_timestamp_seconds",
                "Expiry of each CA and of the root; the CA that signs has the role current.",
                &["role"],
            )?,
            read_at: new.gauge(
                "warren_registry_reading_timestamp_seconds",
                "When the figures of nodes, documents and CAs were last read; they stay while the database cannot be used.",
            )?,
            now: new.gauge(
                "warren_registry_clock_timestamp_seconds",
                "The registry's clock.",
            )?,
            own: OwnProcess::new(&new)?,
            work: WorkFigures::new(&new)?,
            registry: registry.clone(),
        })
    }

    /// Sets the figures of the queue.
    pub(super) fn set_work(&self, work: Work) {
        raise(&self.work.requests, work.requests);
        raise(&self.work.transactions, work.transactions);
        self.work.waiting.set(signed(work.waiting));
    }

    /// Reads the size of the database; it stays as it is if that fails.
    pub(super) fn set_database(&self, database: &Path) {
        let size = |path: &Path| fs::metadata(path).map(|file| file.len()).ok();
        let log = database.with_extension("sqlite-wal");
        if let Some(bytes) = size(database) {
            let total = bytes.saturating_add(size(&log).unwrap_or(0));
            self.work.database_bytes.set(signed(total));
        }
    }
}

impl OwnProcess {
    fn new(new: &New<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            cpu: new.register(Counter::new(
                "process_cpu_seconds_total",
                "CPU time of the registry, user and system.",
            ))?,
            resident: new.gauge(
                "process_resident_memory_bytes",
                "Resident memory of the registry.",
            )?,
            virtual_memory: new.gauge(
                "process_virtual_memory_bytes",
                "Virtual memory of the registry.",
            )?,
            open_fds: new.gauge("process_open_fds", "Open file descriptors of the registry.")?,
            max_fds: new.gauge(
                "process_max_fds",
                "Most file descriptors that the registry may open.",
            )?,
            threads: new.gauge("process_threads", "Threads of the registry.")?,
            start_time: new.register(Gauge::new(
                "process_start_time_seconds",
                "When the registry started.",
            ))?,
        })
    }

    /// Reads the figures; they stay as they are if /proc cannot be read.
    pub(super) fn read(&self) {
        let Ok(own) = OwnUsage::read() else { return };
        let grown = own.usage.cpu.as_secs_f64() - self.cpu.get();
        self.cpu.inc_by(grown.max(0.0));
        self.resident.set(signed(own.usage.resident_bytes));
        self.virtual_memory.set(signed(own.virtual_bytes));
        self.threads.set(signed(own.threads));
        let limits = [(&self.open_fds, own.open_fds), (&self.max_fds, own.max_fds)];
        for (gauge, value) in limits {
            if let Some(value) = value {
                gauge.set(signed(value));
            }
        }
    }
}

impl WorkFigures {
    fn new(new: &New<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            requests: new.register(IntCounter::new(
                "warren_registry_requests_total",
                "Requests to the database that were carried out.",
            ))?,
            transactions: new.register(IntCounter::new(
                "warren_registry_transactions_total",
                "Transactions in which they were written.",
            ))?,
            waiting: new.gauge(
                "warren_registry_requests_waiting",
                "Requests that wait for the database; from 1024 on, further ones are rejected.",
            )?,
            database_bytes: new.gauge(
                "warren_registry_database_bytes",
                "Size of the database, with its write-ahead log.",
            )?,
        })
    }
}

/// Creates metrics, and registers them.
struct New<'a>(&'a Registry);

impl New<'_> {
    fn register<C: Collector + Clone + 'static>(
        &self,
        made: Result<C, prometheus::Error>,
    ) -> Result<C, prometheus::Error> {
        let made = made?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::new(name, help))
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }
}

/// Raises a counter to a value that was counted elsewhere.
fn raise(counter: &IntCounter, value: u64) {
    counter.inc_by(value.saturating_sub(counter.get()));
}
