//! Asks the running registry over its socket for what an operator wants.

use super::{
    Root,
    arguments::{
        BackupArgs, InviteArgs, Key, ListArgs, LogArgs, RevokeArgs, RotateKeyArgs, SetArgs,
        SignArgs, SpreadArgs, Wait, WantedArgs,
    },
    settings_code,
};
use crate::output::{fail, print_line, read_text};
use qrcode::{QrCode, render::unicode::Dense1x2};
use registry::{
    http::admin::{
        self, AdminError, Backup, Done, Invite, Invited, Lines, Listing, ParameterList, Revoke,
        RevokedNode, RotateKey, Set, SignFile,
    },
    init::restore,
    service::{KeyKind, Spread},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{path::Path, process::ExitCode, time::Duration};
use wire::registry::Enrolment;

pub(super) fn admin_code(error: &AdminError) -> u8 {
    match error {
        AdminError::NotRunning { .. } => 3,
        AdminError::NoPermission { .. } => 4,
        AdminError::Io { .. } | AdminError::No { .. } | AdminError::Unreadable { .. } => 1,
    }
}

/// Makes one call, and does something with its answer; or says why there is none.
pub(super) fn call<T: DeserializeOwned>(
    root: &Root,
    method: &str,
    path: &str,
    document: Option<&impl Serialize>,
    then: impl FnOnce(T) -> ExitCode,
) -> ExitCode {
    match admin::ask::<T>(&root.places().admin, method, path, document) {
        Ok(answer) => then(answer),
        Err(error) => fail(&error, admin_code(&error)),
    }
}

const NOTHING: Option<&()> = None;

fn print_json(document: &impl Serialize) -> ExitCode {
    match serde_json::to_string(document) {
        Ok(text) => {
            print_line(text);
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, 1),
    }
}

pub(super) fn invite(args: &InviteArgs) -> ExitCode {
    let WantedArgs {
        name,
        prefix_length,
        pin_prefix,
    } = &args.wanted;
    let ask = Invite {
        ttl_s: args.ttl,
        uses: Some(args.uses),
        name: name.clone(),
        prefix_length: *prefix_length,
        prefix: pin_prefix.clone(),
        anonymous: args.anonymous,
    };
    call(
        &args.root,
        "POST",
        "/v1/invitations",
        Some(&ask),
        |invited: Invited| {
            if args.json {
                return print_json(&invited);
            }
            print_line(&invited.invitation);
            if !args.qr {
                return ExitCode::SUCCESS;
            }
            match QrCode::new(&invited.invitation) {
                Ok(code) => {
                    print_line(code.render::<Dense1x2>().quiet_zone(true).build());
                    ExitCode::SUCCESS
                }
                Err(error) => fail(&error, 1),
            }
        },
    )
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
    let WantedArgs {
        name,
        prefix_length,
        pin_prefix,
    } = &args.wanted;
    let ask = SignFile {
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
        |listing: Listing| {
            if args.json {
                return print_json(&listing);
            }
            for node in listing.nodes {
                let state = if node.revoked { "revoked" } else { "live" };
                let name = node.name.as_deref().unwrap_or("-");
                let heard = node
                    .heard
                    .map_or("silent", |heard| match heard.endpoints.as_slice() {
                        [] => "heard",
                        [_, ..] => "dialable",
                    });
                let (prefix, expires, serial) = (node.prefix, node.expires, node.serial);
                print_line(format_args!(
                    "{prefix:<12} {name:<16} {state:<8} {heard:<8} until {expires}  {serial}"
                ));
            }
            ExitCode::SUCCESS
        },
    )
}

pub(super) fn revoke(args: &RevokeArgs) -> ExitCode {
    let ask = Revoke {
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
            wait(&args.root, &args.wait, |spread| {
                (spread.revocations_version >= version && spread.revocations_held >= spread.heard)
                    .then(|| format!("revocations {}", spread.revocations_version))
            })
        },
    )
}

/// Waits until `done`, where that is asked for; tells how far it has come when that changes.
fn wait(root: &Root, wait: &Wait, done: impl Fn(&Spread) -> Option<String>) -> ExitCode {
    if !wait.wait {
        return ExitCode::SUCCESS;
    }
    let asking = async {
        let mut last = None;
        loop {
            let spread = admin::ask::<Spread>(&root.places().admin, "GET", "/v1/spread", NOTHING)?;
            if last.replace(spread) != Some(spread) {
                print_line(shown(&spread));
            }
            if let Some(what) = done(&spread) {
                return Ok::<_, AdminError>(what);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
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

fn shown(spread: &Spread) -> String {
    format!(
        "{} nodes, {} heard of; revocations {}: {} hold them; network {}: {} hold it, {} have applied it",
        spread.nodes,
        spread.heard,
        spread.revocations_version,
        spread.revocations_held,
        spread.network_version,
        spread.network_held,
        spread.network_applied
    )
}

/// Whether all nodes that are there have applied the network document of this version.
fn applied(version: u64) -> impl Fn(&Spread) -> Option<String> {
    move |spread| {
        (spread.network_version >= version && spread.network_applied >= spread.heard)
            .then(|| format!("network {}", spread.network_version))
    }
}

pub(super) fn spread(args: &SpreadArgs) -> ExitCode {
    call(
        &args.root,
        "GET",
        "/v1/spread",
        NOTHING,
        |spread: Spread| {
            if args.json {
                return print_json(&spread);
            }
            print_line(shown(&spread));
            wait(&args.root, &args.wait, applied(spread.network_version))
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

pub(super) fn done(root: &Root, pause: &Wait, done: &Done) -> ExitCode {
    print_line(format_args!(
        "{} (network document {})",
        done.done, done.network_version
    ));
    wait(root, pause, applied(done.network_version))
}

pub(super) fn set(args: &SetArgs) -> ExitCode {
    let ask = Set {
        key: args.key.clone(),
        value: args.value.clone(),
    };
    call(&args.root, "PUT", "/v1/parameters", Some(&ask), |answer| {
        done(&args.root, &args.wait, &answer)
    })
}

pub(super) fn rotate_key(args: &RotateKeyArgs) -> ExitCode {
    let key = match args.key {
        Key::Babel => KeyKind::Babel,
        Key::TlsCrypt => KeyKind::TlsCrypt,
    };
    let ask = RotateKey {
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
        Some(&Backup { path }),
        |done: Done| {
            print_line(done.done);
            ExitCode::SUCCESS
        },
    )
}

pub(super) fn restore(args: &BackupArgs) -> ExitCode {
    match restore::restore(&args.root.places(), &args.file) {
        Ok(aside) => {
            print_line(format_args!(
                "restored; what was there before is {}",
                aside.display()
            ));
            print_line(
                "nodes that joined since the copy must join again; what was revoked since must be revoked again",
            );
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, settings_code(&error)),
    }
}

pub(super) fn log(args: &LogArgs) -> ExitCode {
    call(
        &args.root,
        "GET",
        &format!("/v1/log?count={}", args.lines),
        NOTHING,
        |lines: Lines| {
            for line in lines.lines {
                print_line(format_args!("{}  {:<8} {}", line.at, line.who, line.what));
            }
            ExitCode::SUCCESS
        },
    )
}
