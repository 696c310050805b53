//! The actors of a node, in four ranks: sources observe, deciders decide, effects act, sinks publish.
//!
//! Messages flow only from an earlier rank to a later one, so that no cycle can arise
//! (`docs/ARCHITECTURE.md` has a drawing). State that outlives the actors is in [`store`]; a
//! [`guardian`] restarts an actor that panicked.

pub mod deciders;
pub mod effects;
pub mod guardian;
mod hole_punches;
mod http_connections;
pub mod live_settings;
pub mod mailboxes;
pub mod messages;
pub mod operator;
mod repair_log;
pub mod restart_lock;
pub mod sinks;
pub mod sources;
pub mod store;
