//! Joins by invitations with properties, with several uses, and by a published one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use rcgen::CertificateParams;
use registry::http::admin::{AuditLog, InviteRequest, InviteResponse};
use support::{Registry, ask, check, claim_with, joined, key, request};
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
