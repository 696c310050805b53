//! Serves the registry's metrics in the text format of Prometheus over plain HTTP.

use crate::{clock::WallClock, service::queue::Queue};
use actix_web::{HttpResponse, dev::ServiceResponse, web};
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use std::sync::Arc;

/// Counts responses, and exposes the state of documents and certificates.
#[derive(Clone)]
pub(crate) struct Counts(Arc<Families>);

struct Families {
    registry: Registry,
    answers: IntCounterVec,
    nodes: IntGaugeVec,
    versions: IntGaugeVec,
    document_nodes: IntGaugeVec,
    ca_end: IntGaugeVec,
    jobs: IntGauge,
    batches: IntGauge,
    now: IntGauge,
}

impl Counts {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let made = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(made.clone()))?;
            Ok::<_, prometheus::Error>(made)
        };
        let gauge = |name: &str, help: &str| {
            let made = IntGauge::new(name, help)?;
            registry.register(Box::new(made.clone()))?;
            Ok::<_, prometheus::Error>(made)
        };
        let answers = IntCounterVec::new(
            Opts::new(
                "warren_registry_responses_total",
                "Responses to nodes, by call and HTTP status.",
            ),
            &["call", "status"],
        )?;
        registry.register(Box::new(answers.clone()))?;
        let families = Families {
            answers,
            nodes: gauges(
                "warren_registry_nodes",
                "Nodes with a live certificate; those with a valid announcement; those that at least two others cannot dial.",
                &["state"],
            )?,
            versions: gauges(
                "warren_registry_document_version",
                "Versions of the signed documents.",
                &["document"],
            )?,
            document_nodes: gauges(
                "warren_registry_document_nodes",
                "Nodes that have received, or have applied, the latest version of a document.",
                &["document", "state"],
            )?,
            ca_end: gauges(
                "warren_registry_ca_expiry_timestamp_seconds",
                "Expiry of each CA and of the root; the CA that signs has the role current.",
                &["role"],
            )?,
            jobs: gauge(
                "warren_registry_requests",
                "Requests that were answered since the start.",
            )?,
            batches: gauge(
                "warren_registry_transactions",
                "Transactions in which they were written.",
            )?,
            now: gauge(
                "warren_registry_clock_timestamp_seconds",
                "The registry's clock.",
            )?,
            registry: registry.clone(),
        };
        Ok(Self(Arc::new(families)))
    }

    /// Counts a response. All unknown paths share one label.
    pub(crate) fn count_response<B>(&self, answer: &ServiceResponse<B>) {
        let call = answer
            .request()
            .match_pattern()
            .unwrap_or_else(|| "other".to_owned());
        self.0
            .answers
            .with_label_values(&[call.as_str(), answer.status().as_str()])
            .inc();
    }
}

fn signed(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Serves `GET /metrics`.
pub(crate) async fn serve(shared: web::Data<(Queue, Counts, WallClock)>) -> HttpResponse {
    let (queue, counts, clock) = shared.get_ref();
    let families = &counts.0;
    let state = queue
        .ask(|service| Ok((service.rollout()?, service.ca_expiries())))
        .await;
    let Ok((rollout, ends)) = state else {
        return HttpResponse::InternalServerError().body("the registry cannot read its state\n");
    };
    let nodes = [
        ("live", rollout.nodes),
        ("announced", rollout.announced),
        ("unreachable", rollout.unreachable),
    ];
    for (state, count) in nodes {
        families
            .nodes
            .with_label_values(&[state])
            .set(signed(count));
    }
    for (document, version) in [
        ("network", rollout.network_version),
        ("revocations", rollout.revocations_version),
    ] {
        families
            .versions
            .with_label_values(&[document])
            .set(i64::try_from(version).unwrap_or(i64::MAX));
    }
    for (document, state, count) in [
        ("network", "received", rollout.network_received),
        ("network", "applied", rollout.network_applied),
        ("revocations", "received", rollout.revocations_received),
    ] {
        families
            .document_nodes
            .with_label_values(&[document, state])
            .set(signed(count));
    }
    families.ca_end.reset();
    for (role, end) in ends {
        families.ca_end.with_label_values(&[role]).set(end.0);
    }
    let (jobs, batches) = queue.done();
    families.jobs.set(i64::try_from(jobs).unwrap_or(i64::MAX));
    families
        .batches
        .set(i64::try_from(batches).unwrap_or(i64::MAX));
    families.now.set(clock().0);
    match TextEncoder::new().encode_to_string(&families.registry.gather()) {
        Ok(text) => HttpResponse::Ok()
            .content_type("text/plain; version=0.0.4; charset=utf-8")
            .body(text),
        Err(error) => HttpResponse::InternalServerError().body(format!("{error}\n")),
    }
}
