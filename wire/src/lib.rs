//! Bytes and lines to types and back; pure. Parsers are total, bounded and split-invariant.

pub mod babel;
pub mod control;
pub mod endpoints;
pub mod invitation;
pub mod management;
pub mod overlay;
pub mod peer;
pub mod registry;
pub mod signed;
pub mod suspicion;
pub mod text;
