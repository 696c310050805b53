//! Tests the module `kernel` on the real kernel, each test in a network namespace of its own. They need root.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

mod exit_routing;
mod forward_probe;
mod frames;
mod host;
mod main_table;
mod netns;
mod packet_filter;
mod path_mtu;
mod reconcile;
mod slots;
