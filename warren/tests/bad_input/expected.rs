//! Reads the expected outcomes from `docs/BAD-INPUT.md`.

const DOCUMENT: &str = include_str!("../../../docs/BAD-INPUT.md");

/// One row of a table of cases.
#[derive(Debug)]
pub(super) struct Row {
    /// The name under which a file of this folder produces the case.
    pub(super) case: String,
    /// The exit code of the command.
    pub(super) code: i32,
    /// A part of one line of the standard error.
    pub(super) message: String,
}

/// Returns the rows of all tables of cases, in the document's order.
pub(super) fn rows() -> Vec<Row> {
    // The table of exit codes stands before the first heading.
    let (_, tables) = DOCUMENT.split_once("\n## ").unwrap();
    let is_case = |line: &&str| {
        line.starts_with("| ") && !line.starts_with("| case |") && !line.starts_with("| ---")
    };
    tables.lines().filter(is_case).map(row).collect()
}

fn row(line: &str) -> Row {
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    assert_eq!(cells.len(), 6, "not a row with four cells: {line}");
    Row {
        case: cells[1].to_owned(),
        code: cells[3].parse().unwrap(),
        message: cells[4].trim_matches('`').to_owned(),
    }
}
