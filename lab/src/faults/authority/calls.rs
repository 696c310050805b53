//! Each call of a registry, as its own document lists them, by each kind of caller.

use super::matrix::{GRACE_S, LIFE_S, Member, START_S, cells, operate, revoke, start_registry};
use crate::{
    faults::{Figure, Outcome},
    process::{self, warren_program},
    progress::progress,
    standalone_registry::StandaloneRegistry,
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

/// Who may make which call. The registry's own tests read the same table.
const CALLERS: &str = include_str!("../../../../registry/tests/authority/callers.txt");
/// The headers by which a proxy would mark a local or verified caller.
const PROXY_HEADERS: &str = "x-forwarded-for: 127.0.0.1\r\nforwarded: for=127.0.0.1\r\nx-real-ip: ::1\r\nx-ssl-client-verify: SUCCESS\r\n";
/// The body of each request, which no call takes for a whole document.
const BODY: &str = "{}";
/// The user `nobody` of Debian.
const NOBODY: &str = "65534";
/// Folders above the operator's socket that belong to the registry alone.
const PRIVATE_FOLDERS: usize = 2;
/// Longest time of one command or request.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A call of the registry's API.
struct Call {
    method: String,
    path: String,
    allowed_caller: String,
}

/// The callers of the table that have certificates.
struct Members {
    member: Member,
    expired: Member,
    expired_before_grace: Member,
    revoked: Member,
    of_other: Member,
}

pub(super) fn run() -> Result<Outcome> {
    progress("each call of a registry by each kind of caller");
    let (registry, other) = (start_registry(&[])?, start_registry(&[])?);
    let members = Members::create(&registry, &other)?;
    let node_calls = list_calls(&registry, &[])?;
    let operator_calls = list_calls(&registry, &["--operator"])?;
    let (mut requests, mut wrong) = (0, 0);
    let mut judge = |call: &Call, caller: &str, status: Option<u16>, expected: &str| {
        requests += 1;
        if !is_expected(status, expected) {
            wrong += 1;
            progress(format!(
                "{} {} by {caller}: {status:?}",
                call.method, call.path
            ));
        }
    };
    for cell in cells(CALLERS) {
        let calls = node_calls.iter().chain(&operator_calls);
        for call in calls.filter(|call| call.allowed_caller == cell.column) {
            let status = members.make(&registry, call, cell.row)?;
            judge(call, cell.row, status, cell.expected);
        }
    }
    open_folders(&registry.admin_socket())?;
    for call in &operator_calls {
        judge(
            call,
            "nobody on the host",
            Some(make_as_nobody(&registry, call)?),
            "no",
        );
        judge(
            call,
            "root",
            Some(operate(&registry, &call.method, &call.path, BODY)?),
            "yes",
        );
    }
    Ok(Outcome {
        id: "calls-by-others",
        fault: "each call of a registry by nodes and others: expired, revoked, of another network, as nobody on the host, with forged headers of a proxy",
        tries: requests,
        figures: vec![Figure::count("wrong answers", wrong, 0)],
    })
}

fn is_expected(status: Option<u16>, expected: &str) -> bool {
    match expected {
        "yes" => matches!(status, Some(200 | 400)),
        "no" => matches!(status, Some(401 | 403)),
        "absent" => matches!(status, Some(404 | 405)),
        "closed" => status.is_none(),
        _ => false,
    }
}

/// Lists the calls of nodes or, with `--operator`, of the operator.
fn list_calls(registry: &StandaloneRegistry, options: &[&str]) -> Result<Vec<Call>> {
    let arguments = [&["registry", "openapi"], options].concat();
    let text = process::run(registry.namespace(), &warren_program(), arguments, TIMEOUT)?;
    let document: Value = serde_json::from_str(&text)?;
    let paths = document.get("paths").and_then(Value::as_object);
    let mut calls = Vec::new();
    for (path, methods) in paths.context("the document lists no paths")? {
        for (method, call) in methods.as_object().into_iter().flatten() {
            let allowed = call.get("x-allowed-caller").and_then(Value::as_str);
            let context = || format!("the document does not say who may make {method} {path}");
            calls.push(Call {
                method: method.to_ascii_uppercase(),
                path: path.clone(),
                allowed_caller: allowed.with_context(context)?.to_owned(),
            });
        }
    }
    ensure!(!calls.is_empty(), "the document lists no calls");
    Ok(calls)
}

impl Members {
    fn create(registry: &StandaloneRegistry, other: &StandaloneRegistry) -> Result<Self> {
        let expired_before_grace = Member::join(registry)?;
        registry.set_clock(START_S + GRACE_S)?;
        let expired = Member::join(registry)?;
        let now = START_S + GRACE_S + LIFE_S + 60;
        registry.set_clock(now)?;
        other.set_clock(now)?;
        let revoked = Member::join(registry)?;
        let status = revoke(registry, revoked.prefix)?;
        ensure!(status == 200, "a node cannot be revoked: {status}");
        Ok(Self {
            member: Member::join(registry)?,
            expired,
            expired_before_grace,
            revoked,
            of_other: Member::join(other)?,
        })
    }

    /// Makes a call as this caller of the table; returns the status, or `None` if the connection is closed.
    fn make(
        &self,
        registry: &StandaloneRegistry,
        call: &Call,
        caller: &str,
    ) -> Result<Option<u16>> {
        let member = match caller {
            "nobody" | "forged-proxy-headers" => None,
            "member" => Some(&self.member),
            "expired" => Some(&self.expired),
            "expired-before-grace" => Some(&self.expired_before_grace),
            "revoked" => Some(&self.revoked),
            "member-of-other" => Some(&self.of_other),
            _ => anyhow::bail!("the table has an unknown caller {caller}"),
        };
        let headers = if caller == "forged-proxy-headers" {
            PROXY_HEADERS
        } else {
            ""
        };
        let connector = registry.connector(member.map(Member::identity))?;
        registry.run_inside(|| {
            // TLS 1.3 reports a rejected certificate with the first answer.
            let answer = connector.connect(None)?.request_with(
                headers,
                &call.method,
                &call.path,
                BODY.as_bytes(),
            );
            Ok(answer.ok().map(|(status, _)| status))
        })
    }
}

/// Opens the folders of the operator's socket, and the socket, to everybody: only the registry itself rejects other users then.
fn open_folders(socket: &Path) -> Result<()> {
    for path in socket.ancestors().take(1 + PRIVATE_FOLDERS) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
    }
    Ok(())
}

/// Makes a call over the operator's socket as a process of another user.
fn make_as_nobody(registry: &StandaloneRegistry, call: &Call) -> Result<u16> {
    let socket = registry.admin_socket();
    let socket = socket.to_string_lossy();
    let url = format!("http://registry{}", call.path);
    let arguments = [
        &[
            "--reuid",
            NOBODY,
            "--regid",
            NOBODY,
            "--clear-groups",
            "curl",
        ][..],
        &[
            "--silent",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ],
        &["--request", &call.method, "--data", BODY],
        &["--unix-socket", &socket, &url],
    ]
    .concat();
    let status = process::run(
        registry.namespace(),
        Path::new("setpriv"),
        arguments,
        TIMEOUT,
    )?;
    status.trim().parse().context("curl printed no status")
}
