//! A registry with a missing file reports that file, and never advises to create another registry.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use registry::{
    FileError,
    init::{self, error::RegistryError},
};
use std::fs;
use support::Registry;

/// Removes one file of a registry, opens the registry, and puts the file back.
#[track_caller]
fn check(registry: &Registry, name: &str) {
    let folder = match name {
        "registry.sqlite" => &registry.paths.state_dir,
        _ => &registry.paths.config_dir,
    };
    let (path, aside) = (folder.join(name), folder.join("aside"));
    fs::rename(&path, &aside).unwrap();
    let error = init::open(&registry.paths).err().unwrap();
    assert!(
        matches!(&error, RegistryError::File(FileError::Missing { path: missing }) if *missing == path),
        "{name}: {error}"
    );
    assert!(
        !error.to_string().contains("warren registry init"),
        "{error}"
    );
    assert!(!path.exists(), "{name} was created again");
    fs::rename(&aside, &path).unwrap();
}

#[test]
fn each_missing_file_is_reported_with_the_advice_to_restore_it() {
    let mut registry = Registry::start();
    registry.stop();
    for name in [
        "registry.json",
        "ca.crt",
        "ca.key",
        "signer.crt",
        "signer.key",
        "tls.crt",
        "tls.key",
        "registry.sqlite",
    ] {
        check(&registry, name);
    }
    assert!(init::open(&registry.paths).is_ok());
}

#[test]
fn each_bad_credential_is_reported_with_its_path_and_what_it_should_hold() {
    let mut registry = Registry::start();
    registry.stop();
    for name in [
        "ca.crt",
        "ca.key",
        "signer.crt",
        "signer.key",
        "tls.crt",
        "tls.key",
    ] {
        let path = registry.paths.config_dir.join(name);
        let good = fs::read(&path).unwrap();
        for bad in [&b""[..], &good[..good.len() / 2], b"\xef\xbb\xbfnothing"] {
            fs::write(&path, bad).unwrap();
            let error = init::open(&registry.paths).err().unwrap();
            let text = error.to_string();
            assert!(text.contains(&path.display().to_string()), "{text}");
            assert!(text.contains("restore it from a backup"), "{text}");
        }
        fs::write(&path, good).unwrap();
    }
    assert!(init::open(&registry.paths).is_ok());
}

#[test]
fn a_registry_does_not_exist_if_none_of_its_files_exists() {
    let mut registry = Registry::start();
    registry.stop();
    fs::remove_dir_all(&registry.paths.config_dir).unwrap();
    fs::remove_dir_all(&registry.paths.state_dir).unwrap();
    let error = init::open(&registry.paths).err().unwrap();
    assert!(matches!(error, RegistryError::NoRegistry { .. }), "{error}");
}
