//! Writes log lines to standard error, from which systemd's journal reads them, and logs panics.

use std::io::IsTerminal;
use tracing_subscriber::{
    Registry, filter::Targets, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

/// The filter of log lines, which can be replaced.
#[derive(Clone)]
pub struct LogFilter(reload::Handle<Targets, Registry>);

impl LogFilter {
    /// Replaces the filter, in the form that [`start`] takes.
    pub fn replace(&self, filter: &str) {
        // Fails only if no subscriber is installed.
        let _ = self.0.reload(parse(filter));
    }
}

/// Parses a filter whose form was checked when the configuration was read.
fn parse(filter: &str) -> Targets {
    // actix-web logs a line for each worker, which is hidden unless `filter` names its target.
    format!("actix_server=warn,actix_web=warn,{filter}")
        .parse()
        .unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO))
}

/// Starts logging to standard error. `filter` is a level, or a list of `target=level` separated by commas
/// (`tracing_subscriber::filter::Targets`).
///
/// A panic is logged as an error with its location.
pub fn start(filter: &str) -> LogFilter {
    let (filter, handle) = reload::Layer::new(parse(filter));
    let is_terminal = std::io::stderr().is_terminal();
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        .with_target(false);
    // Fails only if a subscriber is already installed, as in tests.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("");
        tracing::error!(place, "panicked: {text}");
    }));
    LogFilter(handle)
}
