//! Draws the screen of `warren top`: one line of health, the tunnels, and the latest decisions. It fits 80 columns and 24 lines.

use super::state::{SortKey, State};
use crate::status_verbs::{
    milliseconds, node_label, percent, printable_text, sentence_of_decision, utc_time,
};
use map::text::bytes;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Cell, Paragraph, Row, Table},
};
use wire::control::{DecisionEntry, HEALTHY, TunnelEntry};

/// Number of decisions that are shown.
const DECISIONS: usize = 5;

/// Width of the picture of a tunnel's rates, in characters; one for each second.
const RATE_CHARS: usize = 8;

/// Characters for growing rates.
const LEVELS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/// Width from which on the verdicts are shown beside the tunnels.
const WIDE: u16 = 120;

/// Draws all that is shown.
pub(super) fn draw(frame: &mut Frame, state: &State) {
    let lines = u16::try_from(DECISIONS + 1).unwrap_or(u16::MAX);
    let [head, tunnels, decisions, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(lines),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(heading(state), head);
    frame.render_widget(table(state, tunnels), tunnels);
    frame.render_widget(latest_decisions(state), decisions);
    frame.render_widget(help(state), keys);
}

/// The node, its health, and the worst finding.
fn heading(state: &State) -> Line<'static> {
    if let Some(failure) = &state.failure {
        return Line::styled(printable_text(failure), Style::new().fg(Color::Red));
    }
    let status = &state.last.status;
    let colour = if status.health.state == HEALTHY {
        Color::Green
    } else {
        Color::Red
    };
    let tunnels = status.tunnels_up.dialled + status.tunnels_up.accepted;
    let health = status.health.state.replace('_', " ");
    let finding = status.health.findings.first();
    let finding = finding.filter(|_| status.health.state != HEALTHY);
    let finding = finding.map_or(String::new(), |finding| format!("; {}", finding.seen));
    let rest = format!(
        ": {tunnels} tunnels, {} of {} nodes reachable{finding}",
        status.nodes_reachable, status.nodes_known
    );
    Line::from(vec![
        Span::styled(
            node_label(&status.prefix, status.name.as_deref()),
            Modifier::BOLD,
        ),
        Span::raw(" "),
        Span::styled(health, colour),
        Span::raw(printable_text(&rest)),
    ])
}

fn table(state: &State, area: Rect) -> Table<'static> {
    let is_wide = area.width >= WIDE;
    let mut header = vec![
        "TUNNEL", "PEER", "STATE", "IN", "OUT", "LAST 8 s", "RTT", "LOSS", "NODES",
    ];
    let mut widths = [8, 24, 10, 10, 10, 8, 8, 7, 5]
        .map(Constraint::Length)
        .to_vec();
    if is_wide {
        header.push("VERDICT");
        widths.push(Constraint::Fill(1));
    } else {
        // The peer gets what is left of a narrow screen; nodes are left out.
        header.pop();
        widths.pop();
        if let Some(peer) = widths.get_mut(1) {
            *peer = Constraint::Fill(1);
        }
    }
    let rows = state.tunnels().into_iter().skip(state.scrolled);
    let rows = rows.map(|tunnel| row(state, tunnel, is_wide));
    let header = Row::new(header).style(Style::new().add_modifier(Modifier::BOLD));
    Table::new(rows, widths).header(header).column_spacing(1)
}

fn row(state: &State, tunnel: &TunnelEntry, is_wide: bool) -> Row<'static> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut cells = vec![
        tunnel.slot.clone(),
        peer(tunnel, is_wide),
        tunnel.phase.clone(),
        format!("{}/s", bytes(tunnel.rx_bytes_per_second)),
        format!("{}/s", bytes(tunnel.tx_bytes_per_second)),
        sparkline(&state.rates(&tunnel.slot, RATE_CHARS)),
        or_dash(tunnel.rtt_seconds.map(milliseconds)),
        or_dash(tunnel.loss_ratio.map(percent)),
    ];
    if is_wide {
        cells.push(tunnel.nodes_served.to_string());
        cells.push(tunnel.verdict.clone().unwrap_or_default());
    }
    let colour = match tunnel.phase.as_str() {
        "up" => Color::Reset,
        "draining" => Color::Yellow,
        _ => Color::DarkGray,
    };
    let cells = cells
        .into_iter()
        .map(|text| Cell::new(printable_text(&text)));
    Row::new(cells).style(Style::new().fg(colour))
}

/// The peer by name and prefix, or where there is no room for both by its name alone.
fn peer(tunnel: &TunnelEntry, is_wide: bool) -> String {
    match &tunnel.peer_name {
        Some(name) if !is_wide => name.clone(),
        name => node_label(&tunnel.peer, name.as_deref()),
    }
}

/// Rates as characters of growing height; the highest of them fills the line.
fn sparkline(rates: &[f64]) -> String {
    let highest = rates.iter().copied().fold(1.0, f64::max);
    let level = |rate: &f64| {
        let bounds = [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875];
        let above = bounds
            .iter()
            .filter(|bound| rate / highest > **bound)
            .count();
        LEVELS.get(above).copied().unwrap_or(" ")
    };
    rates.iter().map(level).collect()
}

fn latest_decisions(state: &State) -> Paragraph<'static> {
    let decisions = state.last.decisions.decisions.iter().rev().take(DECISIONS);
    let line = |entry: &DecisionEntry| {
        let time = utc_time(entry.at);
        let time_of_day = time.get(11..19).unwrap_or_default();
        Line::raw(format!("{time_of_day} {}", sentence_of_decision(entry)))
    };
    let lines: Vec<_> = decisions.map(line).collect();
    let block = Block::new().borders(Borders::TOP).title("Latest decisions");
    Paragraph::new(lines).block(block)
}

fn help(state: &State) -> Line<'static> {
    let mut spans = vec![Span::raw("sort: ")];
    for (sort, _, name) in SortKey::ALL {
        let (first, rest) = name.split_at(1);
        let style = if sort == state.sort {
            Modifier::REVERSED
        } else {
            Modifier::empty()
        };
        spans.push(Span::styled(first, style | Modifier::UNDERLINED));
        spans.push(Span::styled(rest, style));
        spans.push(Span::raw(" "));
    }
    spans.push(Span::raw(" again: reverse  ↑↓ scroll  q quit"));
    Line::from(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top_verb::state::Reading;
    use ratatui::{Terminal, backend::TestBackend, crossterm::event::KeyCode};
    use serde_json::json;

    /// A tunnel that receives `rx` bytes a second.
    fn tunnel(slot: &str, peer: &str, name: Option<&str>, rx: f64) -> serde_json::Value {
        json!({
            "slot": slot, "peer": peer, "peer_name": name, "role": "dialled", "transport": "udp", "endpoint": null,
            "phase": "up", "age_seconds": 60.0, "rx_bytes": 0, "tx_bytes": 0, "rx_bytes_per_second": rx,
            "tx_bytes_per_second": 1_000.0, "nodes_served": 2, "routes": 3, "rtt_seconds": 0.0031, "loss_ratio": 0.05,
            "verdict": "kept: fair share",
        })
    }

    fn reading(second: u32, rx: f64) -> Reading {
        let at = format!("2023-11-14T22:13:{second:02}Z");
        let status = json!({
            "version": 1, "at": at, "software": "0.1.0", "prefix": "7/16", "name": "web", "address": "fd00::7:0:0:0:1",
            "network": "fd00::/48", "pid": 1, "uptime_seconds": 1.0, "ready": true, "health": {"state": "degraded", "findings": [
            {"id": "registry_away", "severity": "degraded", "count": null, "seconds": null, "seen": "no\u{1b} answer", "advice": ""}]},
            "tunnels_up": {"dialled": 2, "accepted": 0}, "nodes_known": 8, "nodes_reachable": 7, "routes_installed": 7,
            "neighbours": 2, "registry": {"last_request_at": null, "last_answer_at": null, "last_error": null},
            "leases": [], "processes": [], "actor_restarts": 0,
        });
        let tunnels = json!({"version": 1, "at": at, "tunnels": [
            tunnel("wrn0", "9/16", Some("printer"), rx), tunnel("wrn1", "8/16", None, 2e6)]});
        let decisions = json!({"version": 1, "at": at, "verdicts": [], "decisions": [
            {"number": 1, "at": at, "order": "open", "slot": "wrn1", "peer": "8/16", "reason": "fill", "terms": "failures=0"}]});
        Reading {
            status: serde_json::from_value(status).unwrap(),
            tunnels: serde_json::from_value(tunnels).unwrap(),
            decisions: serde_json::from_value(decisions).unwrap(),
        }
    }

    fn state() -> State {
        let mut state = State::new(reading(0, 0.0), SortKey::Tunnel);
        for (second, rx) in [(1, 1_000.0), (2, 3_000.0), (3, 7_000.0)] {
            state.add(reading(second, rx));
        }
        state
    }

    /// The lines of a screen, without the blanks at their ends.
    fn screen(state: &State, (width, height): (u16, u16)) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, state)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y: u16| {
            (0..width)
                .map(|x| buffer[(x, y)].symbol())
                .collect::<String>()
        };
        (0..height).map(|y| row(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn the_screen_fits_80_columns_and_24_lines() {
        let lines = screen(&state(), (80, 24));
        let expected = [
            "web (7/16) degraded: 2 tunnels, 7 of 8 nodes reachable; no? answer",
            "TUNNEL   PEER         STATE      IN         OUT        LAST 8 s RTT      LOSS",
            "wrn0     printer      up         7.0 kB/s   1.0 kB/s   ▁▂▄█     3.1 ms   5.0 %",
            "wrn1     8/16         up         2.0 MB/s   1.0 kB/s   ████     3.1 ms   5.0 %",
        ];
        assert_eq!(lines[..4], expected);
        assert!(lines[17].starts_with("Latest decisions─"), "{lines:?}");
        assert_eq!(
            lines[18],
            "22:13:03 wrn1 to 8/16: opened, because more tunnels are wanted, and this peer wa"
        );
        assert_eq!(
            lines[23],
            "sort: tunnel peer in out rtt loss nodes  again: reverse  ↑↓ scroll  q quit"
        );
    }

    #[test]
    fn keys_sort_and_scroll_and_the_same_key_reverses() {
        let mut state = state();
        let slots = |state: &State| {
            let tunnels = state.tunnels().into_iter();
            tunnels
                .map(|tunnel| tunnel.slot.clone())
                .collect::<Vec<_>>()
        };
        state.press(KeyCode::Char('i'));
        assert_eq!(slots(&state), ["wrn1", "wrn0"]);
        state.press(KeyCode::Char('i'));
        assert_eq!(slots(&state), ["wrn0", "wrn1"]);
        state.press(KeyCode::Char('p'));
        assert_eq!(slots(&state), ["wrn1", "wrn0"]);
        for _ in 0..3 {
            state.press(KeyCode::Down);
        }
        assert!(screen(&state, (80, 24))[2].starts_with("wrn0"));
    }

    #[test]
    fn a_daemon_that_went_away_is_shown_and_a_wide_screen_has_the_verdicts() {
        let mut state = state();
        assert!(screen(&state, (140, 24))[2].ends_with("kept: fair share"));
        state.fail("no daemon answers".to_owned());
        assert_eq!(screen(&state, (80, 24))[0], "no daemon answers");
    }
}
