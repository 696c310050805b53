//! Actors that carry out orders on processes and kernel links.

pub mod babeld_flusher;
pub mod fallback_routes;
pub mod link_orders;
pub mod tunnels;
