//! Decides what a node shall do; reads nothing and does nothing.
//!
//! Time, world and random seed are arguments (law 1 of `docs/ARCHITECTURE.md`): the same inputs give
//! the same orders on any machine, in the daemon and in a simulator alike. Only `std` is used.

pub mod gain;
pub mod life;
pub mod link_cost;
pub mod names;
pub mod observation;
pub mod orders;
pub mod parameters;
pub mod planner;
pub mod probe;
pub mod recent;
pub mod restart_lock;
pub mod revocation;
pub mod rng;
pub mod rolling_restart;
pub mod routes;
pub mod units;
pub mod usage;
