//! Handles the operator's calls over a Unix socket, for root and the registry's own user.

mod documents;
mod invitations;
mod rotations;

/// The path of the database, for backups.
pub(crate) struct Database(pub(crate) PathBuf);

pub use crate::http::operator_client::{AdminError, ask};
pub use documents::*;
pub use rotations::{CaSigningRequest, NextCaRequest, RotateCaRequest, RotateKeyRequest};

use crate::{
    http::{
        calls::Call,
        problem::{ApiError, Body, api_error},
        query,
    },
    service::{self, Rollout, queue::Queue},
    store::NodeProperties,
};
use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use policies::names::Prefix;
use std::path::PathBuf;
use wire::registry::{Enrolment, VERSION};

/// Marks a connection whose peer may act as operator; attached when the peer connects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operator {
    pub(crate) uid: u32,
}

/// Returns the caller's uid as the audit log records it.
fn operator_name(request: &HttpRequest) -> Result<String, ApiError> {
    let forbidden = || {
        api_error(
            StatusCode::FORBIDDEN,
            "not an operator",
            "only root and the registry's user may make this call".into(),
            None,
        )
    };
    request
        .conn_data::<Operator>()
        .map(|operator| format!("uid {}", operator.uid))
        .ok_or_else(forbidden)
}

fn node_properties(
    name: Option<String>,
    length: Option<u8>,
    prefix: Option<String>,
) -> Result<NodeProperties, ApiError> {
    let prefix = prefix
        .map(|text| text.parse::<Prefix>())
        .transpose()
        .map_err(|error| {
            api_error(
                StatusCode::UNPROCESSABLE_ENTITY,
                "not a prefix",
                error.to_string(),
                Some("prefix"),
            )
        })?;
    Ok(NodeProperties {
        name,
        length,
        prefix,
    })
}

async fn sign(
    request: HttpRequest,
    body: Body,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, ApiError> {
    let operator = operator_name(&request)?;
    let SignRequest {
        csr,
        name,
        prefix_length,
        prefix,
    } = body.read()?;
    let wanted = node_properties(name, prefix_length, prefix)?;
    let signed: Enrolment = queue
        .ask(move |service| service.sign(&csr, &wanted, &operator))
        .await?;
    Ok(HttpResponse::Ok().json(signed))
}

async fn list(request: HttpRequest, queue: web::Data<Queue>) -> Result<HttpResponse, ApiError> {
    operator_name(&request)?;
    let members = queue.ask(|service| service.members()).await?.into_iter();
    let nodes = members.map(
        |service::NodeEntry {
             member,
             name,
             announcement,
         }| NodeEntry {
            prefix: member.prefix.to_string(),
            name,
            serial: member.serial,
            expires_at: member.not_after.to_string(),
            revoked: member.revoked_at.is_some(),
            authority: member.authority,
            announcement: announcement.map(|announcement| AnnouncementEntry {
                endpoints: announcement
                    .endpoints
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
                software: announcement.software,
                network_version: announcement.network_version,
                network_applied: announcement.network_applied,
                revocations_version: announcement.revocations_version,
            }),
        },
    );
    Ok(HttpResponse::Ok().json(NodeList {
        version: VERSION,
        nodes: nodes.collect(),
    }))
}

async fn rename(
    request: HttpRequest,
    body: Body,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, ApiError> {
    let operator = operator_name(&request)?;
    let RenameRequest { node, name } = body.read()?;
    let (prefix, name) = queue
        .ask(move |service| service.rename(&node, &name, &operator))
        .await?;
    Ok(HttpResponse::Ok().json(RenamedNode {
        version: VERSION,
        prefix: prefix.to_string(),
        name: name.to_string(),
    }))
}

async fn revoke(
    request: HttpRequest,
    body: Body,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, ApiError> {
    let operator = operator_name(&request)?;
    let RevokeRequest { node } = body.read()?;
    let (prefix, certificates, revocations_version) = queue
        .ask(move |service| service.revoke(&node, &operator))
        .await?;
    let prefix = prefix.to_string();
    Ok(HttpResponse::Ok().json(RevokedNode {
        version: VERSION,
        prefix,
        certificates,
        revocations_version,
    }))
}

async fn rollout(request: HttpRequest, queue: web::Data<Queue>) -> Result<HttpResponse, ApiError> {
    operator_name(&request)?;
    let rollout: Rollout = queue.ask(|service| service.rollout()).await?;
    Ok(HttpResponse::Ok().json(rollout))
}

async fn parameters(
    request: HttpRequest,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, ApiError> {
    operator_name(&request)?;
    let all = queue
        .ask(|service| Ok(service.parameters()))
        .await?
        .into_iter();
    let parameters = all
        .map(|one| Parameter {
            key: one.key.into(),
            value: one.value,
            class: one.class.into(),
        })
        .collect();
    Ok(HttpResponse::Ok().json(ParameterList {
        version: VERSION,
        parameters,
    }))
}

async fn set(
    request: HttpRequest,
    body: Body,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, ApiError> {
    let operator = operator_name(&request)?;
    let SetRequest { key, value } = body.read()?;
    let summary = format!("{key} is {value}");
    let network_version = queue
        .ask(move |service| service.set(&key, &value, &operator))
        .await?;
    Ok(HttpResponse::Ok().json(ChangeResult {
        version: VERSION,
        summary,
        network_version,
    }))
}

async fn backup(
    request: HttpRequest,
    body: Body,
    queue: web::Data<Queue>,
    database: web::Data<Database>,
) -> Result<HttpResponse, ApiError> {
    let operator = operator_name(&request)?;
    let BackupRequest { path, folder } = body.read()?;
    let bad = |detail: String| {
        api_error(
            StatusCode::UNPROCESSABLE_ENTITY,
            "no backup made",
            detail,
            Some("path"),
        )
    };
    if !path.is_absolute() {
        return Err(bad("the path is not absolute".into()));
    }
    if folder.is_some_and(|folder| FolderId::of(&path).is_some_and(|seen| seen != folder)) {
        let why = "the registry sees another folder of this name than the caller, since its unit has a /tmp of its own; a path below its state folder, such as /var/lib/warren-registry, is the same for both";
        return Err(bad(why.into()));
    }
    let (from, to) = (database.0.clone(), path.clone());
    // The copy is made on another thread, so that the service keeps working.
    let copied = web::block(move || crate::store::copy(&from, &to)).await;
    let copied = copied.map_err(|_| bad("the copy was interrupted".into()))?;
    copied.map_err(|error| bad(wire::errors::Chain(&error).to_string()))?;
    let summary = format!("copied to {}", path.display());
    let note = format!("backup: {}", path.display());
    let network_version = queue
        .ask(move |service| {
            service.audit(&operator, note)?;
            Ok(service.network().0)
        })
        .await?;
    Ok(HttpResponse::Ok().json(ChangeResult {
        version: VERSION,
        summary,
        network_version,
    }))
}

/// Largest number of entries of the audit log in one answer.
pub const MAX_AUDIT_LOG_ENTRIES: u32 = 10_000;

async fn audit_log(
    request: HttpRequest,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, ApiError> {
    operator_name(&request)?;
    let count = query::number(&request, "count", MAX_AUDIT_LOG_ENTRIES.into())?.unwrap_or(100);
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let entries = queue
        .ask(move |service| service.audit_log(count))
        .await?
        .into_iter();
    let entries = entries
        .map(|entry| AuditLogEntry {
            at: entry.at.to_string(),
            actor: entry.actor,
            action: entry.action,
        })
        .collect();
    Ok(HttpResponse::Ok().json(AuditLog {
        version: VERSION,
        entries,
    }))
}

/// Sets the handler of an operator's call; a node's call is left without one.
pub(crate) fn handler(call: Call, route: actix_web::Route) -> actix_web::Route {
    match call {
        Call::Invite => route.to(invitations::invite),
        Call::Invitations => route.to(invitations::list),
        Call::RevokeInvitation => route.to(invitations::revoke),
        Call::Sign => route.to(sign),
        Call::Nodes => route.to(list),
        Call::Rename => route.to(rename),
        Call::Revoke => route.to(revoke),
        Call::Rollout => route.to(rollout),
        Call::Parameters => route.to(parameters),
        Call::Set => route.to(set),
        Call::RequestCa => route.to(rotations::request_ca),
        Call::RotateCa => route.to(rotations::rotate_ca),
        Call::RotateKey => route.to(rotations::rotate_key),
        Call::Backup => route.to(backup),
        Call::AuditLog => route.to(audit_log),
        Call::Claim
        | Call::Renew
        | Call::Announce
        | Call::Depart
        | Call::Bootstrap
        | Call::Network
        | Call::Revocations => route,
    }
}
