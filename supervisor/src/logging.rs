//! Writes log lines to standard error, from which systemd's journal reads them, and logs panics.

use std::io::IsTerminal;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Starts logging to standard error. `filter` is a level, or a list of `target=level` separated by commas
/// (`tracing_subscriber::filter::Targets`).
///
/// A panic is logged as an error with its location.
pub fn start(filter: &str) {
    // actix-web logs a line for each worker, which is hidden unless `filter` names its target.
    let full_filter = format!("actix_server=warn,actix_web=warn,{filter}");
    let (filter, is_invalid) = match full_filter.parse::<Targets>() {
        Ok(targets) => (targets, false),
        Err(_) => (Targets::new().with_default(tracing::Level::INFO), true),
    };
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
    if is_invalid {
        tracing::warn!("log: neither a level nor a list of target=level; using info");
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("");
        tracing::error!(place, "panicked: {text}");
    }));
}
