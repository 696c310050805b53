//! The kernel module against the real kernel: each test in a network namespace of its own. Needs
//! root.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

mod exit_routing;
mod frames;
mod host;
mod place;
mod slots;
