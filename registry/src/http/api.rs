//! The calls of nodes: reads a request, calls the service, writes the response.

use crate::{
    http::{
        calls::Call,
        problem::{ApiError, Body, api_error},
        query,
    },
    service::{
        ShownCertificate, check_version, error::ServiceError, proven, queue::Queue, renewal_key,
    },
};
use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    http::{StatusCode, header},
    web,
};
use serde::Serialize;
use std::{net::IpAddr, time::Duration};
use wire::registry::{Announcement, Claim, MAX_NODES, Renewal};

/// The longest that a call for news is held open, in seconds.
pub(crate) const MAX_WAIT_SECONDS: u64 = 60;

/// The other end of a TLS connection; the server puts it into each request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Address of the other end.
    pub(crate) address: IpAddr,
    /// The certificate that it proved to own, verified against the CA.
    pub(crate) shown: Option<ShownCertificate>,
}

fn answer<T: Serialize>(document: &T) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(document))
}

fn caller(request: &HttpRequest) -> Result<Caller, ApiError> {
    let unknown = || {
        api_error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "unknown caller",
            String::new(),
            None,
        )
    };
    request.conn_data::<Caller>().cloned().ok_or_else(unknown)
}

/// The caller's certificate.
fn shown(request: &HttpRequest) -> Result<ShownCertificate, ApiError> {
    Ok(caller(request)?.shown.ok_or(ServiceError::NoCertificate)?)
}

async fn claim(
    request: HttpRequest,
    body: Body,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, ApiError> {
    let from = caller(&request)?.address;
    let claim: Claim = body.read()?;
    let key = proven(claim.version, &claim.csr)?;
    answer(
        &queue
            .ask(move |service| service.claim(from, &claim, key))
            .await?,
    )
}

async fn renew(
    request: HttpRequest,
    body: Body,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, ApiError> {
    let shown = shown(&request)?;
    let read = || -> Result<_, ApiError> { Ok(renewal_key(&body.read::<Renewal>()?)?) };
    let key = read();
    // A caller that may not renew gets that error first, whatever it sent.
    let asked = move |service: &mut crate::service::RegistryService| {
        service.renewable(&shown)?;
        key.map(|key| service.renew(&shown, &key))
            .map_or_else(|no| Ok(Err(no)), |renewed| renewed.map(Ok))
    };
    answer(&queue.ask(asked).await??)
}

async fn announce(
    request: HttpRequest,
    body: Body,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, ApiError> {
    let shown = shown(&request)?;
    let said = body.read::<Announcement>();
    let asked = move |service: &mut crate::service::RegistryService| {
        let member = service.member(&shown)?;
        match said {
            Ok(said) => {
                check_version(said.version)?;
                service.announce(&member, &said).map(Ok)
            }
            Err(no) => Ok(Err(no)),
        }
    };
    answer(&queue.ask(asked).await??)
}

async fn bootstrap(
    request: HttpRequest,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, ApiError> {
    let shown = shown(&request)?;
    let most = u64::try_from(MAX_NODES).unwrap_or(u64::MAX);
    let count = query::number(&request, "count", most)?.unwrap_or(10);
    let count = usize::try_from(count).unwrap_or(MAX_NODES);
    let told = queue.ask(move |service| {
        let member = service.member(&shown)?;
        service.bootstrap(&member, count)
    });
    answer(&told.await?)
}

/// Answers at once where there is news, else when there is or `wait` seconds are over; an answer
/// without news is 204.
async fn news(
    call: Call,
    request: HttpRequest,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, ApiError> {
    let shown = shown(&request)?;
    let after = query::number(&request, "after", u64::MAX)?.unwrap_or(0);
    let wait = query::number(&request, "wait", MAX_WAIT_SECONDS)?.unwrap_or(0);
    let read = || {
        let shown = shown.clone();
        queue.ask(move |service| {
            service.member(&shown)?;
            Ok(if call == Call::Network {
                service.network()
            } else {
                service.revocations()
            })
        })
    };
    let wait = Duration::from_secs(wait);
    let mut news = queue.news();
    let (mut version, mut document) = read().await?;
    if version <= after && !wait.is_zero() {
        let is_news = |now: &crate::service::Versions| {
            (if call == Call::Network {
                now.network
            } else {
                now.revocations
            }) > after
        };
        drop(tokio::time::timeout(wait, news.wait_for(is_news)).await);
        // Once more: it may have been this very member who was revoked.
        (version, document) = read().await?;
    }
    if version > after {
        answer(&document)
    } else {
        Ok(HttpResponse::NoContent().finish())
    }
}

async fn nothing_here(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Err(api_error(
        StatusCode::NOT_FOUND,
        "no such call",
        format!("{} {}", request.method(), request.path()),
        None,
    ))
}

/// `allow` are the methods that there are.
async fn other_method(request: HttpRequest, allow: String) -> HttpResponse {
    let detail = format!("{} {}", request.method(), request.path());
    let mut answer = api_error(
        StatusCode::METHOD_NOT_ALLOWED,
        "no such method here",
        detail,
        None,
    )
    .error_response();
    if let Ok(allow) = header::HeaderValue::try_from(allow) {
        answer.headers_mut().insert(header::ALLOW, allow);
    }
    answer
}

/// Answers that all servers of the registry share.
pub(crate) fn common(config: &mut web::ServiceConfig) {
    config.default_service(web::to(nothing_here));
}

/// All calls of one server, each with its handler.
pub(crate) fn routes(config: &mut web::ServiceConfig, operator: bool) {
    for (path, calls) in Call::by_path(operator) {
        let methods: Vec<_> = calls
            .iter()
            .map(|call| call.route().0.to_string())
            .collect();
        let allow = methods.join(", ");
        let other = web::to(move |request| other_method(request, allow.clone()));
        let resource = web::resource(path).default_service(other);
        config.service(calls.into_iter().fold(resource, |resource, call| {
            let route = web::method(call.route().0);
            resource.route(handler(call, route))
        }));
    }
}

fn handler(call: Call, route: actix_web::Route) -> actix_web::Route {
    match call {
        Call::Claim => route.to(claim),
        Call::Renew => route.to(renew),
        Call::Announce => route.to(announce),
        Call::Bootstrap => route.to(bootstrap),
        Call::Network | Call::Revocations => {
            route.to(move |request, queue| news(call, request, queue))
        }
        Call::Invite
        | Call::Sign
        | Call::Nodes
        | Call::Revoke
        | Call::Rollout
        | Call::Parameters
        | Call::Set
        | Call::RequestCa
        | Call::RotateCa
        | Call::RotateKey
        | Call::Backup
        | Call::AuditLog => crate::http::admin::handler(call, route),
    }
}
