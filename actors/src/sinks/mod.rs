//! Publishes the state of the node: an actor that keeps a snapshot, and the servers of metrics and of the
//! control socket, which read it.

pub mod control;
mod documents;
pub mod exporter;
pub mod health;
mod map;
pub mod next_hop;
pub mod telemetry;
