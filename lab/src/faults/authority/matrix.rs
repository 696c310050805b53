//! The tables of what a registry accepts, and members of a registry whose clock is set.

use crate::{registry_connection::new_key_and_csr, standalone_registry::StandaloneRegistry};
use anyhow::{Context, Result, ensure};
use local_http::{Endpoint, Limits};
use policies::names::Prefix;
use rcgen::KeyPair;
use std::time::Duration;
use wire::registry::Claimed;

/// The time at which the registries begin, in seconds since 1970.
pub(super) const START_S: u64 = 1_795_000_000;
/// Lifetime of certificates in the tables, in seconds.
pub(super) const LIFE_S: u64 = 30 * 86_400;
/// Grace period of the tables, in seconds.
pub(super) const GRACE_S: u64 = 10 * 86_400;

/// Limits of one call of the operator.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(20),
    bytes: 4 << 20,
};

/// One cell of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    pub(super) row: &'static str,
    pub(super) column: &'static str,
    pub(super) expected: &'static str,
}

/// The cells of a table, row by row. Lines that begin with `#` describe it, and the next one names the columns.
pub(super) fn cells(table: &'static str) -> Vec<Cell> {
    let mut lines = table.lines().filter(|line| !line.starts_with('#'));
    let columns = lines.next().unwrap_or_default().split_whitespace().skip(1);
    let columns: Vec<_> = columns.collect();
    let cells_of = |line: &'static str| {
        let mut words = line.split_whitespace();
        let row = words.next().unwrap_or_default();
        let cells = columns.iter().zip(words);
        let cells = cells.map(move |(column, expected)| Cell {
            row,
            column,
            expected,
        });
        cells.collect::<Vec<_>>()
    };
    lines.flat_map(cells_of).collect()
}

/// Starts a registry with the times of the tables, and these further options of `warren registry init`.
pub(super) fn start_registry(init_options: &[&str]) -> Result<StandaloneRegistry> {
    let (life, grace) = (format!("{LIFE_S}s"), format!("{GRACE_S}s"));
    let times = ["--certificate-life", &life, "--grace", &grace];
    let options = [&times, init_options].concat();
    StandaloneRegistry::start_with_clock(START_S, &options, &["--no-limits"])
}

/// Makes one of the operator's calls as root; returns the status.
pub(super) fn operate(
    registry: &StandaloneRegistry,
    method: &str,
    path: &str,
    body: &str,
) -> Result<u16> {
    let socket = registry.admin_socket();
    let body = Some(body.to_owned());
    let answer = local_http::send(Endpoint::Unix(&socket), method, path, body, LIMITS)?;
    Ok(answer.status)
}

/// Revokes a node; returns the status.
pub(super) fn revoke(registry: &StandaloneRegistry, prefix: Prefix) -> Result<u16> {
    let body = format!("{{\"node\": \"{prefix}\"}}");
    operate(registry, "POST", "/v1/revocations", &body)
}

/// A node of a registry.
pub(super) struct Member {
    pub(super) prefix: Prefix,
    /// Its certificate in PEM.
    pub(super) certificate: String,
    pub(super) key: KeyPair,
}

impl Member {
    /// Lets a node join.
    pub(super) fn join(registry: &StandaloneRegistry) -> Result<Self> {
        let token = registry.create_token(1)?;
        let (key, csr) = new_key_and_csr()?;
        let connector = registry.connector(None)?;
        let (status, body) =
            registry.run_inside(|| connector.connect(None)?.claim(&token, &csr))?;
        ensure!(status == 200, "a claim is rejected with {status}: {body}");
        let claimed: Claimed = serde_json::from_str(&body).context("no answer to a claim")?;
        Ok(Self {
            prefix: claimed.prefix,
            certificate: claimed.certificate,
            key,
        })
    }

    /// What the node connects with.
    pub(super) fn identity(&self) -> (&str, &KeyPair) {
        (&self.certificate, &self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cell_of_a_table_is_read_with_its_row_and_column() {
        let cells = cells("# a table\ncaller  some  all\nnobody  no    no\nmember  no    yes\n");
        let cells: Vec<_> = cells
            .iter()
            .map(|cell| (cell.row, cell.column, cell.expected))
            .collect();
        let expected = [
            ("nobody", "some", "no"),
            ("nobody", "all", "no"),
            ("member", "some", "no"),
            ("member", "all", "yes"),
        ];
        assert_eq!(cells, expected);
    }
}
