//! The rows of `warren status` about paths through NATs.

use super::format::{node, printable};
use wire::control::{FailedPunchEntry, HolePunchingState};

/// Number of nodes that are listed; more of them say nothing new.
const MAX_SHOWN: usize = 5;

/// Returns one row for each node to which no path could be opened. That the NAT of this host is symmetric is a finding.
pub(super) fn rows(state: &HolePunchingState) -> Vec<(String, String)> {
    let mut lines: Vec<_> = state.failed.iter().take(MAX_SHOWN).map(line).collect();
    if state.failed.len() > MAX_SHOWN {
        let others = state.failed.len() - MAX_SHOWN;
        lines.push(format!("the same with {others} more nodes"));
    }
    let row = |line: String| ("hole punching".to_owned(), line);
    lines.into_iter().map(row).collect()
}

fn line(entry: &FailedPunchEntry) -> String {
    let why = match entry.result.as_str() {
        "endpoint_dependent_nat" => "a NAT maps each destination to another port (symmetric)",
        "no_answer" => "no packet got through both NATs",
        "not_observed" => "no third node could see the datagrams of both",
        "declined" => "the node took no part",
        other => &printable(other),
    };
    let node = node(&entry.prefix, entry.name.as_deref());
    format!("no path to {node}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(results: &[&str], expected: &[&str]) {
        let entry = |result: &&str| FailedPunchEntry {
            prefix: "9/16".to_owned(),
            name: None,
            result: (*result).to_owned(),
        };
        let rows = rows(&HolePunchingState {
            nat_mapping: "unknown".to_owned(),
            failed: results.iter().map(entry).collect(),
        });
        let lines: Vec<_> = rows.into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn each_failure_has_its_reason() {
        check(&[], &[]);
        let not_through = "no path to 9/16: no packet got through both NATs";
        check(&["no_answer"], &[not_through]);
        check(
            &["endpoint_dependent_nat"],
            &["no path to 9/16: a NAT maps each destination to another port (symmetric)"],
        );
        let shown = vec![not_through; 5];
        check(
            &["no_answer"; 7],
            &[shown.as_slice(), &["the same with 2 more nodes"]].concat(),
        );
    }
}
