//! Handles the operator's calls about invitations.

use super::{
    InvitationEntry, InvitationList, InviteRequest, InviteResponse, RevokeInvitationRequest,
    RevokedInvitation, node_properties, operator_name,
};
use crate::{
    http::problem::{ApiError, Body},
    service::{self, InvitationRequest, queue::Queue},
    store::OpenInvitation,
};
use actix_web::{HttpRequest, HttpResponse, web};
use wire::registry::VERSION;

pub(super) async fn invite(
    request: HttpRequest,
    body: Body,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, ApiError> {
    let operator = operator_name(&request)?;
    let InviteRequest {
        ttl_s,
        uses,
        name,
        prefix_length,
        prefix,
        anonymous,
    } = body.read()?;
    let wanted = node_properties(name, prefix_length, prefix)?;
    let wanted_invitation = InvitationRequest {
        ttl_s,
        uses: uses.unwrap_or(1),
        wanted,
        anonymous,
    };
    let service::CreatedInvitation {
        invitation,
        id,
        expires_at,
    } = queue
        .ask(move |service| service.invite(&wanted_invitation, &operator))
        .await?;
    Ok(HttpResponse::Ok().json(InviteResponse {
        version: VERSION,
        invitation: invitation.to_string(),
        id,
        expires_at: expires_at.to_string(),
    }))
}

fn entry(invitation: OpenInvitation) -> InvitationEntry {
    InvitationEntry {
        id: invitation.id,
        name: invitation.wanted.name,
        prefix: invitation.wanted.prefix.map(|prefix| prefix.to_string()),
        prefix_length: invitation.wanted.length,
        uses: invitation.uses,
        uses_left: invitation.uses_left,
        created_at: invitation.created_at.to_string(),
        created_by: invitation.created_by,
        expires_at: invitation.expires_at.to_string(),
        anonymous: invitation.anonymous,
    }
}

pub(super) async fn list(
    request: HttpRequest,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, ApiError> {
    operator_name(&request)?;
    let open = queue.ask(|service| service.open_invitations()).await?;
    Ok(HttpResponse::Ok().json(InvitationList {
        version: VERSION,
        invitations: open.into_iter().map(entry).collect(),
    }))
}

pub(super) async fn revoke(
    request: HttpRequest,
    body: Body,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, ApiError> {
    let operator = operator_name(&request)?;
    let RevokeInvitationRequest { invitation } = body.read()?;
    let revoked = queue
        .ask(move |service| service.revoke_invitation(&invitation, &operator))
        .await?;
    Ok(HttpResponse::Ok().json(RevokedInvitation {
        version: VERSION,
        invitation: entry(revoked),
    }))
}
