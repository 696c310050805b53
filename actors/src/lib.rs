//! All input and output of a node, one actor a file. The map is `docs/ARCHITECTURE.md`.

pub mod clock;
pub mod control;
pub mod errors;
pub mod exporter;
pub mod guardian;
pub mod kernel;
pub mod messages;
pub mod process;
pub mod store;
pub mod telemetry;
