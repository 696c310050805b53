//! Handles the calls of nodes: reads the request, calls the service, writes the response.

use crate::{
    http::{
        calls::Call,
        problem::{ApiError, Body, api_error},
        query,
    },
    service::{
        ShownCertificate, check_version, error::ServiceError, proven_key, queue::Queue, renewal_key,
    },
};
use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    http::{StatusCode, header},
    web,
};
use serde::Serialize;
use std::{net::IpAddr, time::Duration};
use wire::registry::{Announced, Announcement, Claim, Departure, MAX_NODES, Renewal};

/// Longest time for which a call waits for a newer document, in seconds.
pub(crate) const MAX_WAIT_SECONDS: u64 = 60;

/// The caller of a TLS connection; attached when the connection is accepted.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The address of the caller.
    pub(crate) address: IpAddr,
    /// The caller's certificate, which TLS has verified against the CA.
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

/// Returns the caller's certificate.
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
    let key = proven_key(claim.version, &claim.csr)?;
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
    // A caller that may not renew gets that error first, whatever its body is.
    let job = move |service: &mut crate::service::RegistryService| {
        service.renewable(&shown)?;
        key.map(|key| service.renew(&shown, &key))
            .map_or_else(|rejection| Ok(Err(rejection)), |renewed| renewed.map(Ok))
    };
    answer(&queue.ask(job).await??)
}

async fn announce(
    request: HttpRequest,
    body: Body,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, ApiError> {
    let shown = shown(&request)?;
    let from = caller(&request)?.address;
    let announcement = body.read::<Announcement>();
    let job = move |service: &mut crate::service::RegistryService| {
        let member = service.member(&shown)?;
        match announcement {
            Ok(announcement) => {
                check_version(announcement.version)?;
                let announced = service.announce(&member, from, &announcement)?;
                // The copy that was restored lacks the certificate that was shown.
                let renew = announced.renew || member.serial != shown.serial;
                Ok(Ok(Announced { renew, ..announced }))
            }
            Err(rejection) => Ok(Err(rejection)),
        }
    };
    answer(&queue.ask(job).await??)
}

async fn depart(
    request: HttpRequest,
    body: Body,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, ApiError> {
    let shown = shown(&request)?;
    let departure = body.read::<Departure>();
    let job = move |service: &mut crate::service::RegistryService| {
        let member = service.member(&shown)?;
        match departure {
            Ok(departure) => {
                check_version(departure.version)?;
                service.depart(&member).map(Ok)
            }
            Err(rejection) => Ok(Err(rejection)),
        }
    };
    answer(&queue.ask(job).await??)
}

async fn bootstrap(
    request: HttpRequest,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, ApiError> {
    let shown = shown(&request)?;
    let from = caller(&request)?.address;
    let max = u64::try_from(MAX_NODES).unwrap_or(u64::MAX);
    let count = query::number(&request, "count", max)?.unwrap_or(10);
    let count = usize::try_from(count).unwrap_or(MAX_NODES);
    let nodes = queue.ask(move |service| {
        let member = service.member(&shown)?;
        service.bootstrap(&member, from, count)
    });
    answer(&nodes.await?)
}

/// Answers with a document newer than version `after`. If there is none, waits for one up to `wait` seconds, then
/// answers 204.
async fn newer_document(
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
    let mut versions = queue.versions();
    let (mut version, mut document) = read().await?;
    if version <= after && !wait.is_zero() {
        let is_newer = |now: &crate::service::Versions| {
            (if call == Call::Network {
                now.network
            } else {
                now.revocations
            }) > after
        };
        drop(tokio::time::timeout(wait, versions.wait_for(is_newer)).await);
        // The membership is checked again, since the caller itself may have been revoked meanwhile.
        (version, document) = read().await?;
    }
    if version > after {
        answer(&document)
    } else {
        Ok(HttpResponse::NoContent().finish())
    }
}

async fn unknown_path(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Err(api_error(
        StatusCode::NOT_FOUND,
        "no such call",
        format!("{} {}", request.method(), request.path()),
        None,
    ))
}

/// Answers 405; `allow` lists the methods of the path.
async fn unknown_method(request: HttpRequest, allow: String) -> HttpResponse {
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

/// Sets the answer to unknown paths.
pub(crate) fn set_default_answer(config: &mut web::ServiceConfig) {
    config.default_service(web::to(unknown_path));
}

/// Adds the calls of the operator or of nodes, each with its handler.
pub(crate) fn add_calls(config: &mut web::ServiceConfig, operator: bool) {
    for (path, calls) in Call::by_path(operator) {
        let methods: Vec<_> = calls
            .iter()
            .map(|call| call.route().0.to_string())
            .collect();
        let allow = methods.join(", ");
        let unknown = web::to(move |request| unknown_method(request, allow.clone()));
        let resource = web::resource(path).default_service(unknown);
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
        Call::Depart => route.to(depart),
        Call::Bootstrap => route.to(bootstrap),
        Call::Network | Call::Revocations => {
            route.to(move |request, queue| newer_document(call, request, queue))
        }
        Call::Invite
        | Call::Invitations
        | Call::RevokeInvitation
        | Call::Sign
        | Call::Nodes
        | Call::Rename
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
