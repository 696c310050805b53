//! Where log lines go: standard error, which systemd's journal reads; and what a panic says.

use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt};

/// Sends log lines to standard error; `filter` as `tracing_subscriber::EnvFilter` takes it.
///
/// A panic is logged as an error with its place, since a guardian will mend it.
pub fn start(filter: &str) {
    // actix-web tells of each worker; whoever names its target still hears it.
    let filter = format!("actix_server=warn,actix_web=warn,{filter}");
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = std::io::stderr().is_terminal();
    let lines =
        fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal).with_target(false);
    // Fails only where a subscriber stands already, as in tests.
    let _ = lines.try_init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("");
        tracing::error!(place, "panicked: {text}");
    }));
}
