//! Bytes and lines to types and back; pure. Parsers are total, bounded and split-invariant.

pub mod babel;
mod babel_config;
pub mod babel_packet;
pub mod babel_updates;
pub mod chain;
mod client_env;
pub mod control;
pub mod dial_failure;
pub mod drain_notice;
pub mod endpoints;
pub mod errors;
pub mod handed_state;
pub mod hex;
pub mod invitation;
pub mod lan;
pub mod lines;
pub mod link_counters;
pub mod management;
pub mod metered_notice;
pub mod overlay;
pub mod peer;
pub mod registry;
pub mod serial;
pub mod signed;
pub mod suspicion;
pub mod text;
pub mod upnp;
