//! The registry's calls over HTTP: reads a request, asks the desk, writes an answer.

use crate::desk::{Desk, Refusal};
use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    body::BoxBody,
    http::{StatusCode, header},
    web,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use wire::registry::{Announcement, BODY_LIMIT, Claim, Problem, Renewal};

/// The desk, shared by the servers.
pub type SharedDesk = Arc<Mutex<Desk>>;

/// The longest that a call for revocations is held open.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The desk's lock. A panic while it was held left the database as its last transaction did.
pub(crate) fn lock(desk: &SharedDesk) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whom a TLS connection comes from: put into each request by the server.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Address of the other end.
    pub(crate) address: IpAddr,
    /// Serial number of the certificate that it proved to own, verified against the CA.
    pub(crate) serial: Option<String>,
}

/// An answer that is no.
#[derive(Debug)]
pub(crate) struct No(pub(crate) Problem);

impl fmt::Display for No {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.title, self.0.detail)
    }
}

impl ResponseError for No {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        HttpResponse::build(self.status_code()).content_type("application/problem+json").body(body)
    }
}

pub(crate) fn no(status: StatusCode, title: &str, detail: String, field: Option<&str>) -> No {
    No(Problem {
        kind: "about:blank".into(),
        title: title.into(),
        status: status.as_u16(),
        detail,
        field: field.map(str::to_owned),
    })
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        let (status, title, field) = match &refusal {
            Refusal::Version { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "unknown version", Some("version")),
            Refusal::Token => (StatusCode::FORBIDDEN, "token refused", Some("token")),
            Refusal::TooMany => (StatusCode::TOO_MANY_REQUESTS, "too many failures", None),
            Refusal::Request(_) => (StatusCode::UNPROCESSABLE_ENTITY, "request refused", Some("csr")),
            Refusal::KeyKnown => (StatusCode::CONFLICT, "key refused", Some("csr")),
            Refusal::Full => (StatusCode::INSUFFICIENT_STORAGE, "no prefix left", None),
            Refusal::NoCertificate => (StatusCode::UNAUTHORIZED, "certificate needed", None),
            Refusal::NoMember => (StatusCode::FORBIDDEN, "certificate refused", None),
            Refusal::TooEarly => (StatusCode::CONFLICT, "too early", None),
            Refusal::NoSuchNode { .. } => (StatusCode::NOT_FOUND, "no such node", Some("prefix")),
            Refusal::Failed(error) => {
                tracing::error!(error = %Causes(error.as_ref()), "a request failed");
                (StatusCode::INTERNAL_SERVER_ERROR, "the registry failed", None)
            }
        };
        no(status, title, refusal.to_string(), field)
    }
}

/// Prints an error with its causes.
pub(crate) struct Causes<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

fn answer<T: Serialize>(document: &T) -> Result<HttpResponse, No> {
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(document))
}

/// Reads a body that is JSON of at most [`BODY_LIMIT`] bytes, whatever its type is said to be.
pub(crate) fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, No> {
    serde_json::from_slice(bytes).map_err(|error| {
        let text = error.to_string();
        // serde names the field in backquotes; it never quotes a value there.
        let field = text.split_once("field `").and_then(|(_, rest)| rest.split_once('`'));
        let detail = format!("line {} column {}", error.line(), error.column());
        no(StatusCode::BAD_REQUEST, "not the document expected", detail, field.map(|(name, _)| name))
    })
}

fn caller(request: &HttpRequest) -> Result<Caller, No> {
    let unknown = || no(StatusCode::INTERNAL_SERVER_ERROR, "unknown caller", String::new(), None);
    request.conn_data::<Caller>().cloned().ok_or_else(unknown)
}

fn member(request: &HttpRequest, desk: &Desk) -> Result<crate::storage::Member, No> {
    let serial = caller(request)?.serial.ok_or(Refusal::NoCertificate)?;
    Ok(desk.member(&serial)?)
}

async fn claim(
    request: HttpRequest,
    bytes: web::Bytes,
    desk: web::Data<SharedDesk>,
) -> Result<HttpResponse, No> {
    let from = caller(&request)?.address;
    let claim: Claim = body(&bytes)?;
    answer(&lock(&desk).claim(from, &claim)?)
}

async fn renew(
    request: HttpRequest,
    bytes: web::Bytes,
    desk: web::Data<SharedDesk>,
) -> Result<HttpResponse, No> {
    let mut desk = lock(&desk);
    let member = member(&request, &desk)?;
    let renewal: Renewal = body(&bytes)?;
    answer(&desk.renew(&member, &renewal)?)
}

async fn announce(
    request: HttpRequest,
    bytes: web::Bytes,
    desk: web::Data<SharedDesk>,
) -> Result<HttpResponse, No> {
    let mut desk = lock(&desk);
    let member = member(&request, &desk)?;
    let announcement: Announcement = body(&bytes)?;
    answer(&desk.announce(&member, &announcement)?)
}

#[derive(Deserialize)]
struct Count {
    count: Option<usize>,
}

async fn bootstrap(
    request: HttpRequest,
    query: web::Query<Count>,
    desk: web::Data<SharedDesk>,
) -> Result<HttpResponse, No> {
    let desk = lock(&desk);
    let member = member(&request, &desk)?;
    answer(&desk.bootstrap(&member, query.count.unwrap_or(10))?)
}

async fn network(request: HttpRequest, desk: web::Data<SharedDesk>) -> Result<HttpResponse, No> {
    let desk = lock(&desk);
    member(&request, &desk)?;
    answer(&desk.network())
}

#[derive(Deserialize)]
struct After {
    after: Option<u64>,
    wait: Option<u64>,
}

/// Answers at once where there is news, else when there is or `wait` seconds are over; an answer
/// without news is 204.
async fn revocations(
    request: HttpRequest,
    query: web::Query<After>,
    desk: web::Data<SharedDesk>,
) -> Result<HttpResponse, No> {
    let after = query.after.unwrap_or(0);
    let mut news = {
        let desk = lock(&desk);
        member(&request, &desk)?;
        desk.news()
    };
    let wait = Duration::from_secs(query.wait.unwrap_or(0)).min(LONGEST_WAIT);
    drop(tokio::time::timeout(wait, news.wait_for(|version| *version > after)).await);
    let desk = lock(&desk);
    // Once more: it may have been this very member who was revoked.
    member(&request, &desk)?;
    let (version, list) = desk.revocations();
    if version > after { answer(&list) } else { Ok(HttpResponse::NoContent().finish()) }
}

async fn nothing_here(request: HttpRequest) -> Result<HttpResponse, No> {
    Err(no(StatusCode::NOT_FOUND, "no such call", format!("{} {}", request.method(), request.path()), None))
}

async fn other_method(request: HttpRequest) -> Result<HttpResponse, No> {
    let detail = format!("{} {}", request.method(), request.path());
    Err(no(StatusCode::METHOD_NOT_ALLOWED, "no such method here", detail, None))
}

/// Limits and answers that all servers of the registry share.
pub(crate) fn common(config: &mut web::ServiceConfig) {
    config
        .app_data(web::PayloadConfig::new(BODY_LIMIT))
        .app_data(web::QueryConfig::default().error_handler(|error, _| {
            no(StatusCode::BAD_REQUEST, "query not understood", error.to_string(), None).into()
        }))
        .default_service(web::to(nothing_here));
}

/// The calls that nodes make.
pub(crate) fn routes(config: &mut web::ServiceConfig) {
    let resource = |path: &str| web::resource(path).default_service(web::to(other_method));
    config
        .service(resource("/v1/claims").route(web::post().to(claim)))
        .service(resource("/v1/renewals").route(web::post().to(renew)))
        .service(resource("/v1/nodes/self").route(web::put().to(announce)))
        .service(resource("/v1/bootstrap").route(web::get().to(bootstrap)))
        .service(resource("/v1/network").route(web::get().to(network)))
        .service(resource("/v1/revocations").route(web::get().to(revocations)));
}
