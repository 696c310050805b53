//! Builds a whole network on one machine: nodes in network namespaces, with the real `warren`, OpenVPN and
//! babeld, and measures what it does.
//!
//! The lab knows the nodes only from outside: it runs commands, asks control sockets, reads kernel tables and
//! sends pings. No certificate, cache or configuration is written here: `warren join` does that.
//! Everything needs root.

pub mod closing_monitor;
pub mod delays;
pub mod demo;
pub mod host_snapshot;
pub mod http;
pub mod ip;
pub mod kernel_routes;
pub mod lab_run;
pub mod measure;
pub mod nat_router;
pub mod network;
pub mod node;
pub mod ping_record;
pub mod pinger;
pub mod process;
pub mod signal_cleanup;
pub mod skipped_tests;
pub mod standalone_registry;

pub use network::{Lab, Options};
pub use node::Node;
pub use pinger::{Pace, Pinger};
pub use skipped_tests::is_left_out;
