//! Fits tables and texts into the width of the terminal.

use super::format::{align_right, plain_table};
use std::{env, io::IsTerminal, ops::Range};
use terminal_size::{Width, terminal_size};

/// The width of a terminal that does not say it, in columns.
const DEFAULT_WIDTH: usize = 80;

/// The width that an elastic column keeps at least, in characters.
const MIN_ELASTIC_WIDTH: usize = 20;

/// The blanks beside each cell of a table.
const CELL_PADDING: usize = 2;

/// Returns the number of columns that the output may have; `None` for any number. The variable `COLUMNS` wins over the
/// terminal's size; an output that is no terminal is not limited.
pub(super) fn width(is_wide: bool) -> Option<usize> {
    let given = env::var("COLUMNS").ok();
    let given = given.and_then(|columns| columns.parse().ok());
    let of_terminal = || {
        let is_terminal = std::io::stdout().is_terminal();
        let size = terminal_size().map(|(Width(width), _)| usize::from(width));
        is_terminal.then(|| size.unwrap_or(DEFAULT_WIDTH))
    };
    let found = given.filter(|columns| *columns > 0).or_else(of_terminal);
    found.filter(|_| !is_wide)
}

/// How a table is fitted into a narrow terminal.
pub(super) struct Fit {
    /// The columns with numbers.
    pub(super) numbers: Range<usize>,
    /// The columns that can be left out, the least important first.
    pub(super) drop_order: &'static [usize],
    /// The column whose texts can be shortened.
    pub(super) elastic: usize,
}

/// Returns a table that is at most `width` columns wide, as far as columns can be left out and shortened.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: Vec<[String; N]>,
    fit: &Fit,
    width: Option<usize>,
) -> String {
    let mut lines = vec![header.map(str::to_owned).to_vec()];
    lines.extend(rows.into_iter().map(Vec::from));
    let dropped = width.map_or(Vec::new(), |width| shorten(&mut lines, fit, width));
    let mut table = plain_table();
    let mut lines = lines.into_iter().map(|cells| {
        let cells = cells.into_iter().enumerate();
        let kept = cells.filter(|(column, _)| !dropped.contains(column));
        kept.map(|(_, cell)| cell).collect::<Vec<_>>()
    });
    table.set_header(lines.next().unwrap_or_default());
    table.add_rows(lines);
    let kept_before = |end: usize| (0..end).filter(|column| !dropped.contains(column)).count();
    let Range { start, end } = fit.numbers;
    align_right(&mut table, kept_before(start)..kept_before(end));
    table.to_string()
}

/// Shortens the elastic column, and returns the columns to drop, so that the lines become at most `width` columns wide.
fn shorten(lines: &mut [Vec<String>], fit: &Fit, width: usize) -> Vec<usize> {
    let columns = lines.first().map_or(0, Vec::len);
    let cell_width = |column: usize| {
        let cells = lines.iter().filter_map(|cells| cells.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0) + CELL_PADDING
    };
    let widths: Vec<_> = (0..columns).map(cell_width).collect();
    let mut dropped = Vec::new();
    let rigid = |dropped: &[usize]| {
        let kept = widths.iter().enumerate();
        let kept = kept.filter(|(column, _)| *column != fit.elastic && !dropped.contains(column));
        kept.map(|(_, width)| *width).sum::<usize>()
    };
    let elastic = widths.get(fit.elastic).copied().unwrap_or(0);
    let needed = elastic.min(MIN_ELASTIC_WIDTH + CELL_PADDING);
    for column in fit.drop_order {
        let minimum = if dropped.contains(&fit.elastic) {
            0
        } else {
            needed
        };
        if rigid(&dropped) + minimum <= width {
            break;
        }
        dropped.push(*column);
    }
    let left = width.saturating_sub(rigid(&dropped) + CELL_PADDING);
    for cells in lines.iter_mut() {
        if let Some(cell) = cells.get_mut(fit.elastic).filter(|_| left > 0) {
            *cell = shortened(cell, left);
        }
    }
    dropped
}

/// Cuts a text that is longer than `width` characters, and marks the cut.
fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept = text.chars().take(width.saturating_sub(1));
    kept.chain(['…']).collect()
}

/// Breaks the lines of a text between words, so that none is longer than `width`. What follows a break is indented by four
/// more columns than its line.
pub(super) fn wrap(text: &str, width: Option<usize>) -> String {
    let Some(width) = width else {
        return text.to_owned();
    };
    let lines: Vec<_> = text.lines().map(|line| wrap_line(line, width)).collect();
    lines.join("\n")
}

fn wrap_line(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let blanks = line.chars().take_while(|c| *c == ' ').count();
    let indent = " ".repeat((blanks + 4).min(width / 2));
    let mut out = " ".repeat(blanks);
    let mut column = blanks;
    let mut is_first = true;
    for word in line.split_whitespace() {
        let length = word.chars().count();
        if !is_first && column + 1 + length > width {
            out.push('\n');
            out.push_str(&indent);
            column = indent.len();
        } else if !is_first {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
        is_first = false;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIT: Fit = Fit {
        numbers: 1..2,
        drop_order: &[1, 2],
        elastic: 2,
    };

    #[track_caller]
    fn check(width: Option<usize>, expected: &[&str]) {
        let row = ["wrn0", "12", "kept since it carries a fair share"].map(str::to_owned);
        let text = table(["TUNNEL", "NODES", "VERDICT"], vec![row], &FIT, width);
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_table_is_shortened_and_then_loses_columns() {
        check(
            None,
            &[
                " TUNNEL  NODES  VERDICT",
                " wrn0       12  kept since it carries a fair share",
            ],
        );
        check(
            Some(42),
            &[
                " TUNNEL  NODES  VERDICT",
                " wrn0       12  kept since it carries a …",
            ],
        );
        check(
            Some(32),
            &[" TUNNEL  VERDICT", " wrn0    kept since it carries…"],
        );
        check(Some(20), &[" TUNNEL", " wrn0"]);
    }

    #[test]
    fn a_long_line_is_broken_between_words_and_indented() {
        let text = "short\n  one two three four";
        assert_eq!(
            wrap(text, Some(12)),
            "short\n  one two\n      three\n      four"
        );
        assert_eq!(wrap(text, None), text);
        assert_eq!(wrap("unbreakable", Some(4)), "unbreakable");
    }
}
