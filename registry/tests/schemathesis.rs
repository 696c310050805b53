//! Lets schemathesis compare the running registry with its OpenAPI document: the calls of nodes over TLS, those
//! of the operator over the Unix socket.
//!
//! Fails where it cannot be installed, unless `WARREN_WITHOUT_PYPI=1` says that this is known.

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

/// Requests that are made up for each call, beside those that touch the borders of each schema.
const MADE_UP: &str = "15";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis")
}

/// The program; `None`: it is known that it cannot be had, and that was said.
fn tool() -> Option<String> {
    if env::var_os("WARREN_WITHOUT_PYPI").is_some_and(|value| value == "1") {
        writeln!(io::stderr(), "LEFT OUT, needs schemathesis of PyPI").ok();
        return None;
    }
    let installed = Command::new(folder().join("install")).output().unwrap();
    let said = String::from_utf8_lossy(&installed.stderr).into_owned();
    assert!(
        installed.status.success(),
        "schemathesis cannot be installed: {said}"
    );
    Some(
        String::from_utf8(installed.stdout)
            .unwrap()
            .trim()
            .to_owned(),
    )
}

/// Has each operation of a document tried at `url`; fails on any finding.
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
    let asked = [
        "--phases",
        "coverage,fuzzing",
        "--seed",
        "1",
        "--continue-on-failure",
        "--no-color",
    ];
    let kept = [
        "--generation-database",
        "none",
        "--max-examples",
        MADE_UP,
        "--url",
        url,
    ];
    let ran = Command::new(tool)
        .current_dir(place)
        .arg("--config-file")
        .arg(config)
        .arg("run")
        .arg(&document)
        .args(asked)
        .args(kept)
        .args(more)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(
        ran.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let count = |line: &str| {
        line.trim()
            .split_once(" generated")?
            .0
            .parse::<usize>()
            .ok()
    };
    let tried = told.lines().find_map(count).unwrap_or(0);
    assert!(tried > 200, "{told}");
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

/// Carries what comes to one end to the other, until either is done.
fn carry(mut from: impl io::Read, mut to: impl io::Write, done: impl FnOnce()) {
    // A connection that breaks is one that has ended.
    let _ = io::copy(&mut from, &mut to);
    done();
}

/// An address of TCP behind which is the operator's socket.
fn bridge(socket: &Path) -> String {
    let (listener, socket) = (TcpListener::bind("127.0.0.1:0").unwrap(), socket.to_owned());
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for tcp in listener.incoming() {
            let (tcp, unix): (TcpStream, _) = (tcp.unwrap(), UnixStream::connect(&socket).unwrap());
            let (tcp_in, unix_in) = (tcp.try_clone().unwrap(), unix.try_clone().unwrap());
            let (tcp_end, unix_end) = (tcp.try_clone().unwrap(), unix.try_clone().unwrap());
            thread::spawn(move || {
                carry(tcp_in, unix, move || {
                    drop(unix_end.shutdown(Shutdown::Write))
                })
            });
            thread::spawn(move || {
                carry(unix_in, tcp, move || drop(tcp_end.shutdown(Shutdown::Both)))
            });
        }
    });
    format!("http://{address}")
}

#[test]
fn schemathesis_finds_nothing_in_the_operator_s_calls() {
    let registry = Registry::without_limits(registry::clock::system_clock()());
    let url = bridge(&registry.paths.admin_socket);
    // It would write copies of the database to whatever path it makes up.
    check(&registry, true, &url, &["--exclude-operation-id", "Backup"]);
}
