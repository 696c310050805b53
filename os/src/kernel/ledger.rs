//! Turns on IPv6 forwarding, enables IPv6 on `lo`, allows larger socket buffers, and records the old values of the changed settings in a
//! ledger on disk, from which they are restored. The comparison of the host adds what it changes while the node runs.
//!
//! The ledger is on disk before a setting is changed. It is valid for one boot and one network
//! namespace. A setting that somebody else has changed since is not restored.

use super::{Kernel, KernelError, sysctl};
use files::Access;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use wire::errors::some_if_found;

/// Whether the host forwards IPv6 packets at all.
pub(super) const FORWARDING: &str = "net/ipv6/conf/all/forwarding";
/// Whether IPv6 is disabled on `lo`, which has the node's address.
pub(super) const LOOPBACK_DISABLED: &str = "net/ipv6/conf/lo/disable_ipv6";
/// The largest receive buffer that a process without privileges can ask for, in bytes (socket(7)).
const MAX_RECEIVE_BUFFER: &str = "net/core/rmem_max";
/// Size of the receive buffer of each UDP socket of OpenVPN, in bytes. With the kernel's default of 208 KiB, packets
/// of one fast TCP connection overflow it (docs/MEASUREMENTS.md).
pub const RECEIVE_BUFFER_BYTES: u32 = 1 << 20;
const LINK_SETTINGS: &str = "/proc/sys/net/ipv6/conf";
/// The settings by which IPv6 is disabled on all links, on new ones, or on `lo`.
const DISABLED: [&str; 3] = [
    "net/ipv6/conf/all/disable_ipv6",
    "net/ipv6/conf/default/disable_ipv6",
    LOOPBACK_DISABLED,
];
/// Maximum size of a ledger that is read, in bytes; that of a host with 10,000 links has 1 MB.
const MAX_LEDGER_BYTES: u64 = 16 << 20;

/// The old and new values of all changed settings, in the order of the changes.
#[derive(Debug, Deserialize, Serialize)]
struct Ledger {
    version: u32,
    /// The boot and the network namespace in which the settings were changed.
    place: String,
    changes: Vec<Change>,
}

/// One changed setting of the host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Change {
    /// The path of the setting below `/proc/sys`.
    pub(super) path: String,
    pub(super) old: String,
    pub(super) new: String,
}

impl Kernel {
    /// Turns on the forwarding of IPv6 packets. Links that accept router advertisements continue to do so, and so do links
    /// that are created later, since their `accept_ra` is set to 2. Enables IPv6 on `lo`, where it is disabled. Where the host's limit of
    /// receive buffers is below [`RECEIVE_BUFFER_BYTES`] and can be changed, which it can in the host's first network
    /// namespace only, it is raised to that.
    ///
    /// The old values are written to the file `ledger` first. A setting that suffices already is not changed.
    ///
    /// # Errors
    ///
    /// An older ledger exists (call [`Kernel::sweep`] first), the ledger cannot be written, or a setting
    /// cannot be read or changed.
    pub fn apply_host_settings(&self, ledger: &Path) -> Result<(), KernelError> {
        if ledger.exists() {
            let source = io::ErrorKind::AlreadyExists.into();
            return Err(KernelError::Ledger {
                doing: "create",
                path: ledger.into(),
                source,
            });
        }
        let read = KernelError::refused("read the host's settings");
        let mut changes = plan_forwarding().map_err(read)?;
        changes.extend(plan_loopback());
        changes.extend(plan_receive_buffers());
        self.state().placed.ledger = Some(ledger.into());
        if DISABLED.map(is_set).contains(&true) {
            tracing::info!(
                "IPv6 is disabled on this host; the node enables it on lo and on its own links only, and restores lo when it stops"
            );
        }
        self.change_settings(changes, is_followed)
    }

    /// Writes changes to the ledger, and then makes them, except those that `is_followed` says follow by themselves.
    /// Where the ledger names a setting already, its old value there stays.
    pub(super) fn change_settings(
        &self,
        changes: Vec<Change>,
        is_followed: impl Fn(&Change) -> bool,
    ) -> Result<(), KernelError> {
        self.note_changes(&changes)?;
        for change in changes.iter().filter(|change| !is_followed(change)) {
            sysctl::write(&change.path, &change.new).map_err(KernelError::refused(format!(
                "set {} to {}",
                change.path, change.new
            )))?;
        }
        Ok(())
    }

    fn note_changes(&self, changes: &[Change]) -> Result<(), KernelError> {
        let (ledger, mut noted) = {
            let placed = &self.state().placed;
            (placed.ledger.clone(), placed.changes.clone())
        };
        let count = noted.len();
        for change in changes {
            if !noted.iter().any(|noted| noted.path == change.path) {
                noted.push(change.clone());
            }
        }
        let Some(path) = ledger.filter(|_| noted.len() > count) else {
            return Ok(());
        };
        // The settings of deleted links are dropped, so that a host with many short-lived links has no endless ledger.
        noted.retain(|change| Path::new("/proc/sys").join(&change.path).exists());
        let place = place().map_err(KernelError::refused(
            "read the boot id and network namespace",
        ))?;
        let content = Ledger {
            version: 1,
            place,
            changes: noted,
        };
        write(&path, &content).map_err(|source| KernelError::Ledger {
            doing: "write",
            path,
            source,
        })?;
        self.state().placed.changes = content.changes;
        Ok(())
    }

    /// Restores the settings of the ledger, if there is one, and removes the ledger. Returns how many were restored.
    ///
    /// # Errors
    ///
    /// The ledger cannot be removed, or a setting cannot be written. The ledger is kept then. One that is damaged
    /// is set aside, and is no error.
    pub fn restore_sysctls(&self, ledger: &Path) -> Result<usize, KernelError> {
        let failed = |doing| {
            let path = PathBuf::from(ledger);
            move |source| KernelError::Ledger {
                doing,
                path,
                source,
            }
        };
        let consequence = "settings that an earlier daemon changed stay as they are";
        let Some(content) = files::load(ledger, MAX_LEDGER_BYTES, consequence, parse) else {
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
        files::remove(ledger).map_err(failed("remove"))?;
        Ok(restored)
    }
}

/// Lists the settings that will change when forwarding is turned on. Writing `all/forwarding` changes that of
/// `default` and of every link, so each of them is listed, too.
pub(super) fn plan_forwarding() -> io::Result<Vec<Change>> {
    let change = |path: String, old: String, new: &str| Change {
        path,
        old,
        new: new.into(),
    };
    if sysctl::read(FORWARDING)? != "0" {
        return Ok(Vec::new());
    }
    let mut changes = Vec::new();
    let mut links = links()?;
    links.retain(|link| link != "all");
    for link in &links {
        let path = sysctl::ipv6(link, "accept_ra");
        let is_host = sysctl::read(&sysctl::ipv6(link, "forwarding"))? == "0";
        if link != "lo" && is_host && sysctl::read(&path)? == "1" {
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

/// Returns the names that have IPv6 settings, sorted: those of links, `all` and `default`.
pub(super) fn links() -> io::Result<Vec<String>> {
    let mut links: Vec<String> = Vec::new();
    for entry in fs::read_dir(LINK_SETTINGS)? {
        // A link whose name is not UTF-8 is left out, so its setting is not restored.
        links.extend(entry?.file_name().into_string().ok());
    }
    links.sort();
    Ok(links)
}

/// Plans to enable IPv6 on `lo`.
fn plan_loopback() -> Option<Change> {
    is_set(LOOPBACK_DISABLED).then(|| Change {
        path: LOOPBACK_DISABLED.to_owned(),
        old: "1".into(),
        new: "0".into(),
    })
}

fn is_set(path: &str) -> bool {
    sysctl::read(path).is_ok_and(|value| value == "1")
}

/// Plans to raise the limit of receive buffers. The tunnels work with a lower limit, too, so no error is reported.
fn plan_receive_buffers() -> Option<Change> {
    let old = sysctl::read(MAX_RECEIVE_BUFFER).ok()?;
    let new = raised_limit(&old)?;
    let path = MAX_RECEIVE_BUFFER.to_owned();
    sysctl::is_writable(&path).then_some(Change { path, old, new })
}

/// Returns the limit of receive buffers to set; `None` if the old one suffices.
fn raised_limit(old: &str) -> Option<String> {
    let is_too_low = old
        .parse::<u64>()
        .is_ok_and(|old| old < u64::from(RECEIVE_BUFFER_BYTES));
    is_too_low.then(|| RECEIVE_BUFFER_BYTES.to_string())
}

/// Returns whether a change follows by itself: writing `all/forwarding` changes that of each link.
pub(super) fn is_followed(change: &Change) -> bool {
    change.path != FORWARDING && change.path.ends_with("/forwarding")
}

/// Restores each setting that still has the value that this node gave it; returns how many changed by that.
fn restore(changes: &[Change]) -> io::Result<usize> {
    // Writing `all/forwarding` overwrites that of every link, so all values are read before.
    let mut present = Vec::new();
    for change in changes {
        // The settings of a link that was deleted do not exist any more.
        if let Some(value) = some_if_found(sysctl::read(&change.path))? {
            present.push((change, value));
        }
    }
    let all = present.iter().find(|(change, _)| change.path == FORWARDING);
    let is_unchanged = all.is_some_and(|(change, value)| *value == change.new);
    if let Some((change, _)) = all.filter(|_| is_unchanged) {
        sysctl::write(FORWARDING, &change.old)?;
    }
    for (change, value) in &present {
        let target = if *value == change.new {
            &change.old
        } else {
            value
        };
        let is_of_one_link = change.path != FORWARDING;
        let differs = sysctl::read(&change.path)? != *target;
        if is_of_one_link && differs {
            sysctl::write(&change.path, target)?;
        }
    }
    let is_restored =
        |(change, value): &&(&Change, String)| *value == change.new && *value != change.old;
    Ok(present.iter().filter(is_restored).count())
}

/// Returns the id of this boot and the network namespace of this thread.
fn place() -> io::Result<String> {
    let boot = sysctl::read("kernel/random/boot_id")?;
    let namespace = fs::read_link("/proc/thread-self/ns/net")?;
    Ok(format!("{boot} {}", namespace.display()))
}

/// Returns the changes that a ledger lists; `None` if there is none, or if it is of another boot or network namespace, or damaged.
pub(super) fn load(path: &Path) -> Option<Vec<Change>> {
    let consequence = "settings that were changed before stay as they are when the node stops";
    let content = files::load(path, MAX_LEDGER_BYTES, consequence, parse)?;
    (content.place == place().ok()?).then_some(content.changes)
}

fn parse(text: &[u8]) -> Result<Ledger, String> {
    let content: Ledger = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    // Only settings that this node changes are restored, whatever the file says.
    let is_known = |change: &Change| {
        if [MAX_RECEIVE_BUFFER, LOOPBACK_DISABLED].contains(&change.path.as_str()) {
            return true;
        }
        let under = change.path.strip_prefix("net/ipv6/conf/");
        let parts: Option<Vec<&str>> = under.map(|under| under.split('/').collect());
        matches!(parts.as_deref(), Some([link, "forwarding" | "accept_ra"]) if *link != ".." && *link != ".")
    };
    if content.version == 1 && content.changes.iter().all(is_known) {
        Ok(content)
    } else {
        Err("it names settings that a node does not change, or has another version".into())
    }
}

/// Writes the ledger atomically: after a crash the file is either complete or absent.
fn write(path: &Path, content: &Ledger) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(content)?;
    files::replace(path, &text, Access::ours(0o600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_receive_buffers_is_only_ever_raised() {
        assert_eq!(raised_limit("212992"), Some("1048576".to_owned()));
        assert_eq!(raised_limit("1048576"), None);
        assert_eq!(raised_limit("4194304"), None);
        assert_eq!(raised_limit("unlimited"), None);
    }
}
