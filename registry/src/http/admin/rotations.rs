//! The operator's calls that change the CA, and keys that all nodes share.

use super::{Done, operator};
use crate::{
    http::problem::{Body, No},
    service::{self, CaStep, KeyKind, queue::Queue},
};
use actix_web::{HttpRequest, HttpResponse, web};
use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};
use wire::registry::VERSION;

/// `POST /v1/authority/requests`: asks for nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestCa {}

/// The answer to [`RequestCa`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaRequest {
    /// The version of the document: 1.
    pub version: u32,
    /// A request of PKCS #10 in PEM, with the key of the next CA.
    pub csr: String,
    /// The network's range.
    pub network: Ipv6Net,
    /// A root stands above the present CA: no other will do.
    pub has_root: bool,
}

/// The body of `POST /v1/authority`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateCa {
    /// The step of the rotation.
    pub step: CaStep,
    /// Even where nodes are not ready.
    #[serde(default)]
    pub force: bool,
    /// To stage one that a root certified: its certificate and the root's, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// The body of `POST /v1/keys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateKey {
    /// The key that is replaced.
    pub key: KeyKind,
    /// The step of the rotation.
    pub step: CaStep,
    /// Even where nodes are not ready.
    #[serde(default)]
    pub force: bool,
}

pub(super) async fn request_ca(
    request: HttpRequest,
    body: Body,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, No> {
    let who = operator(&request)?;
    let RequestCa {} = body.read()?;
    let service::CaRequest {
        csr,
        network,
        has_root,
    } = queue.ask(move |service| service.request_ca(&who)).await?;
    Ok(HttpResponse::Ok().json(CaRequest {
        version: VERSION,
        csr,
        network,
        has_root,
    }))
}

pub(super) async fn rotate_ca(
    request: HttpRequest,
    body: Body,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, No> {
    let who = operator(&request)?;
    let RotateCa {
        step,
        force,
        certificate,
    } = body.read()?;
    let rotated =
        queue.ask(move |service| service.rotate_ca(step, certificate.as_deref(), force, &who));
    let (done, network_version) = rotated.await?;
    Ok(HttpResponse::Ok().json(Done {
        version: VERSION,
        done,
        network_version,
    }))
}

pub(super) async fn rotate_key(
    request: HttpRequest,
    body: Body,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, No> {
    let who = operator(&request)?;
    let RotateKey { key, step, force } = body.read()?;
    let network_version = queue
        .ask(move |service| service.rotate_key(key, step, force, &who))
        .await?;
    let done = match step {
        CaStep::Stage => "the new key is accepted beside the old",
        CaStep::Activate => "the new key is used",
        CaStep::Retire => "the old key is accepted no more",
    };
    Ok(HttpResponse::Ok().json(Done {
        version: VERSION,
        done: done.into(),
        network_version,
    }))
}
