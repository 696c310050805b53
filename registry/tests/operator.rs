//! Operates a real registry: certificates for requests from files, revocations, parameters, the rollout, backups.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use rcgen::CertificateParams;
use registry::{
    http::admin::{
        AuditLog, BackupRequest, ChangeResult, InviteRequest, InviteResponse, NodeList,
        ParameterList, RevokeRequest, RevokedNode, SetRequest, SignRequest,
    },
    init::restore::restore,
    service::Rollout,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{fs, os::unix::fs::PermissionsExt};
use support::{
    GRACE_S, Identity, LIFE_S, Registry, apply, ask, check, claim_with, joined, key, read, request,
};
use wire::{
    registry::{Enrolment, NetworkDocument, Revocations},
    signed::{self, SignedDocument},
};

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn document(signed: &SignedDocument, ca: &str) -> NetworkDocument {
    NetworkDocument::read(&signed::open(signed, &[der(ca)]).unwrap().payload).unwrap()
}

fn network(registry: &Registry, identity: &Identity) -> SignedDocument {
    registry.ask(identity, "GET", "/v1/network", &())
}

#[test]
fn a_node_is_revoked_by_name_prefix_or_serial_and_only_a_pinned_invitation_reuses_its_prefix() {
    let registry = Registry::start();
    let named = InviteRequest {
        ttl_s: 60,
        name: Some("printer".into()),
        ..InviteRequest::default()
    };
    let first = joined(&claim_with(&registry, &named));
    let (second, third) = (registry.member(), registry.member());
    let listing: NodeList = registry.order("GET", "/v1/nodes", &());
    let serial = listing
        .nodes
        .iter()
        .find(|node| node.prefix == third.claimed.prefix.to_string())
        .unwrap();
    for (node, prefix) in [
        ("printer", first.prefix.to_string()),
        (
            &second.claimed.prefix.to_string(),
            second.claimed.prefix.to_string(),
        ),
        (&serial.serial, third.claimed.prefix.to_string()),
    ] {
        let done: RevokedNode = registry.order(
            "POST",
            "/v1/revocations",
            &RevokeRequest {
                node: node.to_owned(),
            },
        );
        assert_eq!((done.prefix, done.certificates), (prefix, 1));
        check(
            ask::<RevokedNode>(
                &registry,
                "POST",
                "/v1/revocations",
                &RevokeRequest {
                    node: node.to_owned(),
                },
            ),
            "no such node",
        );
    }
    let invite_with_prefix = InviteRequest {
        prefix: Some(first.prefix.to_string()),
        ..named
    };
    assert_eq!(
        joined(&claim_with(&registry, &invite_with_prefix)).prefix,
        first.prefix
    );
    assert!(registry.member().claimed.prefix.number() > third.claimed.prefix.number());
    let log: AuditLog = registry.order("GET", "/v1/audit-log?count=3", &());
    assert_eq!(log.entries.len(), 3);
    assert!(
        log.entries
            .iter()
            .all(|entry| entry.actor.starts_with("uid ")),
        "{log:?}"
    );
}

#[test]
fn the_operator_signs_a_request_from_a_file_without_a_token() {
    let registry = Registry::start();
    let csr = request(&CertificateParams::default(), &key());
    let ask = SignRequest {
        csr,
        name: Some("island".into()),
        ..SignRequest::default()
    };
    let signed: Enrolment = registry.order("POST", "/v1/signatures", &ask);
    assert_eq!(signed.registry, "127.0.0.1:9443");
    assert_eq!(
        document(&signed.claimed.network, &signed.claimed.ca).version,
        1
    );
    check(
        self::ask::<Enrolment>(&registry, "POST", "/v1/signatures", &ask),
        "key rejected",
    );
    check(
        self::ask::<Enrolment>(
            &registry,
            "POST",
            "/v1/signatures",
            &SignRequest {
                csr: "x".into(),
                ..ask
            },
        ),
        "certificate request rejected",
    );
}

#[test]
fn a_valid_parameter_gets_into_the_signed_document_and_an_invalid_one_does_not() {
    let registry = Registry::start();
    let node = registry.member();
    let set = |key: &str, value: &str| {
        ask::<ChangeResult>(
            &registry,
            "PUT",
            "/v1/parameters",
            &SetRequest {
                key: key.into(),
                value: value.into(),
            },
        )
    };
    for (key, value) in [
        ("hello-interval", "2s"),
        ("tunnels-to-dial", "3"),
        ("idle-probe", "30s"),
        ("private-endpoints", "true"),
        ("gateways", "1/16,2/16"),
        ("min-version", "0.2.0"),
        ("ipv4", "10.0.0.0/8"),
        ("certificate-life", "365days"),
    ] {
        set(key, value).unwrap();
        let list: ParameterList = registry.order("GET", "/v1/parameters", &());
        let shown = list
            .parameters
            .iter()
            .find(|one| one.key == key)
            .unwrap()
            .value
            .clone();
        assert_eq!(shown, value);
    }
    let ca = &node.claimed.ca;
    let now = document(&network(&registry, &node), ca);
    assert_eq!(
        (
            now.version,
            now.parameters.hello_interval_ms,
            now.gateways.len()
        ),
        (8, 2_000, 2)
    );
    for (key, value) in [
        ("hello-interval", "1ms"),
        ("hello-interval", "x"),
        ("tunnels-to-dial", "31"),
        ("probe", "100ms"),
        ("private-endpoints", "yes"),
        ("gateways", "1"),
        ("min-version", "1"),
        ("ipv4", "10.0.0.1/8"),
        ("ipv4", "x"),
        ("certificate-life", "0s"),
        ("nonsense", "1"),
    ] {
        check(set(key, value), "out of range");
    }
    assert_eq!(document(&network(&registry, &node), ca).version, 8);
}

#[test]
fn a_caller_that_waits_gets_the_next_network_document() {
    let registry = Registry::start();
    let node = registry.member();
    assert_eq!(
        registry
            .call(Some(&node), "GET", "/v1/network?after=1", "")
            .0,
        204
    );
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            registry.ask::<SignedDocument>(&node, "GET", "/v1/network?after=1&wait=60", &())
        });
        let _: ChangeResult = registry.order(
            "PUT",
            "/v1/parameters",
            &SetRequest {
                key: "refresh".into(),
                value: "1m".into(),
            },
        );
        assert_eq!(
            document(&waiting.join().unwrap(), &node.claimed.ca).version,
            2
        );
    });
}

#[test]
fn the_rollout_counts_what_nodes_announce_and_ignores_silent_ones() {
    let registry = Registry::start();
    let (first, second) = (registry.member(), registry.member());
    let rollout = || registry.order::<Rollout>("GET", "/v1/rollout", &());
    assert_eq!((rollout().nodes, rollout().announced), (2, 0));
    apply(&registry, &first);
    let now = rollout();
    assert_eq!(
        (
            now.announced,
            now.network_received,
            now.network_applied,
            now.revocations_received
        ),
        (1, 1, 1, 1)
    );
    let _: RevokedNode = registry.order(
        "POST",
        "/v1/revocations",
        &RevokeRequest {
            node: second.claimed.prefix.to_string(),
        },
    );
    let now = rollout();
    assert_eq!(
        (
            now.nodes,
            now.announced,
            now.network_received,
            now.revocations_received
        ),
        (1, 1, 1, 0)
    );
    registry.pass(support::TTL_S);
    assert_eq!(rollout().announced, 0);
}

#[test]
fn a_backup_is_readable_by_its_owner_only_and_never_lands_in_another_folder() {
    let registry = Registry::start();
    let copy = registry.paths.state_dir.join("copy.sqlite");
    let mut elsewhere = BackupRequest::to(copy.clone());
    elsewhere.folder = BackupRequest::to("/proc/1".into()).folder;
    let refused = ask::<ChangeResult>(&registry, "POST", "/v1/backups", &elsewhere);
    check(refused, "no backup made");
    assert!(!copy.exists());
    let _: ChangeResult = registry.order("POST", "/v1/backups", &BackupRequest::to(copy.clone()));
    let mode = fs::metadata(&copy).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let open = registry.paths.state_dir.join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let request = BackupRequest::to(open.join("copy.sqlite"));
    check(
        ask::<ChangeResult>(&registry, "POST", "/v1/backups", &request),
        "no backup made",
    );
}

#[test]
fn a_restored_copy_continues_with_versions_and_prefixes_that_were_never_used() {
    let mut registry = Registry::start();
    let kept = registry.member();
    let copy = registry.paths.state_dir.join("copy.sqlite");
    let _: ChangeResult = registry.order("POST", "/v1/backups", &BackupRequest::to(copy.clone()));
    check(
        ask::<ChangeResult>(
            &registry,
            "POST",
            "/v1/backups",
            &BackupRequest::to(copy.clone()),
        ),
        "no backup made",
    );
    let lost = registry.member();
    assert!(
        restore(&registry.paths, &copy, registry.now()).is_err(),
        "it runs"
    );
    registry.stop();
    fs::write(registry.paths.state_dir.join("noise"), b"no database").unwrap();
    assert!(
        restore(
            &registry.paths,
            &registry.paths.state_dir.join("noise"),
            registry.now()
        )
        .is_err()
    );
    let aside = restore(&registry.paths, &copy, registry.now()).unwrap();
    assert!(aside.exists());
    registry.restart();
    let seen = document(&network(&registry, &kept), &kept.claimed.ca);
    assert!(seen.version > 1000);
    let list: SignedDocument = registry.ask(&kept, "GET", "/v1/revocations", &());
    let list = signed::open(&list, &[der(&kept.claimed.ca)])
        .unwrap()
        .payload;
    assert!(Revocations::read(&list).unwrap().version > 1000);
    let next = registry.member().claimed.prefix.number();
    assert!(next > lost.claimed.prefix.number() + 900, "{next}");
    assert_eq!(registry.call(Some(&lost), "GET", "/v1/network", "").0, 403);
}

#[test]
fn a_new_node_may_have_the_name_of_an_expired_node_after_the_grace_period() {
    let registry = Registry::start();
    let named = InviteRequest {
        ttl_s: 60,
        name: Some("printer".into()),
        ..InviteRequest::default()
    };
    let first = joined(&claim_with(&registry, &named));
    registry.pass(LIFE_S + GRACE_S - 1);
    check(
        ask::<InviteResponse>(&registry, "POST", "/v1/invitations", &named),
        "name taken",
    );
    // The prefix is free again too.
    registry.pass(1);
    let second = joined(&claim_with(&registry, &named));
    assert_eq!(first.prefix, second.prefix);
    assert!(!read(&registry.paths.config_dir.join("registry.json")).contains("printer"));
}
