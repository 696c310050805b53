//! The actors of a node, by rank: sources observe, deciders decide, effects act, sinks show.
//!
//! Messages flow from left to right only, so a circle of addresses cannot be written
//! (`docs/ARCHITECTURE.md` has the drawing). What outlives an actor lies in [`store`], outside of all of
//! them; [`guardian`] restarts an actor that panicked.

pub mod deciders;
pub mod effects;
pub mod guardian;
pub mod messages;
pub mod restart_lock;
pub mod sinks;
pub mod sources;
pub mod store;
