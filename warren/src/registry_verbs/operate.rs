//! Asks the running registry over its socket for what an operator wants.

use super::{
    Root,
    arguments::{
        AuditLogArgs, BackupArgs, Key, ListArgs, NodePropertyArgs, RenameArgs, RevokeArgs,
        RolloutArgs, RotateKeyArgs, SetArgs, SignArgs, Wait,
    },
    settings_code,
};
use crate::output::{fail, print_line, read_text};
use policies::node_name::NodeName;
use registry::{
    http::admin::{
        self, AdminError, AuditLog, BackupRequest, ChangeResult, NodeList, ParameterList,
        RenameRequest, RenamedNode, RevokeRequest, RevokedNode, RotateKeyRequest, SetRequest,
        SignRequest,
    },
    init::restore,
    service::{Rollout, SharedKey},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{path::Path, process::ExitCode, time::Duration};
use wire::registry::Enrolment;

/// Interval at which the registry is asked while a command waits for all nodes.
const ASK_INTERVAL: Duration = Duration::from_millis(200);

pub(super) fn admin_code(error: &AdminError) -> u8 {
    match error {
        AdminError::NotRunning { .. } => 3,
        AdminError::NoPermission { .. } => 4,
        AdminError::Failed { .. } | AdminError::Rejected { .. } | AdminError::Unreadable { .. } => {
            1
        }
    }
}

/// Makes one call, and does something with its answer; or the reason why there is none.
pub(super) fn call<T: DeserializeOwned>(
    root: &Root,
    method: &str,
    path: &str,
    document: Option<&impl Serialize>,
    then: impl FnOnce(T) -> ExitCode,
) -> ExitCode {
    match admin::ask::<T>(&root.paths().admin_socket, method, path, document) {
        Ok(answer) => then(answer),
        Err(error) => fail(&error, admin_code(&error)),
    }
}

pub(super) const NOTHING: Option<&()> = None;

pub(super) fn print_json(document: &impl Serialize) -> ExitCode {
    match serde_json::to_string(document) {
        Ok(text) => {
            print_line(text);
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, 1),
    }
}

/// A short text, or what to end with.
pub(super) fn text_of(file: &Path) -> Result<String, ExitCode> {
    read_text(file).map_err(|error| {
        let what = format!("cannot read {}: {error}", file.display());
        fail(&std::io::Error::other(what), 1)
    })
}

pub(super) fn sign(args: &SignArgs) -> ExitCode {
    let csr = match text_of(&args.file) {
        Ok(csr) => csr,
        Err(code) => return code,
    };
    let NodePropertyArgs {
        name,
        prefix_length,
        pin_prefix,
    } = &args.wanted;
    let ask = SignRequest {
        csr,
        name: name.clone(),
        prefix_length: *prefix_length,
        prefix: pin_prefix.clone(),
    };
    call(
        &args.root,
        "POST",
        "/v1/signatures",
        Some(&ask),
        |signed: Enrolment| print_json(&signed),
    )
}

pub(super) fn list(args: &ListArgs) -> ExitCode {
    call(
        &args.root,
        "GET",
        "/v1/nodes",
        NOTHING,
        |listing: NodeList| {
            if args.json {
                return print_json(&listing);
            }
            let old_names: Vec<String> = listing
                .nodes
                .iter()
                .filter_map(|node| Some((&node.prefix, node.name.as_ref()?)))
                .filter(|(_, name)| !NodeName::is_normalized(name))
                .map(|(prefix, name)| format!("{prefix} {name}"))
                .collect();
            for node in listing.nodes {
                let state = if node.revoked { "revoked" } else { "live" };
                let name = node.name.as_deref().unwrap_or("-");
                let announced = node.announcement.map_or("silent", |announced| {
                    match announced.endpoints.as_slice() {
                        [] => "announced",
                        [_, ..] => "dialable",
                    }
                });
                let (prefix, expires, serial) = (node.prefix, node.expires_at, node.serial);
                print_line(format_args!(
                    "{prefix:<12} {name:<16} {state:<8} {announced:<8} until {expires}  {serial}"
                ));
            }
            if !old_names.is_empty() {
                print_line(format_args!(
                    "names that are not {}: {}",
                    NodeName::RULE,
                    old_names.join(", ")
                ));
            }
            ExitCode::SUCCESS
        },
    )
}

pub(super) fn rename(args: &RenameArgs) -> ExitCode {
    let ask = RenameRequest {
        node: args.node.clone(),
        name: args.name.clone(),
    };
    call(
        &args.root,
        "PUT",
        "/v1/names",
        Some(&ask),
        |done: RenamedNode| {
            let RenamedNode { prefix, name, .. } = done;
            print_line(format_args!(
                "{prefix} is {name} from its next certificate on: it renews that when it announces itself next, within 5 minutes; \
                 its neighbours show the new name at once, other nodes when they next talk to it"
            ));
            ExitCode::SUCCESS
        },
    )
}

pub(super) fn revoke(args: &RevokeArgs) -> ExitCode {
    let ask = RevokeRequest {
        node: args.node.clone(),
    };
    call(
        &args.root,
        "POST",
        "/v1/revocations",
        Some(&ask),
        |done: RevokedNode| {
            print_line(format_args!(
                "{} revoked ({} certificates)",
                done.prefix, done.certificates
            ));
            let version = done.revocations_version;
            wait(&args.root, &args.wait, |rollout| {
                (rollout.revocations_version >= version
                    && rollout.revocations_received >= rollout.announced)
                    .then(|| format!("revocations {}", rollout.revocations_version))
            })
        },
    )
}

/// Waits until `done`, where that is asked for; reports the progress when that changes.
fn wait(root: &Root, wait: &Wait, done: impl Fn(&Rollout) -> Option<String>) -> ExitCode {
    if !wait.wait {
        return ExitCode::SUCCESS;
    }
    let asking = async {
        let mut last = None;
        loop {
            let rollout = read_rollout(root).await?;
            if last.replace(rollout) != Some(rollout) {
                print_line(shown(&rollout));
            }
            if let Some(what) = done(&rollout) {
                return Ok::<_, AdminError>(what);
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
    };
    match actix_rt::System::new()
        .block_on(async { tokio::time::timeout(wait.timeout, asking).await })
    {
        Ok(Ok(what)) => {
            print_line(format_args!("{what}: all nodes that are there have it"));
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => fail(&error, admin_code(&error)),
        Err(_) => {
            let what = format!("not all nodes have it after {} s", wait.timeout.as_secs());
            fail(&std::io::Error::other(what), 5)
        }
    }
}

/// Asks for the rollout in a thread of its own, since the call blocks.
async fn read_rollout(root: &Root) -> Result<Rollout, AdminError> {
    let socket = root.paths().admin_socket;
    let asked = socket.clone();
    let ask = move || admin::ask::<Rollout>(&asked, "GET", "/v1/rollout", NOTHING);
    tokio::task::spawn_blocking(ask)
        .await
        .unwrap_or(Err(AdminError::Unreadable { path: socket }))
}

fn shown(rollout: &Rollout) -> String {
    format!(
        "{} nodes, {} announced themselves; revocations {}: {} hold them; network {}: {} hold it, {} have applied it",
        rollout.nodes,
        rollout.announced,
        rollout.revocations_version,
        rollout.revocations_received,
        rollout.network_version,
        rollout.network_received,
        rollout.network_applied
    )
}

/// Whether all nodes that are there have applied the network document of this version.
fn applied(version: u64) -> impl Fn(&Rollout) -> Option<String> {
    move |rollout| {
        (rollout.network_version >= version && rollout.network_applied >= rollout.announced)
            .then(|| format!("network {}", rollout.network_version))
    }
}

pub(super) fn rollout(args: &RolloutArgs) -> ExitCode {
    call(
        &args.root,
        "GET",
        "/v1/rollout",
        NOTHING,
        |rollout: Rollout| {
            if args.json {
                return print_json(&rollout);
            }
            print_line(shown(&rollout));
            wait(&args.root, &args.wait, applied(rollout.network_version))
        },
    )
}

pub(super) fn parameters(args: &ListArgs) -> ExitCode {
    call(
        &args.root,
        "GET",
        "/v1/parameters",
        NOTHING,
        |list: ParameterList| {
            if args.json {
                return print_json(&list);
            }
            for one in list.parameters {
                print_line(format_args!(
                    "{:<18} {:<24} {}",
                    one.key, one.value, one.class
                ));
            }
            ExitCode::SUCCESS
        },
    )
}

pub(super) fn done(root: &Root, pause: &Wait, done: &ChangeResult) -> ExitCode {
    print_line(format_args!(
        "{} (network document {})",
        done.summary, done.network_version
    ));
    wait(root, pause, applied(done.network_version))
}

pub(super) fn set(args: &SetArgs) -> ExitCode {
    let ask = SetRequest {
        key: args.key.clone(),
        value: args.value.clone(),
    };
    call(&args.root, "PUT", "/v1/parameters", Some(&ask), |answer| {
        done(&args.root, &args.wait, &answer)
    })
}

pub(super) fn rotate_key(args: &RotateKeyArgs) -> ExitCode {
    let key = match args.key {
        Key::Babel => SharedKey::Babel,
        Key::TlsCrypt => SharedKey::TlsCrypt,
    };
    let ask = RotateKeyRequest {
        key,
        step: args.step.into(),
        force: args.force,
    };
    call(&args.root, "POST", "/v1/keys", Some(&ask), |answer| {
        done(&args.root, &args.wait, &answer)
    })
}

pub(super) fn backup(args: &BackupArgs) -> ExitCode {
    let path = std::path::absolute(&args.file).unwrap_or_else(|_| args.file.clone());
    call(
        &args.root,
        "POST",
        "/v1/backups",
        Some(&BackupRequest::to(path)),
        |done: ChangeResult| {
            print_line(done.summary);
            ExitCode::SUCCESS
        },
    )
}

pub(super) fn restore(args: &BackupArgs) -> ExitCode {
    let now = registry::clock::system_clock()();
    let paths = args.root.paths();
    let restored = restore::restore(&paths, &args.file, now);
    match restored.and_then(|aside| args.root.give_to_registry_user(&paths).map(|()| aside)) {
        Ok(aside) => {
            print_line(format_args!(
                "restored; what was there before is {}",
                aside.display()
            ));
            print_line(
                "nodes that joined since the copy must join again (warren join --replace -); what was revoked since must be revoked again",
            );
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, settings_code(&error)),
    }
}

pub(super) fn audit_log(args: &AuditLogArgs) -> ExitCode {
    call(
        &args.root,
        "GET",
        &format!("/v1/audit-log?count={}", args.lines),
        NOTHING,
        |log: AuditLog| {
            for entry in log.entries {
                print_line(format_args!(
                    "{}  {:<8} {}",
                    entry.at, entry.actor, entry.action
                ));
            }
            ExitCode::SUCCESS
        },
    )
}
