//! Actors that count and show: metrics, the control socket, and the snapshot behind both.

pub mod control;
pub mod exporter;
pub mod telemetry;
