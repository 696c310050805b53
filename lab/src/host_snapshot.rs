//! Takes a picture of a host (a node's namespace), so that before and after can be compared.

use crate::{ip, process};
use anyhow::Result;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    time::Duration,
};

/// Folders that a daemon with another root must leave alone.
const FOLDERS: [&str; 5] = [
    "/etc/warren",
    "/run/warren",
    "/var/lib/warren",
    "/dev/warren",
    "/tmp",
];
/// Counters and clocks of the kernel below `/proc/sys/net`: they change by themselves.
const VOLATILE: [&str; 4] = [
    "nf_conntrack_count",
    "stable_secret",
    "route/flush",
    "ehash_entries",
];
/// States of a connection that its process has closed and only the kernel still remembers (tcp(7), RFC 9293, 3.3.2):
/// what the other end has not acknowledged, because the tunnel to it is gone, the kernel repeats for a while.
const ENDED: [&str; 5] = [
    "TIME-WAIT",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "LAST-ACK",
    "CLOSING",
];
/// Words of iproute2 after which stands a number that changes by itself.
const AGES: [&str; 4] = ["valid_lft", "preferred_lft", "expires", "age"];

/// What a host is made of, by subject: each line of each listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(BTreeMap<&'static str, BTreeSet<String>>);

impl Host {
    /// Takes the picture: links, addresses, routes of all tables, rules, sysctls below `net`, sockets, processes,
    /// files in the places where an ordinary daemon would have them.
    ///
    /// # Errors
    /// Where the namespace cannot be read.
    pub fn of(namespace: &str) -> Result<Self> {
        let mut host = BTreeMap::new();
        let listings: [(&str, &[&str]); 7] = [
            ("links", &["-o", "-d", "link"]),
            ("addresses", &["-o", "addr"]),
            ("routes", &["-4", "route", "show", "table", "all"]),
            ("routes of IPv6", &["-6", "route", "show", "table", "all"]),
            ("rules", &["-4", "rule"]),
            ("rules of IPv6", &["-6", "rule"]),
            ("multicast groups", &["-o", "maddr"]),
        ];
        for (subject, arguments) in listings {
            host.insert(
                subject,
                ip::read(namespace, arguments)?
                    .lines()
                    .map(without_ages)
                    .collect(),
            );
        }
        host.insert("sysctls", ip::inside(namespace, || Ok(sysctls()))?);
        let sockets = ["-H", "-n", "-a", "-t", "-u", "-w", "-x"];
        let sockets = process::run(namespace, Path::new("ss"), sockets, Duration::from_secs(10))?;
        let lives = |line: &&str| !line.split_whitespace().any(|word| ENDED.contains(&word));
        host.insert(
            "sockets",
            sockets.lines().filter(lives).map(socket).collect(),
        );
        host.insert(
            "processes",
            ip::pids(namespace)
                .iter()
                .filter_map(|pid| process(*pid))
                .collect(),
        );
        host.insert(
            "files",
            FOLDERS
                .iter()
                .flat_map(|folder| files(Path::new(folder)))
                .collect(),
        );
        Ok(Self(host))
    }

    /// What is gone (`-`) and what is new (`+`) in `after`, one line each.
    pub fn changes(&self, after: &Self) -> Vec<String> {
        let nothing = BTreeSet::new();
        let mut changes = Vec::new();
        for (subject, before) in &self.0 {
            let after = after.0.get(subject).unwrap_or(&nothing);
            changes.extend(
                before
                    .difference(after)
                    .map(|line| format!("{subject}: - {line}")),
            );
            changes.extend(
                after
                    .difference(before)
                    .map(|line| format!("{subject}: + {line}")),
            );
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

/// Kind, state and both ends, without queue lengths.
fn socket(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let queues = 2..4;
    let kept = words
        .iter()
        .enumerate()
        .filter(|(place, _)| !queues.contains(place))
        .map(|(_, word)| *word);
    kept.collect::<Vec<_>>().join(" ")
}

fn process(pid: i32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(format!(
        "{pid} {}",
        String::from_utf8_lossy(&line).replace('\0', " ").trim()
    ))
}

fn sysctls() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![Path::new("/proc/sys/net").to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !VOLATILE.iter().any(|volatile| name.ends_with(volatile)) {
                let value = fs::read_to_string(&path).unwrap_or_else(|error| describe(&error));
                found.insert(format!("{name} = {}", value.trim()));
            }
        }
    }
    found
}

fn describe(error: &io::Error) -> String {
    format!("({})", error.kind())
}

/// Everything below the folder; of `/tmp`, where others work too, only what warren or its children could make.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(here) = folders.pop() {
        for entry in fs::read_dir(&here).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = ["warren", "openvpn", "babel"]
                .iter()
                .any(|word| name.contains(word));
            let of_a_lab = ["warren-lab-", ".warren-lab-", "warren-kept-"]
                .iter()
                .any(|begin| name.starts_with(begin));
            if here == Path::new("/tmp") && (!ours || of_a_lab) {
                continue;
            }
            if path.is_dir() && !path.is_symlink() {
                folders.push(path.clone());
            }
            found.insert(path.to_string_lossy().into_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_by_itself_is_left_out() {
        let line = "1: lo inet 127.0.0.1/8 scope host lo valid_lft 4711sec preferred_lft 42sec";
        assert_eq!(without_ages(line), "1: lo inet 127.0.0.1/8 scope host lo");
        assert_eq!(
            socket("udp UNCONN 0 768 0.0.0.0:1194 0.0.0.0:*"),
            "udp UNCONN 0.0.0.0:1194 0.0.0.0:*"
        );
    }

    #[test]
    fn what_is_gone_and_what_is_new_is_named() {
        let host = |lines: &[&str]| {
            Host(BTreeMap::from([(
                "links",
                lines.iter().map(|line| (*line).to_owned()).collect(),
            )]))
        };
        assert_eq!(
            host(&["lo", "eth0"]).changes(&host(&["lo", "wrn0"])),
            ["links: - eth0", "links: + wrn0"]
        );
        assert!(host(&["lo"]).changes(&host(&["lo"])).is_empty());
    }
}
