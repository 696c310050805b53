//! The root daemon as a library: from the configuration to a running graph of actors, and back to a
//! host as it was found.

mod actor_settings;
pub mod errors;
pub mod host;
pub mod identity;
pub mod join;
pub mod logging;
pub mod renew_expired;
pub mod run;
pub mod shutdown;
pub mod wiring;
