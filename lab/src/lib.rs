//! The lab: whole networks on one machine, with the real `warren`, OpenVPN and babeld in network namespaces, and
//! measurements of what they do.
//!
//! The lab handles nodes only from outside: it runs commands, reads control sockets and kernel tables, and sends pings.
//! It writes no certificate, cache or configuration itself; `warren join` does. Everything needs root. `warren-lab` is
//! the command (`main.rs`); `tests/` uses the same library.
//!
//! A test or a measurement has four steps:
//!
//! 1. [`Lab::build_converged`] builds namespaces and links, lets nodes join, starts them, and waits until every node
//!    reaches every other one.
//! 2. [`Lab::start_pings`] pings all pairs, usually every 10 ms.
//! 3. Something happens: [`Node::kill`], [`Lab::unplug`], [`Lab::revoke`], or the planners close tunnels by themselves.
//! 4. [`Pinger::summarize`] counts the pings that were lost in a span, and the longest gap.
//!
//! # Where do I …?
//!
//! | task | place |
//! | --- | --- |
//! | change what a lab is built with | [`Options`] |
//! | change addresses, cables or routers | `network/build.rs`, `network/underlay.rs`, [`nat_router`] |
//! | run a command of the registry's operator | `network/registry.rs` |
//! | start, stop, configure or query one node | [`Node`] |
//! | add delays between nodes | [`delays`] |
//! | learn which path a packet takes | [`kernel_routes`] |
//! | count frames by what they are for | [`frame_counter`] |
//! | follow the planners' decisions | [`closing_monitor`] |
//! | check that a host is as it was before | [`host_snapshot`] |
//! | let the router in front of a node misbehave | [`scripted_gateway`] |
//! | let a real Prometheus scrape the nodes and the registry | [`prometheus`] |
//! | load or attack a registry without nodes | [`standalone_registry`], [`registry_connection`] |
//! | provoke an alert | [`measure::alerts`] |
//! | compare metrics with the kernel and babeld | [`measure::figures`] |
//! | inject faults and attacks, and compare with the promises | [`faults`], and `./test --faults` |
//! | add a measurement | [`measure`], and `Measurement` in `main.rs` |
//! | change what `./demo` shows | [`demo`] |
//! | draw the Grafana boards of a lab | [`boards`] |
//! | open the map of a network in a browser | [`map_page`] |
//! | see a command of a node in a real terminal | [`terminal`] |
//! | let DNS fail for a node | [`dns_server`] |
//! | split the internet in two | `network/split.rs` |
//!
//! Each run has a folder `/tmp/warren-lab-NAME` and namespaces `wl-NAME-…` ([`lab_run`]). They disappear with the [`Lab`],
//! with a signal, or at the next start after a crash. `WARREN_LAB_KEEP=1` keeps the folder with its logs;
//! `WARREN_PROGRAM` names another `warren` to run.

pub mod actor_panics;
pub mod boards;
pub mod bulk_transfer;
pub mod closing_monitor;
mod convergence;
pub mod delays;
pub mod demo;
pub mod dns_server;
pub mod faults;
pub mod frame_counter;
pub mod host_snapshot;
pub mod http;
pub mod ip;
pub mod kernel_routes;
pub mod lab_run;
pub mod map_page;
pub mod measure;
pub mod nat_router;
pub mod netns;
pub mod network;
pub mod node;
pub mod packet_stream;
pub mod ping_record;
pub mod pinger;
pub mod proc_files;
pub mod process;
pub mod progress;
pub mod prometheus;
pub mod raw_openvpn;
pub mod registry_connection;
pub mod scripted_gateway;
pub mod signal_cleanup;
pub mod skipped_tests;
pub mod standalone_registry;
pub mod terminal;
pub mod wait;

pub use network::{Lab, Options};
pub use node::Node;
pub use pinger::{PingSchedule, Pinger};
pub use skipped_tests::is_skipped_without_root;
