//! Gives a real registry a disk that is full and a database with a wrong byte: what it answered is recorded, and
//! nothing is given twice.

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

/// A disk in memory, of `size` such as `1m`, at `path`; or another size for the one that is there.
fn disk(path: &Path, size: &str, flags: MsFlags) {
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

/// Whether this thread, and those that it starts, has mounts of its own.
fn own_mounts() -> bool {
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

/// Serial numbers of certificates in PEM; fails where there are two of one.
#[track_caller]
fn serials<'a>(certificates: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for pem in certificates {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let serial = pem.parse_x509().unwrap().raw_serial_as_string();
        assert!(all.insert(serial), "a serial number was given twice");
    }
    all
}

/// A claim with a new key and this token.
fn claim(registry: &Registry, token: &str) -> (u16, String) {
    registry.claim(token, &request(&CertificateParams::default(), &key()))
}

#[test]
fn on_a_full_disk_nothing_is_issued_that_is_not_recorded_and_with_room_it_goes_on() {
    if !own_mounts() {
        return;
    }
    let mut registry = Registry::with_state(|state| disk(state, "1m", MsFlags::empty()));
    let state = registry.paths.state_dir.clone();
    let (mut answered, mut refused) = (Vec::new(), Vec::new());
    let tokens: Vec<String> = (0..40)
        .map(|_| token_text(&registry.invite(86_400).token))
        .collect();
    // Somebody else fills the disk.
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
    let ends = |registry: &Registry, answered: &[Claimed]| {
        let told = serials(answered.iter().map(|claimed| claimed.certificate.as_str()));
        let all = issued(&registry.paths);
        assert!(
            told.is_subset(&serials(all.iter().map(String::as_str))),
            "issued, and not recorded"
        );
        let prefixes: BTreeSet<_> = answered.iter().map(|claimed| claimed.prefix).collect();
        assert_eq!(prefixes.len(), answered.len(), "a prefix was given twice");
    };
    ends(&registry, &answered);
    // With room again, the same invitations are good: none was spent.
    disk(&state, "64m", MsFlags::MS_REMOUNT);
    for token in refused {
        let (status, body) = claim(&registry, token);
        assert_eq!(status, 200, "{body}");
        answered.push(serde_json::from_str(&body).unwrap());
    }
    ends(&registry, &answered);
    registry.restart();
    ends(&registry, &answered);
    assert_eq!(issued(&registry.paths).len(), tokens.len());
}

#[test]
fn with_a_wrong_byte_in_its_database_a_registry_gives_nothing_twice_or_does_not_start() {
    let mut registry = Registry::start();
    let tokens: Vec<String> = (0..60)
        .map(|_| token_text(&registry.invite(86_400).token))
        .collect();
    let given: Vec<Claimed> = (0..40).map(|_| registry.member().claimed).collect();
    let owned: BTreeSet<_> = given.iter().map(|claimed| claimed.prefix).collect();
    registry.stop();
    let path = registry.paths.state_dir.join("registry.sqlite");
    let whole = fs::read(&path).unwrap();
    let mut random = fastrand::Rng::with_seed(35);
    let (mut refused, mut served) = (0, 0);
    for token in &tokens {
        let mut bytes = whole.clone();
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
                "byte {at}: {} was given twice",
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
                "byte {at}: a serial number was given twice"
            );
        }
        registry.stop();
    }
    assert!(
        refused > 0 && served > 0,
        "{refused} refused, {served} served"
    );
}
