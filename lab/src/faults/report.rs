//! Formats outcomes: as a table, and as the page `docs/RELIABILITY.md`.

use super::{Figure, Outcome};
use std::{fs, process::Command};

/// The text of the page before the table.
const INTRODUCTION: &str = "\
# Reliability

What was done to networks of real nodes, what followed, and what is promised. `./test --faults` writes this page; it needs root, and takes
about half an hour. With `--only GROUP` it replaces the rows of that group. [SECURITY-MODEL.md](SECURITY-MODEL.md) says against whom a node is protected, [MEASUREMENTS.md](MEASUREMENTS.md) has the
figures of networks without attackers.

";

/// The text of the page after the table.
const EXPLANATION: &str = "
A figure is the worst of all tries. Times are seconds since the first packet of the attack, or since the fault. *Pings* go between all
ordered pairs of honest nodes, one every 50 ms; a ping is lost if no reply came within 2 s. *Seen* is the first line of the neighbour's log
that names the liar, *disconnected* the line about its closed tunnel, *last ping lost* the moment at which the last lost ping was sent
(0 if none was lost). *Foreign routes* are routes from babeld that lead to no node's range, *honest tunnels* those between two nodes
that did not lie.

The member that lies runs OpenVPN with its own certificate, is a client of node 0, and sends Babel packets of its own. Node 0 has two
neighbours, by each of which it reaches the victim. The local user is `nobody` on node 0.

Groups that measure no times of a network (files, registries, what nodes believe) run beside the others.

The *figures that a node shows* are those of its metrics. The lookup of a name that hangs lasts ten seconds. Registries whose clock is set issue
certificates for 30 days, which can be renewed for 10 days more.

While a daemon restarts in place or stands still, lost pings and packets are those beyond what as many lost before, while nothing happened.

The mechanisms by which children end with a killed daemon are tried one by one: the parent death signal is cleared by setpriv(1), the
management connections stay open since the lab holds copies of the daemon's ends. Without both, all children live on until `warren cleanup`.

In the soak, a lost ping is explained by a fault whose node it had as an end, or passed, from the fault until 15 s after it. A stop in order,
a frozen daemon, a panic and a registry that is away explain none of the pairs that only pass the node.

*Views* are what a node shows of its routes, neighbours, tunnels and processes, compared with its kernel and babeld; a rate is implausible above
1 MB a second, since the tunnels carry pings only.

A *fault point* is between two side effects: a file written, renamed or removed, a change of the kernel, a started child, a mapped port. Lost rows are
peers and names that were stored before the kill and are not after it. *Failed starts without a clear line* are those of a registry whose
output does not name the file.

## What is shown elsewhere

| what | where |
| --- | --- |
| children that fork, log without end, or ignore signals | `os/src/process/`, and the life of a child in `policies/src/life.rs` |
| children that systemd ends with their control group | `KillMode=mixed` in `packaging/warren.service` |
| children stopped by each signal: times | `warren-lab measure recover` |
| all 48 faults of routers that map ports | `warren-lab measure gateways` |
| metrics of a node with 1,000 tunnels; parsers of names | `actors/tests/exporter.rs`, `fuzz/run names` |
| signed documents of other CAs, and of later ones | `membership/src/documents/current.rs`, `wire/src/signed.rs` |
| CA, keys and certificates are changed under traffic | `warren-lab measure rotate` |
| a registry that is away for thirty days, slow, or out of space | `warren-lab measure registry-outage`, `tests/tests/registry_outage.rs`, `registry/tests/disk.rs` |
| calls to a registry and renewals, also without root; claims and renewals whose answer was lost | `registry/tests/authority_matrix.rs`, `registry/tests/repeated_claims.rs` |
| a million operations of the allocator of prefixes | `registry/src/store/allocator.rs` |
| changes of links, addresses, routes and settings by others | `warren-lab measure hosts` |
| paths that lose, delay or shorten packets | `tests/tests/narrow_paths.rs`, `warren-lab measure underlay` |
| malformed bytes of each kind | `fuzz/run` |

## What is not promised

* A member that forwards packets can read, drop or change them, and can announce a metric that is too good under the right router
  id ([decision 0007](decisions/0007-signed-origins.md)).
* A route under a false router id with a high metric stays longer: the tunnel is closed 1.75 s later for each 96 of the metric. Only nodes that have no
  better route use it.
* On a kernel without nftables, a local user can speak Babel for the node ([decision 0008](decisions/0008-packet-filter.md)).
* A lie under another node's router id costs the attacked neighbour a restart of its babeld, once for each such member: one to four seconds without routes.
* Wrong clocks are tried on the daemon alone; OpenVPN rejects certificates by its own clock, at its hourly renegotiation.
* Memory and process ids of a host that run out are not tried here.
* babeld has no management connection: it ends with a killed daemon by its parent death signal, or else by `warren cleanup`.
* More packets than the line of the host carries: nothing can help there.
";

/// The first lines of a table.
pub fn table_head() -> String {
    let names = "| id | tries | figure | measured | promised | held |";
    format!("{names}\n| --- | --- | --- | --- | --- | --- |")
}

/// The lines of one outcome, one for each figure.
pub fn table_rows(outcome: &Outcome) -> String {
    let row = |figure: &Figure| {
        let unit = if figure.unit.is_empty() {
            String::new()
        } else {
            format!(" {}", figure.unit)
        };
        format!(
            "| {} | {} | {} | {}{unit} | <= {}{unit} | {} |",
            outcome.id,
            outcome.tries,
            figure.name,
            number(figure.value),
            number(figure.limit),
            if figure.is_held() { "yes" } else { "**no**" }
        )
    };
    let rows: Vec<_> = outcome.figures.iter().map(row).collect();
    rows.join("\n")
}

/// The number with at most two decimal places.
fn number(value: f64) -> String {
    if value.is_infinite() {
        return "never".to_owned();
    }
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The page with these outcomes. The rows of other faults are kept from the previous page.
pub fn page(outcomes: &[Outcome], previous: &str) -> String {
    let results = merge(
        rows_of(previous, "Results"),
        outcomes
            .iter()
            .map(|outcome| (outcome.id, table_rows(outcome))),
    );
    let faults = merge(
        rows_of(previous, "Faults"),
        outcomes.iter().map(|outcome| {
            (
                outcome.id,
                format!("| {} | {} |", outcome.id, outcome.fault),
            )
        }),
    );
    format!(
        "{INTRODUCTION}{}\n\n## Results\n\n{}\n{results}\n\n## Faults\n\n| id | what was done |\n| --- | --- |\n{faults}\n{EXPLANATION}",
        machine(),
        table_head(),
    )
}

/// The rows of the table in a section of a page, by id; rows with one id follow each other.
fn rows_of(page: &str, section: &str) -> Vec<(String, String)> {
    let lines = page
        .lines()
        .skip_while(|line| *line != format!("## {section}"));
    let table = lines.skip_while(|line| !line.starts_with("| --- ")).skip(1);
    let mut rows: Vec<(String, String)> = Vec::new();
    for line in table.take_while(|line| line.starts_with("| ")) {
        let id = line.split('|').nth(1).unwrap_or_default().trim().to_owned();
        match rows.last_mut() {
            Some((last, text)) if *last == id => *text = format!("{text}\n{line}"),
            Some(_) | None => rows.push((id, line.to_owned())),
        }
    }
    rows
}

/// Replaces the rows with the same id, and appends the others.
fn merge(
    mut rows: Vec<(String, String)>,
    new: impl Iterator<Item = (&'static str, String)>,
) -> String {
    for (id, text) in new {
        match rows.iter_mut().find(|(old, _)| *old == id) {
            Some((_, row)) => *row = text,
            None => rows.push((id.to_owned(), text)),
        }
    }
    let texts: Vec<_> = rows.into_iter().map(|(_, text)| text).collect();
    texts.join("\n")
}

/// A sentence about when and where the page was written.
fn machine() -> String {
    let first_line = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        let text = output.map(|output| [output.stdout, output.stderr].concat());
        let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
        text.lines().next().unwrap_or_default().trim().to_owned()
    };
    let openvpn = first_line("openvpn", &["--version"]);
    let openvpn = openvpn.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "Written {} on {processors} processors, Linux {}, {openvpn}, {}.",
        first_line("date", &["-u", "+%-d %B %Y"]),
        kernel.trim(),
        first_line("babeld", &["-V"])
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn outcome(seen: Option<Duration>) -> Outcome {
        Outcome {
            id: "lie",
            fault: "a lie",
            tries: 1,
            figures: vec![
                Figure::time("seen", seen, Duration::from_secs(2)),
                Figure::count("killed", 0, 0),
            ],
        }
    }

    #[test]
    fn a_row_shows_whether_the_promise_was_kept() {
        assert_eq!(
            table_rows(&outcome(Some(Duration::from_millis(1_504)))),
            "| lie | 1 | seen | 1.5 s | <= 2 s | yes |\n| lie | 1 | killed | 0 | <= 0 | yes |"
        );
        let missing = outcome(None);
        assert!(!missing.is_held());
        assert!(table_rows(&missing).contains("| never s | <= 2 s | **no** |"));
    }

    #[test]
    fn the_page_lists_each_fault() {
        let page = page(&[outcome(Some(Duration::ZERO))], "");
        assert!(page.contains("| lie | a lie |") && page.contains("| 0 s | <= 2 s | yes |"));
    }

    #[test]
    fn a_later_page_replaces_the_rows_of_the_same_fault_and_keeps_the_others() {
        let other = Outcome {
            id: "other",
            ..outcome(Some(Duration::ZERO))
        };
        let first = page(&[outcome(Some(Duration::ZERO)), other], "");
        let second = page(&[outcome(None)], &first);
        let rows =
            |page: &str, start: &str| page.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(rows(&second, "| other | "), 3);
        assert_eq!(rows(&second, "| lie | "), 3);
        assert!(second.contains("| never s |"));
        assert_eq!(rows(&page(&[], &second), "| lie | "), 3);
    }
}
