//! The rule about files: in the crates that root runs, only the crate `files` changes files and folders, and reads those of a
//! node.

#![expect(
    clippy::unwrap_used,
    reason = "a test may panic outside its test functions too"
)]

use std::fs;
use warren_tests::{root, tracked_files};

/// The crates whose code runs as root.
const ROOT_CRATES: &[&str] = &[
    "os",
    "membership",
    "actors",
    "supervisor",
    "registry",
    "warren",
];

/// What only the crate `files` calls.
const RESERVED: &[&str] = &[
    "fs::write(",
    "fs::rename",
    "fs::copy(",
    "fs::hard_link",
    "fs::remove_",
    "fs::create_dir",
    "fs::set_permissions",
    "fs::read(",
    "fs::read_to_string(",
    "File::create",
    "File::open",
    "OpenOptions::new",
    "DirBuilder",
    "UnixListener::bind",
    "set_permissions(",
    "chown(",
];

/// The other places: file, call, and why it may stand there.
const ALLOWED: &[(&str, &str, &str)] = &[
    (
        "os/src/kernel/sysctl.rs",
        "fs::read_to_string(",
        "a setting of the kernel",
    ),
    (
        "os/src/kernel/sysctl.rs",
        "OpenOptions::new",
        "a setting of the kernel",
    ),
    ("os/src/kernel/tun.rs", "OpenOptions::new", "a device"),
    (
        "os/src/kernel/tun.rs",
        "chown(",
        "a device, in a folder that was checked",
    ),
    (
        "os/src/kernel/tun.rs",
        "fs::set_permissions",
        "a device, in a folder that was checked",
    ),
    (
        "os/src/kernel/tun.rs",
        "set_permissions(",
        "a device, in a folder that was checked",
    ),
    (
        "supervisor/src/host.rs",
        "fs::remove_",
        "the folder of the device, if it is empty",
    ),
    (
        "supervisor/src/join.rs",
        "File::open",
        "a folder, to lock it",
    ),
    ("supervisor/src/shutdown.rs", "fs::read_to_string(", "/proc"),
    ("os/src/socket_drops.rs", "fs::read_to_string(", "/proc"),
    (
        "actors/src/sources/port_mapping/default_gateway.rs",
        "fs::read_to_string(",
        "/proc",
    ),
    (
        "registry/src/init/restore.rs",
        "File::open",
        "the copy that the operator names",
    ),
    (
        "warren/src/output.rs",
        "File::open",
        "what the operator names",
    ),
    (
        "os/src/route_check.rs",
        "chown(",
        "of a socket, whose route depends on its user",
    ),
    (
        "supervisor/src/doctor.rs",
        "fs::read_to_string(",
        "files of the kernel and of the system, which are links in part",
    ),
    (
        "supervisor/src/doctor/host_checks.rs",
        "File::open",
        "a file of the kernel",
    ),
    (
        "warren/src/reference_verb.rs",
        "fs::create_dir",
        "an ordinary user builds the package",
    ),
    (
        "warren/src/reference_verb.rs",
        "fs::write(",
        "an ordinary user builds the package",
    ),
];

/// Returns the source files of a crate, relative to the repository.
fn sources(package: &str) -> Vec<String> {
    let folder = format!("{package}/src/");
    tracked_files()
        .into_iter()
        .filter(|name| name.starts_with(&folder) && name.ends_with(".rs"))
        .collect()
}

/// Returns each reserved call before the tests of a file.
fn reserved_calls(file: &str) -> Vec<&'static str> {
    let text = fs::read_to_string(root().join(file)).unwrap();
    let code: String = text
        .lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| line.replace("files::", "") + "\n")
        .collect();
    RESERVED
        .iter()
        .copied()
        .filter(|call| code.contains(call))
        .collect()
}

#[test]
fn only_the_crate_files_changes_files() {
    let mut calls = Vec::new();
    for file in ROOT_CRATES.iter().flat_map(|package| sources(package)) {
        calls.extend(
            reserved_calls(&file)
                .into_iter()
                .map(|call| (file.clone(), call)),
        );
    }
    let is_allowed = |file: &str, call: &str| {
        ALLOWED
            .iter()
            .any(|(place, allowed, _)| *place == file && *allowed == call)
    };
    let strange: Vec<_> = calls
        .iter()
        .filter(|(file, call)| !is_allowed(file, call))
        .collect();
    assert!(
        strange.is_empty(),
        "call the crate `files` instead: {strange:?}"
    );
    let is_used = |place: &str, allowed: &str| {
        calls
            .iter()
            .any(|(file, call)| file == place && *call == allowed)
    };
    let unused: Vec<_> = ALLOWED
        .iter()
        .filter(|(place, call, _)| !is_used(place, call))
        .collect();
    assert!(unused.is_empty(), "no longer needed: {unused:?}");
}
