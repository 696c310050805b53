//! Serves the newest snapshot as Prometheus metrics, and reports whether the node is healthy and
//! ready.
//!
//! `GET /metrics` (text format 0.0.4), `/healthz` and `/readyz`, on TCP or on a Unix socket. A
//! scrape reads what telemetry published and asks no actor.

mod families;
mod process;
mod samples;

pub use families::{FAMILIES, Family, Kind};
pub(crate) use samples::transport;

use crate::sinks::telemetry::{Published, Snapshot};
use actix_web::{
    App, HttpResponse, HttpServer, dev::Server, http::header::ContentType, middleware, web,
};
use families::HEALTHY;
use os::clock::Clock;
use prometheus::{
    Registry, TextEncoder,
    core::{Collector, Desc},
    proto,
};
use samples::{Sample, Seen};
use std::{io, net::SocketAddr, path::PathBuf, time::Duration};
use wire::errors::Chain;

/// The address of the metrics endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// HTTP on TCP.
    Tcp(SocketAddr),
    /// HTTP on a Unix socket; what lies at that path is replaced if it is a socket.
    Unix(PathBuf),
}

/// Metrics cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// The address is taken, or may not be used.
    #[error("cannot serve metrics on {at}")]
    Bind {
        /// The address or path.
        at: String,
        /// The underlying error.
        source: io::Error,
    },
    /// A metric's name or label is wrong: a mistake in [`FAMILIES`].
    #[error("cannot register the metrics")]
    Register(#[source] prometheus::Error),
}

/// A client that has not sent its request by then is sent away.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Scrapers that may be connected at once.
const CONNECTIONS: usize = 64;

/// Binds and returns the server: spawn it on the actors' thread, and stop it by its handle.
///
/// # Errors
/// [`ExporterError`], before anything is served.
pub fn serve(listen: &Listen, clock: Clock, published: Published) -> Result<Server, ExporterError> {
    let registry = registry(published.clone()).map_err(ExporterError::Register)?;
    let make = move || {
        App::new()
            .app_data(web::Data::new(registry.clone()))
            .app_data(web::Data::new(published.clone()))
            .app_data(web::Data::new(clock.clone()))
            .wrap(middleware::Compress::default())
            .route("/metrics", web::get().to(metrics))
            .route("/healthz", web::get().to(healthz))
            .route("/readyz", web::get().to(readyz))
    };
    let server = HttpServer::new(make)
        .workers(1)
        .worker_max_blocking_threads(1)
        .disable_signals()
        .max_connections(CONNECTIONS)
        .client_request_timeout(REQUEST_TIMEOUT)
        .shutdown_timeout(1);
    let (bound, at) = match listen {
        Listen::Tcp(address) => (server.bind(address), address.to_string()),
        Listen::Unix(path) => (server.bind_uds(path), path.display().to_string()),
    };
    bound
        .map(HttpServer::run)
        .map_err(|source| ExporterError::Bind { at, source })
}

/// Builds a Prometheus registry with all metrics of the published snapshot.
///
/// # Errors
/// A name or label that Prometheus does not allow.
pub fn registry(published: Published) -> Result<Registry, prometheus::Error> {
    let desc = |family: &Family| {
        let labels = family.labels.iter().map(ToString::to_string).collect();
        Desc::new(
            family.name.to_owned(),
            family.help.to_owned(),
            labels,
            Default::default(),
        )
    };
    let descs = FAMILIES.iter().map(desc).collect::<Result<_, _>>()?;
    let registry = Registry::new();
    registry.register(Box::new(SnapshotCollector { published, descs }))?;
    Ok(registry)
}

/// Converts the current snapshot into metric families.
struct SnapshotCollector {
    published: Published,
    descs: Vec<Desc>,
}

impl Collector for SnapshotCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let node = self.published.load();
        let process = process::Process::read().inspect_err(
            |error| tracing::debug!(error = %Chain(error), "cannot read the daemon's own process"),
        );
        let seen = Seen {
            node: &node,
            process: process.ok(),
        };
        FAMILIES
            .iter()
            .filter_map(|family| collect(family, (family.read)(&seen)))
            .collect()
    }
}

/// `None` where there is no sample: the text format knows no empty family.
fn collect(family: &Family, samples: Vec<Sample>) -> Option<proto::MetricFamily> {
    if samples.is_empty() {
        return None;
    }
    let metric = |(values, number): Sample| {
        let pair = |(name, value): (&&str, String)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value);
            pair
        };
        let mut metric =
            proto::Metric::from_label(family.labels.iter().zip(values).map(pair).collect());
        match family.kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(number);
                metric.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(number);
                metric.set_gauge(gauge);
            }
        }
        metric
    };
    let mut out = proto::MetricFamily::default();
    out.set_name(family.name.to_owned());
    out.set_help(family.help.to_owned());
    out.set_field_type(match family.kind {
        Kind::Counter => proto::MetricType::COUNTER,
        Kind::Gauge => proto::MetricType::GAUGE,
    });
    out.set_metric(samples.into_iter().map(metric).collect());
    Some(out)
}

async fn metrics(registry: web::Data<Registry>) -> HttpResponse {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => HttpResponse::Ok()
            .content_type(prometheus::TEXT_FORMAT)
            .body(text),
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "metrics cannot be written");
            HttpResponse::InternalServerError()
                .content_type(ContentType::plaintext())
                .body("")
        }
    }
}

/// 200 while telemetry goes on publishing.
async fn healthz(published: web::Data<Published>, clock: web::Data<Clock>) -> HttpResponse {
    let healthy = clock.now().since(published.load().at) < HEALTHY;
    answer(
        healthy,
        "healthy\n",
        "telemetry has published no snapshot lately\n",
    )
}

/// 200 while the node is part of its network, or could be.
async fn readyz(published: web::Data<Published>) -> HttpResponse {
    let ready = Snapshot::ready(&published.load());
    answer(
        ready,
        "ready\n",
        "babeld does not answer, or no tunnel is up and the registry is away\n",
    )
}

fn answer(yes: bool, good: &'static str, bad: &'static str) -> HttpResponse {
    let (mut answer, text) = if yes {
        (HttpResponse::Ok(), good)
    } else {
        (HttpResponse::ServiceUnavailable(), bad)
    };
    answer.content_type(ContentType::plaintext()).body(text)
}
