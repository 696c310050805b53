//! Changes settings of the host, and remembers on disk what they were before.
//!
//! The ledger is durable before the first setting changes. It holds for one boot and one network
//! namespace; a setting that somebody else changed after us is left as it is.

use super::{Kernel, KernelError, sysctl};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use wire::errors::some_if_found;

const FORWARDING: &str = "net/ipv6/conf/all/forwarding";
const CONF: &str = "/proc/sys/net/ipv6/conf";
/// Larger ledgers are not ours: a host with 10,000 links writes 1 MB.
const LARGEST: u64 = 16 << 20;

/// All changes, in the order in which they were made.
#[derive(Debug, Deserialize, Serialize)]
struct Ledger {
    version: u32,
    /// Boot and network namespace.
    place: String,
    changes: Vec<Change>,
}

/// One changed setting of the host.
#[derive(Debug, Deserialize, Serialize)]
struct Change {
    /// The path of the setting below `/proc/sys`.
    path: String,
    old: String,
    new: String,
}

impl Kernel {
    /// Makes the host forward IPv6, and keeps the addresses and routes that its links have from
    /// router advertisements: `accept_ra` becomes 2 on links that heed them now.
    ///
    /// The ledger of old values at `ledger` is written first. Does nothing on a host that forwards
    /// already.
    ///
    /// # Errors
    ///
    /// An older ledger stands (call [`Kernel::sweep`] first), it cannot be written, or a setting
    /// cannot.
    pub fn forward(&self, ledger: &Path) -> Result<(), KernelError> {
        if ledger.exists() {
            let source = io::ErrorKind::AlreadyExists.into();
            return Err(KernelError::Ledger {
                doing: "begin",
                path: ledger.into(),
                source,
            });
        }
        let read = KernelError::refused("read the host's settings");
        let changes = planned().map_err(read)?;
        if changes.is_empty() {
            return Ok(());
        }
        let place = place().map_err(KernelError::refused(
            "read the boot id and network namespace",
        ))?;
        let content = Ledger {
            version: 1,
            place,
            changes,
        };
        write(ledger, &content).map_err(|source| KernelError::Ledger {
            doing: "write",
            path: ledger.into(),
            source,
        })?;
        // Forwarding of the single links follows from that of all.
        let follows = |change: &&Change| change.path == FORWARDING || !is_forwarding(&change.path);
        for change in content.changes.iter().filter(follows) {
            sysctl::write(&change.path, &change.new).map_err(KernelError::refused(format!(
                "set {} to {}",
                change.path, change.new
            )))?;
        }
        Ok(())
    }

    /// Puts every setting of the ledger back and removes the ledger; how many were put back. No
    /// ledger, nothing to do.
    ///
    /// # Errors
    ///
    /// The ledger cannot be read or removed, or a setting cannot be written; then it stands.
    pub fn restore_sysctls(&self, ledger: &Path) -> Result<usize, KernelError> {
        let failed = |doing| {
            let path = PathBuf::from(ledger);
            move |source| KernelError::Ledger {
                doing,
                path,
                source,
            }
        };
        let Some(content) = read(ledger).map_err(failed("read"))? else {
            return Ok(0);
        };
        let here = place().map_err(KernelError::refused(
            "read the boot id and network namespace",
        ))?;
        let restored = if content.place == here {
            restore(&content.changes)
                .map_err(KernelError::refused("restore the host's settings"))?
        } else {
            0
        };
        fs::remove_file(ledger).map_err(failed("remove"))?;
        Ok(restored)
    }
}

/// Lists the settings that forwarding will change. Writing `all/forwarding` changes that of
/// `default` and of every link, so each of them is remembered too.
fn planned() -> io::Result<Vec<Change>> {
    let change = |path: String, old: String, new: &str| Change {
        path,
        old,
        new: new.into(),
    };
    if sysctl::read(FORWARDING)? != "0" {
        return Ok(Vec::new());
    }
    let mut changes = Vec::new();
    let mut links: Vec<String> = Vec::new();
    for entry in fs::read_dir(CONF)? {
        // Names of links are bytes; a name that is not UTF-8 is not forwarded for.
        links.extend(entry?.file_name().into_string().ok());
    }
    links.sort();
    links.retain(|link| link != "all");
    for link in &links {
        let path = sysctl::ipv6(link, "accept_ra");
        let heeds = sysctl::read(&sysctl::ipv6(link, "forwarding"))? == "0";
        if link != "default" && link != "lo" && heeds && sysctl::read(&path)? == "1" {
            changes.push(change(path, "1".into(), "2"));
        }
    }
    changes.push(change(FORWARDING.into(), "0".into(), "1"));
    for link in &links {
        let path = sysctl::ipv6(link, "forwarding");
        let old = sysctl::read(&path)?;
        changes.push(change(path, old, "1"));
    }
    Ok(changes)
}

fn is_forwarding(path: &str) -> bool {
    path.ends_with("/forwarding")
}

/// Puts back what still is as we set it, the last change first; how many.
fn restore(changes: &[Change]) -> io::Result<usize> {
    // Writing `all/forwarding` overwrites every link's, so all are looked at before.
    let mut stands = Vec::new();
    for change in changes {
        // A link that is gone took its settings with it.
        if let Some(value) = some_if_found(sysctl::read(&change.path))? {
            stands.push((change, value));
        }
    }
    let all = stands.iter().find(|(change, _)| change.path == FORWARDING);
    let switched = all.is_some_and(|(change, value)| *value == change.new);
    if let Some((change, _)) = all.filter(|_| switched) {
        sysctl::write(FORWARDING, &change.old)?;
    }
    for (change, value) in &stands {
        let target = if *value == change.new {
            &change.old
        } else {
            value
        };
        let single = change.path != FORWARDING;
        let moved = sysctl::read(&change.path)? != *target;
        if single && moved {
            sysctl::write(&change.path, target)?;
        }
    }
    let restored =
        |(change, value): &&(&Change, String)| *value == change.new && *value != change.old;
    Ok(stands.iter().filter(restored).count())
}

/// Names this boot and this thread's network namespace.
fn place() -> io::Result<String> {
    let boot = sysctl::read("kernel/random/boot_id")?;
    let namespace = fs::read_link("/proc/thread-self/ns/net")?;
    Ok(format!("{boot} {}", namespace.display()))
}

fn read(path: &Path) -> io::Result<Option<Ledger>> {
    let Some(found) = some_if_found(fs::metadata(path))? else {
        return Ok(None);
    };
    if found.len() > LARGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let text = fs::read_to_string(path)?;
    let content: Ledger = serde_json::from_str(&text)?;
    // An attacker who could write the file could already write settings; yet only our own settings
    // are restored.
    let ours = |change: &Change| {
        let under = change.path.strip_prefix("net/ipv6/conf/");
        let parts: Option<Vec<&str>> = under.map(|under| under.split('/').collect());
        matches!(parts.as_deref(), Some([link, "forwarding" | "accept_ra"]) if *link != ".." && *link != ".")
    };
    if content.version == 1 && content.changes.iter().all(ours) {
        Ok(Some(content))
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Whole and durable, or not at all.
fn write(path: &Path, content: &Ledger) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(&serde_json::to_vec_pretty(content)?)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}
