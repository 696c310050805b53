//! Sends log lines to standard error, which systemd's journal reads, and logs panics.

use std::io::IsTerminal;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Sends log lines to standard error; `filter` is a level, or `target=level` joined by commas
/// (`tracing_subscriber::filter::Targets`).
///
/// A panic is logged as an error with its place, since a guardian will restart the actor.
pub fn start(filter: &str) {
    // actix-web logs each worker; a filter that names its target still shows that.
    let quiet = format!("actix_server=warn,actix_web=warn,{filter}");
    let (filter, bad) = match quiet.parse::<Targets>() {
        Ok(targets) => (targets, false),
        Err(_) => (Targets::new().with_default(tracing::Level::INFO), true),
    };
    let terminal = std::io::stderr().is_terminal();
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(terminal)
        .with_target(false);
    // Fails only where a subscriber stands already, as in tests.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    if bad {
        tracing::warn!("log: neither a level nor a list of target=level; info is taken");
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
