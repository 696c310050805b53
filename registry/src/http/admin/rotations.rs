//! Handles the operator's calls that replace the CA and the keys that all nodes share.

use super::{ChangeResult, operator_name};
use crate::{
    http::problem::{ApiError, Body},
    service::{self, RotationStep, SharedKey, queue::Queue},
};
use actix_web::{HttpRequest, HttpResponse, web};
use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};
use wire::registry::VERSION;

/// The body of `POST /v1/authority/requests`, which has no fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextCaRequest {}

/// The answer to [`NextCaRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaSigningRequest {
    /// The version of the document: 1.
    pub version: u32,
    /// A certificate request (PKCS #10) in PEM for the key of the next CA.
    pub csr: String,
    /// The range of the network.
    pub network: Ipv6Net,
    /// Whether the present CA has a root, which must certify the next one too.
    pub has_root: bool,
}

/// The body of `POST /v1/authority`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateCaRequest {
    /// The step of the rotation.
    pub step: RotationStep,
    /// Whether the step is taken even if some nodes are not ready.
    #[serde(default)]
    pub force: bool,
    /// For the step `stage`: the certificates of the next CA and of the root that certified it, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// The body of `POST /v1/keys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateKeyRequest {
    /// The key that is replaced.
    pub key: SharedKey,
    /// The step of the rotation.
    pub step: RotationStep,
    /// Whether the step is taken even if some nodes are not ready.
    #[serde(default)]
    pub force: bool,
}

pub(super) async fn request_ca(
    request: HttpRequest,
    body: Body,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, ApiError> {
    let operator = operator_name(&request)?;
    let NextCaRequest {} = body.read()?;
    let service::CaSigningRequest {
        csr,
        network,
        has_root,
    } = queue
        .ask(move |service| service.request_ca(&operator))
        .await?;
    Ok(HttpResponse::Ok().json(CaSigningRequest {
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
) -> Result<HttpResponse, ApiError> {
    let operator = operator_name(&request)?;
    let RotateCaRequest {
        step,
        force,
        certificate,
    } = body.read()?;
    let rotated =
        queue.ask(move |service| service.rotate_ca(step, certificate.as_deref(), force, &operator));
    let (summary, network_version) = rotated.await?;
    Ok(HttpResponse::Ok().json(ChangeResult {
        version: VERSION,
        summary,
        network_version,
    }))
}

pub(super) async fn rotate_key(
    request: HttpRequest,
    body: Body,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, ApiError> {
    let operator = operator_name(&request)?;
    let RotateKeyRequest { key, step, force } = body.read()?;
    let network_version = queue
        .ask(move |service| service.rotate_key(key, step, force, &operator))
        .await?;
    let summary = match step {
        RotationStep::Stage => "nodes accept the new key beside the old one",
        RotationStep::Activate => "nodes use the new key",
        RotationStep::Retire => "nodes no longer accept the old key",
    };
    Ok(HttpResponse::Ok().json(ChangeResult {
        version: VERSION,
        summary: summary.into(),
        network_version,
    }))
}
