//! Runs a real registry on a full disk, and on a database with a flipped bit: each certificate that it sent is recorded,
//! and no prefix or serial number is used twice.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use rcgen::CertificateParams;
use registry::http::admin::{self, NodeList};
use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, Write},
    path::Path,
};
use support::{Registry, issued, key, request};
use wire::{invitation::token_text, registry::Claimed};

/// Mounts a tmpfs of `size`, such as `1m`, at `path`, or resizes the one that is mounted there.
fn mount_tmpfs(path: &Path, size: &str, flags: MsFlags) {
    let options = format!("size={size},mode=700");
    mount(
        Some("disk"),
        path,
        Some("tmpfs"),
        flags,
        Some(options.as_str()),
    )
    .unwrap();
}

/// Gives this thread, and those that it starts, a mount namespace of its own; returns false if the test must be
/// skipped because it does not run as root.
fn unshare_mounts() -> bool {
    if !nix::unistd::geteuid().is_root() {
        assert_eq!(
            env::var("WARREN_WITHOUT_ROOT").as_deref(),
            Ok("1"),
            "this test needs root"
        );
        let listed = env::var_os("WARREN_SKIPPED_TESTS")
            .map(|path| fs::OpenOptions::new().append(true).open(path));
        if let Some(Ok(mut listed)) = listed {
            writeln!(listed, "a registry on a full disk").ok();
        }
        return false;
    }
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .unwrap();
    true
}

/// Returns the serial numbers of certificates in PEM, and fails if one occurs twice.
#[track_caller]
fn serials<'a>(certificates: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for pem in certificates {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let serial = pem.parse_x509().unwrap().raw_serial_as_string();
        assert!(all.insert(serial), "a serial number was used twice");
    }
    all
}

/// Makes a claim with a new key and this token.
fn claim(registry: &Registry, token: &str) -> (u16, String) {
    registry.claim(token, &request(&CertificateParams::default(), &key()))
}

#[test]
fn on_a_full_disk_each_issued_certificate_is_recorded_and_with_free_space_claims_succeed() {
    if !unshare_mounts() {
        return;
    }
    let mut registry = Registry::with_state_dir(|state| mount_tmpfs(state, "1m", MsFlags::empty()));
    let state = registry.paths.state_dir.clone();
    let (mut answered, mut refused) = (Vec::new(), Vec::new());
    let tokens: Vec<String> = (0..40)
        .map(|_| token_text(&registry.invite(86_400).token))
        .collect();
    // Another file fills the disk.
    let filled = fs::File::create(state.join("others")).and_then(|mut file| {
        loop {
            file.write_all(&[0; 4096])?;
        }
    });
    assert_eq!(
        filled.map(|(): ()| ()).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    for token in &tokens {
        match claim(&registry, token) {
            (200, body) => answered.push(serde_json::from_str::<Claimed>(&body).unwrap()),
            (500, _) => refused.push(token),
            (status, body) => unreachable!("{status}: {body}"),
        }
    }
    assert!(
        refused.len() > 10,
        "the disk was not full: {} of {} refused",
        refused.len(),
        tokens.len()
    );
    let check_answered = |registry: &Registry, answered: &[Claimed]| {
        let answered_serials = serials(answered.iter().map(|claimed| claimed.certificate.as_str()));
        let all = issued(&registry.paths);
        assert!(
            answered_serials.is_subset(&serials(all.iter().map(String::as_str))),
            "a certificate was issued and not recorded"
        );
        let prefixes: BTreeSet<_> = answered.iter().map(|claimed| claimed.prefix).collect();
        assert_eq!(
            prefixes.len(),
            answered.len(),
            "a prefix was allocated twice"
        );
    };
    check_answered(&registry, &answered);
    // With free space, the same tokens are accepted: the failed claims did not use them up.
    mount_tmpfs(&state, "64m", MsFlags::MS_REMOUNT);
    for token in refused {
        let (status, body) = claim(&registry, token);
        assert_eq!(status, 200, "{body}");
        answered.push(serde_json::from_str(&body).unwrap());
    }
    check_answered(&registry, &answered);
    registry.restart();
    check_answered(&registry, &answered);
    assert_eq!(issued(&registry.paths).len(), tokens.len());
}

#[test]
fn with_a_flipped_bit_in_its_database_a_registry_uses_nothing_twice_or_does_not_start() {
    let mut registry = Registry::start();
    let tokens: Vec<String> = (0..60)
        .map(|_| token_text(&registry.invite(86_400).token))
        .collect();
    let claimed: Vec<Claimed> = (0..40).map(|_| registry.member().claimed).collect();
    let owned: BTreeSet<_> = claimed.iter().map(|claimed| claimed.prefix).collect();
    registry.stop();
    let path = registry.paths.state_dir.join("registry.sqlite");
    let intact = fs::read(&path).unwrap();
    let mut random = fastrand::Rng::with_seed(35);
    let (mut refused, mut served) = (0, 0);
    for token in &tokens {
        let mut bytes = intact.clone();
        let at = random.usize(..bytes.len());
        bytes[at] ^= 1 << random.u8(..8);
        for name in ["registry.sqlite-wal", "registry.sqlite-shm"] {
            let _ = fs::remove_file(registry.paths.state_dir.join(name));
        }
        fs::write(&path, bytes).unwrap();
        if let Err(why) = registry.try_restart() {
            assert!(!why.is_empty());
            refused += 1;
            continue;
        }
        served += 1;
        let (status, body) = claim(&registry, token);
        if status == 200 {
            let claimed: Claimed = serde_json::from_str(&body).unwrap();
            assert!(
                !owned.contains(&claimed.prefix),
                "byte {at}: {} was allocated twice",
                claimed.prefix
            );
        } else {
            assert!([403, 500].contains(&status), "byte {at}: {status} {body}");
        }
        let listed = admin::ask::<NodeList>(
            &registry.paths.admin_socket,
            "GET",
            "/v1/nodes",
            None::<&()>,
        );
        if let Ok(listed) = listed {
            let serials: BTreeSet<_> = listed.nodes.iter().map(|node| &node.serial).collect();
            assert_eq!(
                serials.len(),
                listed.nodes.len(),
                "byte {at}: a serial number was used twice"
            );
        }
        registry.stop();
    }
    assert!(
        refused > 0 && served > 0,
        "{refused} refused, {served} served"
    );
}
