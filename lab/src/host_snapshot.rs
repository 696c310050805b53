//! Takes a snapshot of a host (a node's namespace), so that its state before and after can be compared.

use crate::{ip, netns, proc_files, process};
use anyhow::Result;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    time::Duration,
};

/// Folders in which an ordinary daemon has its files; a daemon with another root must not touch them.
const FOLDERS: [&str; 5] = [
    "/etc/warren",
    "/run/warren",
    "/var/lib/warren",
    "/dev/warren",
    TEMPORARY_FOLDER,
];
/// The folder in which other programs work, too.
const TEMPORARY_FOLDER: &str = "/tmp";
/// Counters and clocks of the kernel below `/proc/sys/net`: they change by themselves.
const VOLATILE_SYSCTLS: [&str; 4] = [
    "nf_conntrack_count",
    "stable_secret",
    "route/flush",
    "ehash_entries",
];
/// States of a connection that its process has closed or never accepted, and that only the kernel still remembers (tcp(7), RFC 9293,
/// section 3.3.2). The kernel repeats for a while what the other end has not acknowledged, because the tunnel to
/// it is gone.
const CLOSED_STATES: [&str; 6] = [
    "SYN-RECV",
    "TIME-WAIT",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "LAST-ACK",
    "CLOSING",
];
/// Words of iproute2 that are followed by a number that changes by itself.
const AGES: [&str; 4] = ["valid_lft", "preferred_lft", "expires", "age"];
/// Longest time that ss(8) may take.
const SS_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time that nft(8) may take.
const NFT_TIMEOUT: Duration = Duration::from_secs(10);
/// The listings of `ip`, each with its subject.
const IP_LISTINGS: [(&str, &[&str]); 7] = [
    ("links", &["-o", "-d", "link"]),
    ("addresses", &["-o", "addr"]),
    ("IPv4 routes", &["-4", "route", "show", "table", "all"]),
    ("IPv6 routes", &["-6", "route", "show", "table", "all"]),
    ("IPv4 rules", &["-4", "rule"]),
    ("IPv6 rules", &["-6", "rule"]),
    ("multicast groups", &["-o", "maddr"]),
];

/// The state of a host: by subject, the lines of its listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSnapshot(BTreeMap<&'static str, BTreeSet<String>>);

impl HostSnapshot {
    /// Reads links, addresses, routes of all tables, rules, packet filters, sysctls below `net`, sockets, processes, and the files in
    /// the places where an ordinary daemon would have them.
    ///
    /// # Errors
    /// Fails if the namespace cannot be read.
    pub fn take(namespace: &str) -> Result<Self> {
        let mut listings = BTreeMap::new();
        for (subject, arguments) in IP_LISTINGS {
            let listing = ip::output(namespace, arguments)?;
            listings.insert(subject, listing.lines().map(without_ages).collect());
        }
        let filters = process::run(
            namespace,
            Path::new("nft"),
            ["list", "ruleset"],
            NFT_TIMEOUT,
        )?;
        let filters = filters.lines().map(|line| line.trim().to_owned());
        listings.insert("packet filters", filters.collect());
        listings.insert("sysctls", netns::run_inside(namespace, || Ok(sysctls()))?);
        listings.insert("sockets", sockets(namespace)?);
        let pids = netns::pids(namespace);
        let processes = pids
            .iter()
            .filter_map(|pid| Some(format!("{pid} {}", proc_files::command_line(*pid)?)));
        listings.insert("processes", processes.collect());
        let files = FOLDERS.iter().flat_map(|folder| files(Path::new(folder)));
        listings.insert("files", files.collect());
        Ok(Self(listings))
    }

    /// The lines that are gone (`-`) and those that are new (`+`) in the `later` snapshot.
    pub fn changes_to(&self, later: &Self) -> Vec<String> {
        let empty = BTreeSet::new();
        let mut changes = Vec::new();
        for (subject, before) in &self.0 {
            let after = later.0.get(subject).unwrap_or(&empty);
            let gone = before.difference(after);
            changes.extend(gone.map(|line| format!("{subject}: - {line}")));
            let new = after.difference(before);
            changes.extend(new.map(|line| format!("{subject}: + {line}")));
        }
        changes
    }
}

fn without_ages(line: &str) -> String {
    let mut kept = Vec::new();
    let mut words = line.split_whitespace();
    while let Some(word) = words.next() {
        if AGES.contains(&word) {
            words.next();
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

fn sockets(namespace: &str) -> Result<BTreeSet<String>> {
    let options = ["-H", "-n", "-a", "-t", "-u", "-w", "-x"];
    let listing = process::run(namespace, Path::new("ss"), options, SS_TIMEOUT)?;
    let is_open = |line: &&str| {
        let mut words = line.split_whitespace();
        !words.any(|word| CLOSED_STATES.contains(&word))
    };
    Ok(listing
        .lines()
        .filter(is_open)
        .map(without_queue_lengths)
        .collect())
}

/// Protocol, state and both addresses of a line of ss(8); the third and the fourth word are the queues' lengths.
fn without_queue_lengths(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (head, tail) = words.split_at(words.len().min(2));
    [head, tail.get(2..).unwrap_or_default()].concat().join(" ")
}

fn sysctls() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let mut folders = vec![Path::new("/proc/sys/net").to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !VOLATILE_SYSCTLS
                .iter()
                .any(|volatile| name.ends_with(volatile))
            {
                let value = fs::read_to_string(&path).unwrap_or_else(|error| describe(&error));
                lines.insert(format!("{name} = {}", value.trim()));
            }
        }
    }
    lines
}

fn describe(error: &io::Error) -> String {
    format!("({})", error.kind())
}

/// Everything below the folder; in `/tmp`, where other programs work too, only what warren or its children may
/// have created.
fn files(top_folder: &Path) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    let mut folders = vec![top_folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if folder == Path::new(TEMPORARY_FOLDER) && !can_be_from_a_daemon(&name) {
                continue;
            }
            if path.is_dir() && !path.is_symlink() {
                folders.push(path.clone());
            }
            paths.insert(path.to_string_lossy().into_owned());
        }
    }
    paths
}

/// Whether warren or one of its children may have created a file of that name in `/tmp`, rather than a lab.
fn can_be_from_a_daemon(name: &str) -> bool {
    let has_a_daemon_s_name = ["warren", "openvpn", "babel"]
        .iter()
        .any(|word| name.contains(word));
    // Labs and tests of other runs have folders of such names.
    let is_from_a_lab = name.trim_start_matches('.').starts_with("warren-");
    has_a_daemon_s_name && !is_from_a_lab
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_change_by_themselves_are_removed() {
        let line = "1: lo inet 127.0.0.1/8 scope host lo valid_lft 4711sec preferred_lft 42sec";
        assert_eq!(without_ages(line), "1: lo inet 127.0.0.1/8 scope host lo");
        assert_eq!(
            without_queue_lengths("udp UNCONN 0 768 0.0.0.0:1194 0.0.0.0:*"),
            "udp UNCONN 0.0.0.0:1194 0.0.0.0:*"
        );
    }

    #[test]
    fn a_lab_s_own_files_are_not_taken_for_a_daemon_s() {
        assert!(can_be_from_a_daemon("openvpn_cc_1.tmp"));
        assert!(!can_be_from_a_daemon("warren-lab-abcde"));
        assert!(!can_be_from_a_daemon("notes.txt"));
    }

    #[test]
    fn gone_and_new_lines_are_listed() {
        let snapshot = |lines: &[&str]| {
            HostSnapshot(BTreeMap::from([(
                "links",
                lines.iter().map(|line| (*line).to_owned()).collect(),
            )]))
        };
        assert_eq!(
            snapshot(&["lo", "eth0"]).changes_to(&snapshot(&["lo", "wrn0"])),
            ["links: - eth0", "links: + wrn0"]
        );
        assert!(snapshot(&["lo"]).changes_to(&snapshot(&["lo"])).is_empty());
    }
}
