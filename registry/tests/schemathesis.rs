//! Lets schemathesis compare a running registry with its OpenAPI documents: the calls of nodes over TLS, those of the
//! operator over the Unix socket.
//!
//! The tests fail if schemathesis cannot be installed, unless `WARREN_WITHOUT_PYPI=1` is set.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "the tool is another process")]

mod support;

use std::{
    env, fs,
    io::{self, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
};
use support::Registry;

/// Number of random requests for each call, besides those at the limits of each schema.
const GENERATED_EXAMPLES: &str = "15";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis")
}

/// Installs schemathesis and returns the path of its program; `None` if the tests are skipped.
fn tool() -> Option<String> {
    if env::var_os("WARREN_WITHOUT_PYPI").is_some_and(|value| value == "1") {
        writeln!(io::stderr(), "SKIPPED: schemathesis from PyPI is needed").ok();
        return None;
    }
    let installed = Command::new(folder().join("install")).output().unwrap();
    let errors = String::from_utf8_lossy(&installed.stderr).into_owned();
    assert!(
        installed.status.success(),
        "schemathesis cannot be installed: {errors}"
    );
    Some(
        String::from_utf8(installed.stdout)
            .unwrap()
            .trim()
            .to_owned(),
    )
}

/// Lets schemathesis test each operation of a document at `url`, and fails on any finding.
#[track_caller]
fn check(registry: &Registry, operator: bool, url: &str, more: &[&str]) {
    let Some(tool) = tool() else {
        return;
    };
    let place = registry.paths.config_dir.parent().unwrap();
    let document = place.join("openapi.json");
    fs::write(
        &document,
        registry::http::openapi::document(operator).to_string(),
    )
    .unwrap();
    let config = folder().join(if operator {
        "operator.toml"
    } else {
        "nodes.toml"
    });
    let options = [
        "--phases",
        "coverage,fuzzing",
        "--seed",
        "1",
        "--continue-on-failure",
        "--no-color",
    ];
    let more_options = [
        "--generation-database",
        "none",
        "--max-examples",
        GENERATED_EXAMPLES,
        "--url",
        url,
    ];
    let ran = Command::new(tool)
        .current_dir(place)
        .arg("--config-file")
        .arg(config)
        .arg("run")
        .arg(&document)
        .args(options)
        .args(more_options)
        .args(more)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(
        ran.status.success(),
        "{report}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let count = |line: &str| {
        line.trim()
            .split_once(" generated")?
            .0
            .parse::<usize>()
            .ok()
    };
    let tried = report.lines().find_map(count).unwrap_or(0);
    assert!(tried > 200, "{report}");
}

#[test]
fn schemathesis_finds_nothing_in_the_calls_of_nodes() {
    let registry = Registry::without_limits(registry::clock::system_clock()());
    let node = registry.member();
    let place = registry.paths.config_dir.parent().unwrap().to_owned();
    let (certificate, key) = (place.join("node.crt"), place.join("node.key"));
    fs::write(&certificate, &node.claimed.certificate).unwrap();
    fs::write(&key, node.key.serialize_pem()).unwrap();
    let ca = registry.paths.config_dir.join("ca.crt");
    let paths = [&ca, &certificate, &key].map(|path| path.to_str().unwrap());
    let tls = [
        "--tls-verify",
        paths[0],
        "--request-cert",
        paths[1],
        "--request-cert-key",
        paths[2],
    ];
    check(
        &registry,
        false,
        &format!("https://{}", registry.address),
        &tls,
    );
}

/// Forwards bytes until one of the connections closes.
fn forward(mut from: impl io::Read, mut to: impl io::Write, done: impl FnOnce()) {
    // A connection that breaks counts as closed.
    let _ = io::copy(&mut from, &mut to);
    done();
}

/// Starts to forward TCP connections to the operator's socket; returns the URL.
fn bridge(socket: &Path) -> String {
    let (listener, socket) = (TcpListener::bind("127.0.0.1:0").unwrap(), socket.to_owned());
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for tcp in listener.incoming() {
            let (tcp, unix): (TcpStream, _) = (tcp.unwrap(), UnixStream::connect(&socket).unwrap());
            let (tcp_in, unix_in) = (tcp.try_clone().unwrap(), unix.try_clone().unwrap());
            let (tcp_end, unix_end) = (tcp.try_clone().unwrap(), unix.try_clone().unwrap());
            thread::spawn(move || {
                forward(tcp_in, unix, move || {
                    drop(unix_end.shutdown(Shutdown::Write))
                })
            });
            thread::spawn(move || {
                forward(unix_in, tcp, move || drop(tcp_end.shutdown(Shutdown::Both)))
            });
        }
    });
    format!("http://{address}")
}

#[test]
fn schemathesis_finds_nothing_in_the_operator_s_calls() {
    let registry = Registry::without_limits(registry::clock::system_clock()());
    let url = bridge(&registry.paths.admin_socket);
    // Backup is excluded, as it would write copies of the database to random paths.
    check(&registry, true, &url, &["--exclude-operation-id", "Backup"]);
}
