//! Builds a whole network on one machine: nodes in network namespaces, with the real `warren`, OpenVPN and
//! babeld, and measures what it does.
//!
//! The lab knows the nodes only from outside: it runs commands, asks control sockets, reads kernel tables and
//! sends pings. No certificate, cache or configuration is written here: `warren join` does that.
//! Everything needs root.

pub mod delay;
pub mod demo;
pub mod desk;
pub mod hops;
pub mod host;
pub mod http;
pub mod ip;
pub mod left_out;
pub mod measure;
pub mod nat;
pub mod network;
pub mod node;
mod operate;
pub mod ping;
pub mod record;
pub mod run;
pub mod signals;
pub mod spawn;
pub mod underlay;
pub mod watch;

pub use left_out::is_left_out;
pub use network::{Lab, Options};
pub use node::Node;
pub use ping::{Pace, Pinger};
