//! Serves the registry's metrics in the text format of Prometheus over plain HTTP.

mod families;
mod map;
mod targets;

use crate::{
    clock::{UnixSeconds, WallClock},
    numbers::signed,
    service::{Rollout, queue::Queue},
};
use actix_web::{
    App, FromRequest, Handler, HttpResponse, HttpServer, Resource, Responder,
    dev::{Server, ServiceResponse},
    http::header::ContentType,
    middleware, web,
};
use families::Families;
use os::clock::Clock;
use prometheus::TextEncoder;
use std::{io, net::TcpListener, path::PathBuf, sync::Arc, time::Duration};
use wire::map::{MAP_PAGE_PATH, MAP_UPDATE_PATH};

/// Longest wait for the state of nodes and documents. Prometheus waits for at least a second.
const STATE_TIMEOUT: Duration = Duration::from_millis(500);

/// Counts responses, and exposes the state of documents and certificates.
#[derive(Clone)]
pub(crate) struct Counts(Arc<Families>);

/// What the metrics are read from at each scrape.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) queue: Queue,
    pub(crate) counts: Counts,
    /// The clock by which certificates are judged.
    pub(crate) clock: WallClock,
    /// The path of the database.
    pub(crate) database: PathBuf,
}

impl Counts {
    /// Registers all metrics. `revision` is the commit of the program.
    ///
    /// # Errors
    /// Prometheus does not allow a name or a label.
    pub(crate) fn new(revision: &str) -> Result<Self, prometheus::Error> {
        let families = Families::new()?;
        families
            .build
            .with_label_values(&[env!("CARGO_PKG_VERSION"), revision])
            .set(1);
        if let Ok(own) = os::process_usage::OwnUsage::read() {
            let booted_at = os::clock::wall().saturating_sub(Clock::boottime().now().0);
            families
                .own
                .start_time
                .set((booted_at + own.started).as_secs_f64());
        }
        Ok(Self(Arc::new(families)))
    }

    /// Counts a response, and the time that it took. All unknown paths share one label.
    pub(crate) fn count_response<B>(&self, answer: &ServiceResponse<B>, took: Duration) {
        let call = answer
            .request()
            .match_pattern()
            .unwrap_or_else(|| "other".to_owned());
        let families = &self.0;
        families
            .answers
            .with_label_values(&[call.as_str(), answer.status().as_str()])
            .inc();
        families
            .durations
            .with_label_values(&[call.as_str()])
            .observe(took.as_secs_f64());
    }
}

/// Serves the metrics to those who connect to this listener.
///
/// # Errors
/// The listener cannot be used.
pub(crate) fn serve(listener: TcpListener, source: Source) -> io::Result<Server> {
    let source = web::Data::new(source);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(source.clone())
            .wrap(middleware::Compress::default())
            .service(page("/", index))
            .service(page("/metrics", metrics))
            .service(page("/targets", targets::list))
            .service(page(MAP_PAGE_PATH, map::page))
            .service(page(MAP_UPDATE_PATH, map::update))
    });
    let server = server.workers(1).disable_signals().shutdown_timeout(1);
    Ok(server.listen(listener)?.run())
}

/// Returns a resource that answers GET and HEAD.
fn page<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args> + Copy,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path)
        .route(web::get().to(handler))
        .route(web::head().to(handler))
}

/// Answers requests for `/metrics`.
async fn metrics(source: web::Data<Source>) -> HttpResponse {
    let Source {
        queue,
        counts,
        clock,
        database,
    } = source.get_ref();
    let families = &counts.0;
    // A database that cannot be written makes each request wait; the figures of the last reading stay.
    let state = queue.ask(|service| Ok((service.rollout()?, service.ca_expiries())));
    if let Ok(Ok((rollout, ends))) = tokio::time::timeout(STATE_TIMEOUT, state).await {
        set_state(families, &rollout, ends);
        families.read_at.set(clock().0);
    }
    families.set_work(queue.work());
    families.set_database(database);
    families.now.set(clock().0);
    families.own.read();
    match TextEncoder::new().encode_to_string(&families.registry.gather()) {
        Ok(text) => HttpResponse::Ok()
            .content_type(prometheus::TEXT_FORMAT)
            .body(text),
        Err(error) => HttpResponse::InternalServerError().body(format!("{error}\n")),
    }
}

/// Sets the figures of nodes, documents and CAs.
fn set_state(families: &Families, rollout: &Rollout, ends: Vec<(&str, UnixSeconds)>) {
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
}

/// Answers requests for `/` with a page that links to the others.
async fn index() -> HttpResponse {
    let page = concat!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>warren registry</title></head>",
        "<body><h1>warren ",
        env!("CARGO_PKG_VERSION"),
        ", registry</h1><ul><li><a href=\"/metrics\">metrics</a></li>",
        "<li><a href=\"/targets\">targets</a>: all nodes, for http_sd_configs of Prometheus</li>",
        "<li><a href=\"/map\">map</a>: all nodes, and which of them announce themselves</li></ul></body></html>\n"
    );
    HttpResponse::Ok()
        .content_type(ContentType::html())
        .body(page)
}
