//! Decides what a node does; reads nothing and carries nothing out.
//!
//! Time, observations and random seeds are arguments (law 1 of `docs/ARCHITECTURE.md`). So the same inputs give
//! the same orders on any machine, in the daemon and in a simulator alike. Only `std` is used.

pub mod alternates;
pub mod attempts;
pub mod dial;
pub mod document_intake;
pub mod endpoint_checks;
pub mod forwarding;
pub mod gain;
pub mod histogram;
pub mod hole_punching;
pub mod ipv4_overlap;
pub mod lan_discovery;
pub mod life;
pub mod link_cost;
pub mod names;
pub mod node_name;
pub mod node_reference;
pub mod observation;
pub mod orders;
pub mod parameters;
pub mod path_mtu;
pub mod planner;
pub mod probe;
pub mod probe_history;
pub mod restart_lock;
pub mod revocation;
pub mod rng;
pub mod rolling_restart;
pub mod route_checks;
pub mod route_view;
pub mod routes;
pub mod shared_keys;
pub mod silence;
pub mod tcp_fallback;
pub mod units;
pub mod usage;
pub mod waits;
