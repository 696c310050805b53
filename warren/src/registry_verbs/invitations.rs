//! Creates, lists and revokes invitations.

use super::{
    arguments::{InviteArgs, ListArgs, NodePropertyArgs, RevokeInvitationArgs},
    operate::{NOTHING, call, print_json},
};
use crate::output::{fail, print_error_line, print_line};
use qrcode::{QrCode, render::unicode::Dense1x2};
use registry::http::admin::{
    InvitationEntry, InvitationList, InviteRequest, InviteResponse, RevokeInvitationRequest,
    RevokedInvitation,
};
use std::{io::IsTerminal, process::ExitCode};

pub(super) fn invite(args: &InviteArgs) -> ExitCode {
    let NodePropertyArgs {
        name,
        prefix_length,
        pin_prefix,
    } = &args.wanted;
    let ask = InviteRequest {
        ttl_s: args.ttl,
        uses: Some(args.uses),
        name: name.clone(),
        prefix_length: *prefix_length,
        prefix: pin_prefix.clone(),
        anonymous: args.anonymous,
    };
    call(
        &args.root,
        "POST",
        "/v1/invitations",
        Some(&ask),
        |invited: InviteResponse| {
            if args.json {
                return print_json(&invited);
            }
            print_line(&invited.invitation);
            if std::io::stdout().is_terminal() {
                print_error_line("on the new node, paste this line into: warren join - --start");
            }
            if !args.qr {
                return ExitCode::SUCCESS;
            }
            match QrCode::new(&invited.invitation) {
                Ok(code) => {
                    print_line(code.render::<Dense1x2>().quiet_zone(true).build());
                    ExitCode::SUCCESS
                }
                Err(error) => fail(&error, 1),
            }
        },
    )
}

/// Describes an invitation in one line: its id, the name or the prefix of its node, the uses that are left, and its expiry.
fn line(invitation: &InvitationEntry) -> String {
    let node = invitation
        .name
        .as_deref()
        .or(invitation.prefix.as_deref())
        .unwrap_or("-");
    let by = invitation.created_by.as_deref().unwrap_or("unknown");
    let anonymous = if invitation.anonymous {
        "  anonymous"
    } else {
        ""
    };
    format!(
        "{}  {node:<16} {} of {} uses left  until {}  created {} by {by}{anonymous}",
        invitation.id,
        invitation.uses_left,
        invitation.uses,
        invitation.expires_at,
        invitation.created_at
    )
}

pub(super) fn list(args: &ListArgs) -> ExitCode {
    let print = |list: InvitationList| {
        if args.json {
            return print_json(&list);
        }
        list.invitations
            .iter()
            .for_each(|invitation| print_line(line(invitation)));
        ExitCode::SUCCESS
    };
    call(&args.root, "GET", "/v1/invitations", NOTHING, print)
}

pub(super) fn revoke(args: &RevokeInvitationArgs) -> ExitCode {
    let ask = RevokeInvitationRequest {
        invitation: args.invitation.clone(),
    };
    call(
        &args.root,
        "POST",
        "/v1/invitations/revocations",
        Some(&ask),
        |revoked: RevokedInvitation| {
            print_line(format_args!("revoked: {}", line(&revoked.invitation)));
            ExitCode::SUCCESS
        },
    )
}
