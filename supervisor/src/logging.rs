//! Writes log lines to systemd's journal, or to standard error, and logs panics.

mod journal;
mod limit;

pub use journal::is_stderr as is_stderr_the_journal;

use journal::Journal;
use limit::LineLimit;
use os::clock::Clock;
use std::io::IsTerminal;
use tracing_subscriber::{
    Layer, Registry, filter::Targets, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Entries of systemd's journal if standard error leads to it, or else text.
    Usual,
    /// One JSON object a line on standard error.
    Json,
    /// Text on standard error.
    Text,
}

/// The filter of log lines, which can be replaced, and their limit.
#[derive(Clone)]
pub struct LogFilter {
    handle: reload::Handle<Targets, Registry>,
    limit: LineLimit,
}

impl LogFilter {
    /// Replaces the filter, in the form that [`start`] takes.
    pub fn replace(&self, filter: &str) {
        // Fails only if no subscriber is installed.
        let _ = self.handle.reload(parse(filter));
    }

    /// Logs regularly, for ever, how many lines were dropped because too many of their kind were written.
    pub async fn report_dropped_lines(self) {
        loop {
            tokio::time::sleep(limit::REPORT_INTERVAL).await;
            self.limit.report();
        }
    }
}

/// Parses a filter whose form was checked when the configuration was read.
fn parse(filter: &str) -> Targets {
    // actix-web logs a line for each worker, which is hidden unless `filter` names its target.
    format!("actix_server=warn,actix_web=warn,{filter}")
        .parse()
        .unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO))
}

/// Starts logging. `filter` is a level, or a list of `target=level` separated by commas
/// (`tracing_subscriber::filter::Targets`).
///
/// Text has colours on a terminal, unless the environment sets `NO_COLOR` (<https://no-color.org>). A panic is logged as an
/// error with its location.
pub fn start(filter: &str, format: Format) -> LogFilter {
    let (filter, handle) = reload::Layer::new(parse(filter));
    let limit = LineLimit::new(Clock::boottime());
    let has_colours = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = fmt::layer().with_writer(std::io::stderr);
    let journal = (format == Format::Usual && journal::is_stderr())
        .then(Journal::connect)
        .and_then(Result::ok);
    let lines = match (format, journal) {
        (_, Some(journal)) => journal.boxed(),
        (Format::Json, None) => lines.json().flatten_event(true).boxed(),
        (Format::Usual | Format::Text, None) => {
            lines.with_ansi(has_colours).with_target(false).boxed()
        }
    };
    // Fails only if a subscriber is already installed, as in tests.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(lines.with_filter(limit.clone()))
        .try_init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("");
        tracing::error!(place, "panicked: {text}");
    }));
    LogFilter { handle, limit }
}
