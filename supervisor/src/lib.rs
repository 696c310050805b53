//! The daemon as a library: prepares the host, starts the actors, and at the end stops them and restores the host.
//! Also `warren join`, which makes a machine a node, `warren leave`, and `warren cleanup`, which restores the host after a crash.

mod actor_settings;
pub mod cleanup;
pub mod doctor;
pub mod errors;
mod fetch_network;
mod further_ports;
mod graph;
mod handed;
pub mod host;
pub mod identity;
pub mod join;
pub mod leave;
mod local_servers;
pub mod logging;
mod moved_files;
mod open_files;
mod pid_file;
mod reload;
pub mod renew_expired;
mod restart;
pub mod run;
pub mod secrets;
pub mod service_manager;
pub mod shutdown;
pub mod wiring;
