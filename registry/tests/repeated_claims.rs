//! Repeats calls whose answer was lost: a claim gets the same certificate, and costs no second use and no second prefix.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use rcgen::{CertificateParams, KeyPair};
use registry::http::admin::{
    AuditLog, ChangeResult, InviteRequest, InviteResponse, RevokeRequest, RevokedNode, SetRequest,
};
use support::{
    GRACE_S, Identity, LIFE_S, Registry, apply, ask, check as check_rejected, issued, joined, key,
    request,
};
use wire::{
    invitation::{Invitation, token_text},
    registry::{Announcement, Claimed, Renewal, Renewed, VERSION},
};

/// Seconds in a day.
const DAY_S: i64 = 86_400;

fn csr(key: &KeyPair) -> String {
    request(&CertificateParams::default(), key)
}

fn token(registry: &Registry, uses: u32, anonymous: bool) -> String {
    let ask = InviteRequest {
        ttl_s: 60,
        uses: Some(uses),
        anonymous,
        ..InviteRequest::default()
    };
    let invited: InviteResponse = registry.order("POST", "/v1/invitations", &ask);
    token_text(&invited.invitation.parse::<Invitation>().unwrap().token)
}

fn database(registry: &Registry) -> rusqlite::Connection {
    rusqlite::Connection::open(registry.paths.state_dir.join("registry.sqlite")).unwrap()
}

/// Returns the numbers of certificates, of prefixes, and of used invitations.
fn counts(registry: &Registry) -> (i64, i64, i64) {
    let database = database(registry);
    let count = |query: &str| database.query_row(query, [], |row| row.get(0)).unwrap();
    (
        count("SELECT count(*) FROM certificates"),
        count("SELECT count(*) FROM prefixes"),
        count("SELECT coalesce(sum(used), 0) FROM invitations"),
    )
}

fn revoke(registry: &Registry, claimed: &Claimed) {
    let ask = RevokeRequest {
        node: claimed.prefix.to_string(),
    };
    let _: RevokedNode = registry.order("POST", "/v1/revocations", &ask);
}

/// Claims with a token of this many uses, lets something happen, and repeats the claim with the same key. `expected` is
/// the status of the second answer; 200 stands for the same certificate, byte for byte.
#[track_caller]
fn check(uses: u32, happens: impl FnOnce(&mut Registry, &Claimed), expected: u16) {
    let mut registry = Registry::start();
    let (token, key) = (token(&registry, uses, false), key());
    let first = joined(&registry.claim(&token, &csr(&key)));
    happens(&mut registry, &first);
    let before = counts(&registry);
    // The request is another one: a signature of ECDSA is never the same.
    let (status, body) = registry.claim(&token, &csr(&key));
    assert_eq!(status, expected, "{body}");
    if expected == 200 {
        let second: Claimed = serde_json::from_str(&body).unwrap();
        assert_eq!(second.certificate, first.certificate);
        assert_eq!((second.prefix, second.ca), (first.prefix, first.ca));
        assert_eq!(counts(&registry), before);
    } else {
        // A rejected claim deletes what has expired, and adds nothing.
        let (certificates, prefixes, uses) = counts(&registry);
        assert_eq!(certificates, before.0);
        assert!(prefixes <= before.1 && uses <= before.2);
    }
}

#[test]
fn a_repeated_claim_gets_the_same_certificate_as_long_as_that_lives() {
    for uses in [1, 3] {
        check(uses, |_, _| {}, 200);
        // The invitation has expired.
        check(uses, |registry, _| registry.pass(61), 200);
        // The invitation was deleted from the database, when the next node joined.
        let long_after = |registry: &mut Registry, _: &Claimed| {
            registry.pass(8 * DAY_S);
            registry.member();
        };
        check(uses, long_after, 200);
        check(uses, |registry, _| registry.pass(LIFE_S - 1), 200);
        check(uses, |registry, _| registry.restart(), 200);
        // The certificate has expired.
        check(uses, |registry, _| registry.pass(LIFE_S), 403);
        check(uses, |registry, _| registry.pass(LIFE_S + GRACE_S), 403);
    }
}

#[test]
fn a_claim_that_is_repeated_with_a_revoked_key_is_rejected() {
    check(1, |registry, claimed| revoke(registry, claimed), 403);
    // With a use left the token is accepted, but the key is not.
    check(2, |registry, claimed| revoke(registry, claimed), 409);
    let revoked_and_expired = |registry: &mut Registry, claimed: &Claimed| {
        revoke(registry, claimed);
        registry.pass(LIFE_S);
    };
    check(1, revoked_and_expired, 403);
}

#[test]
fn a_token_without_uses_is_rejected_for_another_key_and_a_key_for_another_token() {
    let registry = Registry::start();
    let (used, first_key) = (token(&registry, 1, false), key());
    joined(&registry.claim(&used, &csr(&first_key)));
    assert_eq!(registry.claim(&used, &csr(&key())).0, 403);
    let other = token(&registry, 1, false);
    assert_eq!(registry.claim(&other, &csr(&first_key)).0, 409);
    // Neither consumed a use.
    assert_eq!(counts(&registry), (1, 1, 1));
    joined(&registry.claim(&other, &csr(&key())));
    assert_eq!(counts(&registry), (2, 2, 2));
}

#[test]
fn repeated_claims_do_not_count_as_failures() {
    let registry = Registry::start();
    let (token, key) = (token(&registry, 1, false), key());
    let first = joined(&registry.claim(&token, &csr(&key)));
    for _ in 0..10 {
        let again = joined(&registry.claim(&token, &csr(&key)));
        assert_eq!(again.certificate, first.certificate);
    }
    assert_eq!(counts(&registry), (1, 1, 1));
}

#[test]
fn of_fifty_simultaneous_claims_with_one_token_and_one_key_all_get_the_same_certificate() {
    let registry = Registry::start();
    let (token, key) = (token(&registry, 3, false), key());
    let requests: Vec<String> = (0..50).map(|_| csr(&key)).collect();
    let certificates: std::collections::BTreeSet<String> = std::thread::scope(|scope| {
        let claims: Vec<_> = requests
            .iter()
            .map(|csr| scope.spawn(|| joined(&registry.claim(&token, csr)).certificate))
            .collect();
        claims
            .into_iter()
            .map(|claim| claim.join().unwrap())
            .collect()
    });
    assert_eq!(certificates.len(), 1);
    assert_eq!(counts(&registry), (1, 1, 1));
}

#[test]
fn a_repeated_claim_by_a_published_invitation_is_not_counted_as_another_node_of_its_network() {
    let registry = Registry::start();
    let token = token(&registry, 100, true);
    let keys: Vec<KeyPair> = (0..3).map(|_| key()).collect();
    let claim = |key: &KeyPair| registry.claim(&token, &csr(key));
    let first: Vec<Claimed> = keys.iter().map(|key| joined(&claim(key))).collect();
    assert_eq!(claim(&key()).0, 429);
    for (key, first) in keys.iter().zip(&first) {
        assert_eq!(joined(&claim(key)).certificate, first.certificate);
    }
    assert_eq!(counts(&registry), (3, 3, 3));
    let log: AuditLog = registry.order("GET", "/v1/audit-log", &());
    let recorded = log
        .entries
        .iter()
        .filter(|entry| entry.action.contains("joined by a public invitation"));
    assert_eq!(recorded.count(), 3);
    registry.pass(LIFE_S);
    assert_eq!(claim(&keys[0]).0, 403);
}

#[test]
fn after_a_renewal_a_repeated_claim_gets_the_first_certificate_and_then_the_renewed_one() {
    let registry = Registry::start();
    let (token, key) = (token(&registry, 1, false), key());
    let claimed = joined(&registry.claim(&token, &csr(&key)));
    let again = || registry.claim(&token, &csr(&key));
    registry.pass(LIFE_S * 2 / 3);
    let node = Identity {
        claimed,
        key: KeyPair::from_pem(&key.serialize_pem()).unwrap(),
    };
    let renewal = Renewal {
        version: VERSION,
        csr: csr(&key),
    };
    let renewed: Renewed = registry.ask(&node, "POST", "/v1/renewals", &renewal);
    assert_eq!(joined(&again()).certificate, node.claimed.certificate);
    registry.pass(LIFE_S / 3);
    assert_eq!(joined(&again()).certificate, renewed.certificate);
    revoke(&registry, &node.claimed);
    assert_eq!(again().0, 403);
}

#[test]
fn a_database_from_before_tokens_were_recorded_is_upgraded_and_keeps_working() {
    let mut registry = Registry::start();
    let old = registry.member();
    let (used, old_key) = (token(&registry, 1, false), key());
    joined(&registry.claim(&used, &csr(&old_key)));
    let open = token(&registry, 2, false);
    registry.stop();
    database(&registry)
        .execute_batch(
            "DROP INDEX IF EXISTS prefixes_name_nocase; ALTER TABLE certificates DROP COLUMN token;
             ALTER TABLE invitations DROP COLUMN made_by; ALTER TABLE announcements DROP COLUMN source;
             ALTER TABLE prefixes DROP COLUMN renamed_s;
             PRAGMA user_version = 3",
        )
        .unwrap();
    registry.restart();
    apply(&registry, &old);
    // The token of an old certificate is not known.
    assert_eq!(registry.claim(&used, &csr(&old_key)).0, 403);
    let new_key = key();
    let first = joined(&registry.claim(&open, &csr(&new_key)));
    let second = joined(&registry.claim(&open, &csr(&new_key)));
    assert_eq!(second.certificate, first.certificate);
    assert_eq!(counts(&registry), (3, 3, 3));
    registry.pass(LIFE_S * 2 / 3);
    let renewal = Renewal {
        version: VERSION,
        csr: csr(&old.key),
    };
    let _: Renewed = registry.ask(&old, "POST", "/v1/renewals", &renewal);
    let version: u32 = database(&registry)
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    assert!(version > 3, "{version}");
    assert_eq!(issued(&registry.paths).len(), 4);
}

#[test]
fn a_repeated_revocation_announcement_or_setting_changes_nothing_more() {
    let registry = Registry::start();
    let (node, other) = (registry.member(), registry.member());
    revoke(&registry, &node.claimed);
    let list = || registry.call(Some(&other), "GET", "/v1/revocations", "");
    let published = list();
    let again = RevokeRequest {
        node: node.claimed.prefix.to_string(),
    };
    check_rejected(
        ask::<RevokedNode>(&registry, "POST", "/v1/revocations", &again),
        "no such node",
    );
    assert_eq!(list(), published);
    let announcement = serde_json::to_string(&Announcement {
        version: VERSION,
        ..Announcement::default()
    })
    .unwrap();
    let announce = || registry.call(Some(&other), "PUT", "/v1/nodes/self", &announcement);
    let first = announce();
    assert_eq!(first.0, 200, "{}", first.1);
    assert_eq!(announce(), first);
    let set = || -> ChangeResult {
        let ask = SetRequest {
            key: "tunnels-to-dial".into(),
            value: "3".into(),
        };
        registry.order("PUT", "/v1/parameters", &ask)
    };
    let (first, second) = (set(), set());
    assert_eq!(first.summary, second.summary);
    // Nodes take the second document like the first: it differs in its version only.
    assert_eq!(second.network_version, first.network_version + 1);
}
