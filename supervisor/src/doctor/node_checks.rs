//! Checks of the files of the node: certificate, keys, rights, and space for them.

use super::{Check, Examined};
use config::{ChildUser, Settings};
use membership::certificate::Certificate;
use os::clock::wall;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

/// A certificate is expected to be renewed this long before it expires, in seconds; or earlier, see [`RENEWAL_SHARE`].
const RENEWAL_EXPECTED_S: i64 = 7 * 86_400;

/// A certificate is expected to be renewed before this share of its lifetime is left.
const RENEWAL_SHARE: i64 = 6;

/// Free space below which a warning is given, in bytes.
const LITTLE_SPACE: u64 = 50 << 20;

/// Free space below which the state cannot be kept, in bytes.
const NO_SPACE: u64 = 1 << 20;

pub(super) fn checks(examined: &Examined, settings: Option<&Settings>) -> Vec<Check> {
    vec![
        certificate(examined),
        key_file(examined, settings),
        state_folder(examined),
        disk_space(examined),
    ]
}

fn certificate(examined: &Examined) -> Check {
    const ID: &str = "certificate";
    if !examined.has_joined() {
        return Check::skipped(ID, "this machine has not joined a network");
    }
    let path = examined.paths.certificate();
    let Some((_, certificate)) = Certificate::read_file(&path) else {
        return Check::failed(
            ID,
            format!("{} is no certificate of a node", path.display()),
            "restore it, or join again with an invitation: warren join --replace -",
        );
    };
    let now_s = i64::try_from(wall().as_secs()).unwrap_or(i64::MAX);
    let left_s = certificate.not_after_s.saturating_sub(now_s);
    let lifetime_s = certificate
        .not_after_s
        .saturating_sub(certificate.not_before_s);
    let days = left_s / 86_400;
    if left_s <= 0 {
        let seen = format!("the certificate expired {} days ago", -days);
        let advice =
            "start the node, which renews it; after the grace period: warren join --replace -";
        Check::failed(ID, seen, advice)
    } else if certificate.not_before_s > now_s {
        let seen = "the certificate is not valid yet: the clock of this host is wrong";
        Check::failed(ID, seen, "set the clock: timedatectl set-ntp true")
    } else if left_s < RENEWAL_EXPECTED_S.min(lifetime_s / RENEWAL_SHARE) {
        let seen = format!("the certificate expires in {days} days and was not renewed");
        Check::warning(
            ID,
            seen,
            "check that the registry answers: the node renews it there",
        )
    } else {
        let prefix = certificate.prefix;
        let node = certificate
            .name
            .as_ref()
            .map_or_else(|| prefix.to_string(), |name| format!("{name} ({prefix})"));
        Check::ok(ID, format!("node {node}, valid for {days} more days"))
    }
}

fn key_file(examined: &Examined, settings: Option<&Settings>) -> Check {
    const ID: &str = "key_file";
    let path = examined.paths.key();
    let found = match fs::metadata(&path) {
        Ok(found) => found,
        Err(_) if !examined.has_joined() => {
            return Check::skipped(ID, "this machine has not joined a network");
        }
        Err(error) => {
            let seen = format!("{}: {error}", path.display());
            let advice = "restore it, or join again with an invitation: warren join --replace -";
            return Check::failed(ID, seen, advice);
        }
    };
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let seen = format!("{} has mode {mode:o}, so others can use it", path.display());
        return Check::failed(ID, seen, &format!("chmod 600 {}", path.display()));
    }
    let owner = settings.and_then(|settings| uid_of(&settings.openvpn_user));
    match owner {
        Some(owner) if owner != found.uid() => Check::failed(
            ID,
            format!(
                "{} belongs to uid {}, so OpenVPN (uid {owner}) cannot read it",
                path.display(),
                found.uid()
            ),
            &format!("chown {owner} {}", path.display()),
        ),
        Some(_) | None => Check::ok(ID, format!("{} has mode {mode:o}", path.display())),
    }
}

fn uid_of(user: &ChildUser) -> Option<u32> {
    match user {
        ChildUser::Id(id) => Some(*id),
        ChildUser::Name(name) => {
            let found = nix::unistd::User::from_name(name).ok().flatten()?;
            Some(found.uid.as_raw())
        }
    }
}

fn state_folder(examined: &Examined) -> Check {
    const ID: &str = "state_folder";
    let path = examined.paths.state();
    let Ok(found) = fs::metadata(&path) else {
        let seen = format!("{} does not exist yet", path.display());
        return Check::skipped(ID, seen);
    };
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o022 != 0 {
        let seen = format!(
            "{} has mode {mode:o}, so others can change it",
            path.display()
        );
        return Check::failed(ID, seen, &format!("chmod 711 {}", path.display()));
    }
    if mode & 0o001 == 0 {
        let seen = format!(
            "{} has mode {mode:o}, so OpenVPN cannot enter it",
            path.display()
        );
        return Check::failed(ID, seen, &format!("chmod 711 {}", path.display()));
    }
    Check::ok(ID, format!("{} has mode {mode:o}", path.display()))
}

fn disk_space(examined: &Examined) -> Check {
    const ID: &str = "disk_space";
    let state = examined.paths.state();
    let existing = state.ancestors().find(|folder| folder.exists());
    let folder = existing.unwrap_or(Path::new("/"));
    let Ok(free) = nix::sys::statvfs::statvfs(folder) else {
        return Check::skipped(ID, "the free space cannot be read");
    };
    let block = free.fragment_size();
    let bytes = free.blocks_available().saturating_mul(block);
    let seen = format!("{} MiB are free at {}", bytes >> 20, folder.display());
    if bytes < NO_SPACE {
        Check::failed(
            ID,
            seen,
            "free some space: documents and certificates cannot be stored",
        )
    } else if bytes < LITTLE_SPACE {
        Check::warning(
            ID,
            seen,
            "free some space before documents and certificates cannot be stored",
        )
    } else {
        Check::ok(ID, seen)
    }
}
