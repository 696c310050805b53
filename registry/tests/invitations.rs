//! Joins by invitations with properties, with several uses, and by a published one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use rcgen::CertificateParams;
use registry::http::admin::{
    AuditLog, InvitationList, InviteRequest, InviteResponse, RevokeInvitationRequest,
    RevokedInvitation,
};
use support::{Registry, ask, check, claim_with, issued, joined, key, request};
use wire::invitation::{Invitation, token_text};

#[test]
fn an_invitation_fixes_the_length_the_prefix_and_the_name() {
    let registry = Registry::start();
    let invite = InviteRequest {
        ttl_s: 60,
        ..InviteRequest::default()
    };
    let wide = joined(&claim_with(
        &registry,
        &InviteRequest {
            prefix_length: Some(12),
            ..invite.clone()
        },
    ));
    assert_eq!(wide.prefix.to_string(), "1/12");
    let pinned = InviteRequest {
        prefix: Some("77/16".into()),
        name: Some("printer".into()),
        ..invite.clone()
    };
    assert_eq!(
        joined(&claim_with(&registry, &pinned)).prefix.to_string(),
        "77/16"
    );
    check(
        ask::<InviteResponse>(&registry, "POST", "/v1/invitations", &pinned),
        "name taken",
    );
    let unnamed = InviteRequest {
        name: None,
        ..pinned.clone()
    };
    check(
        ask::<InviteResponse>(&registry, "POST", "/v1/invitations", &unnamed),
        "prefix taken",
    );
    let inside = InviteRequest {
        prefix: Some("154/17".into()),
        ..invite.clone()
    };
    check(
        ask::<InviteResponse>(&registry, "POST", "/v1/invitations", &inside),
        "prefix taken",
    );
}

#[test]
fn an_invitation_with_a_value_out_of_range_is_rejected() {
    let registry = Registry::start();
    let changes: [fn(&mut InviteRequest); 7] = [
        |invite| invite.ttl_s = 0,
        |invite| invite.uses = Some(0),
        |invite| (invite.uses, invite.name) = (Some(2), Some("two".into())),
        |invite| invite.name = Some("a b".into()),
        |invite| invite.name = Some("0".repeat(32)),
        |invite| invite.prefix_length = Some(33),
        |invite| (invite.anonymous, invite.name) = (true, Some("three".into())),
    ];
    let rejected = |change: fn(&mut InviteRequest), title: &str| {
        let mut invite = InviteRequest {
            ttl_s: 60,
            ..InviteRequest::default()
        };
        change(&mut invite);
        check(
            ask::<InviteResponse>(&registry, "POST", "/v1/invitations", &invite),
            title,
        );
    };
    for change in changes {
        rejected(change, "out of range");
    }
    rejected(|invite| invite.prefix = Some("7".into()), "not a prefix");
}

#[test]
fn an_invitation_is_accepted_as_often_as_its_uses_allow() {
    let registry = Registry::start();
    let ask = InviteRequest {
        ttl_s: 60,
        uses: Some(3),
        ..InviteRequest::default()
    };
    let invited: InviteResponse = registry.order("POST", "/v1/invitations", &ask);
    let token = token_text(&invited.invitation.parse::<Invitation>().unwrap().token);
    let statuses: Vec<u16> = (0..5)
        .map(|_| {
            registry
                .claim(&token, &request(&CertificateParams::default(), &key()))
                .0
        })
        .collect();
    assert_eq!(statuses, [200, 200, 200, 403, 403]);
}

#[test]
fn three_nodes_from_one_network_join_by_a_published_invitation_and_others_by_their_own() {
    let registry = Registry::start();
    let ask = InviteRequest {
        ttl_s: 60,
        uses: Some(100),
        prefix_length: Some(24),
        anonymous: true,
        ..InviteRequest::default()
    };
    let invited: InviteResponse = registry.order("POST", "/v1/invitations", &ask);
    let token = token_text(&invited.invitation.parse::<Invitation>().unwrap().token);
    let claim = || registry.claim(&token, &request(&CertificateParams::default(), &key()));
    for _ in 0..3 {
        assert_eq!(joined(&claim()).prefix.length(), 24);
    }
    let (status, body) = claim();
    assert_eq!(status, 429, "{body}");
    assert!(body.contains("public invitation"), "{body}");
    joined(&claim_with(
        &registry,
        &InviteRequest {
            ttl_s: 60,
            ..InviteRequest::default()
        },
    ));
    let log: AuditLog = registry.order("GET", "/v1/audit-log", &());
    let logged = |words: &str| {
        log.entries
            .iter()
            .filter(|entry| entry.action.contains(words))
            .count()
    };
    assert_eq!(logged("100 uses, 60 s, 24 bits, anonymous"), 1, "{log:?}");
    assert_eq!(logged("joined by a public invitation: "), 3, "{log:?}");
}

fn list(registry: &Registry) -> InvitationList {
    registry.order("GET", "/v1/invitations", &())
}

#[test]
fn open_invitations_are_listed_with_the_uses_that_are_left_and_their_creator() {
    let registry = Registry::start();
    assert_eq!(list(&registry).invitations, []);
    let invite = |ttl_s, uses, name: Option<&str>| -> InviteResponse {
        let ask = InviteRequest {
            ttl_s,
            uses: Some(uses),
            name: name.map(Into::into),
            ..InviteRequest::default()
        };
        registry.order("POST", "/v1/invitations", &ask)
    };
    let (two, named, used) = (
        invite(60, 2, None),
        invite(50, 1, Some("Printer")),
        invite(40, 1, None),
    );
    for invited in [&two, &used] {
        let token = token_text(&invited.invitation.parse::<Invitation>().unwrap().token);
        joined(&registry.claim(&token, &request(&CertificateParams::default(), &key())));
    }
    let listed = list(&registry).invitations;
    let ids: Vec<_> = listed.iter().map(|entry| &entry.id).collect();
    assert_eq!(ids, [&named.id, &two.id]);
    assert_eq!(listed[0].name.as_deref(), Some("printer"));
    assert_eq!((listed[1].uses_left, listed[1].uses), (1, 2));
    assert_eq!(listed[1].expires_at, two.expires_at);
    let creator = format!("uid {}", nix::unistd::getuid());
    assert_eq!(listed[1].created_by.as_ref(), Some(&creator));
    let text = serde_json::to_string(&listed).unwrap();
    let token = two.invitation.split_once("token=").unwrap().1;
    assert!(!text.contains(token), "{text}");
}

#[test]
fn no_certificate_is_issued_by_a_revoked_invitation() {
    let registry = Registry::start();
    let create = |name: Option<&str>, uses| -> InviteResponse {
        let ask = InviteRequest {
            ttl_s: 60,
            uses: Some(uses),
            name: name.map(Into::into),
            ..InviteRequest::default()
        };
        registry.order("POST", "/v1/invitations", &ask)
    };
    let revoke = |invitation: &str| {
        let body = RevokeInvitationRequest {
            invitation: invitation.into(),
        };
        ask::<RevokedInvitation>(&registry, "POST", "/v1/invitations/revocations", &body)
    };
    let claim = |invited: &InviteResponse| {
        let token = token_text(&invited.invitation.parse::<Invitation>().unwrap().token);
        registry.claim(&token, &request(&CertificateParams::default(), &key()))
    };
    let (by_name, by_id, other) = (create(Some("printer"), 1), create(None, 3), create(None, 1));
    joined(&claim(&by_id));
    let certificates = issued(&registry.paths).len();
    assert_eq!(revoke("PRINTER").unwrap().invitation.id, by_name.id);
    let revoked = revoke(&by_id.id).unwrap().invitation;
    assert_eq!((revoked.uses_left, revoked.uses), (2, 3));
    for invited in [&by_name, &by_id] {
        assert_eq!(claim(invited).0, 403);
    }
    assert_eq!(issued(&registry.paths).len(), certificates);
    for unknown in [&by_id.id, "printer", "", "%", &other.id[..11]] {
        check(revoke(unknown), "no such invitation");
    }
    // The name is free again, and other invitations stay.
    create(Some("printer"), 1);
    joined(&claim(&other));
    let log: AuditLog = registry.order("GET", "/v1/audit-log", &());
    let logged = format!("revoke invitation: {}, 2 of 3 uses left", by_id.id);
    assert!(
        log.entries.iter().any(|entry| entry.action == logged),
        "{log:?}"
    );
}
