//! Actors that turn readings into orders; the rules themselves are in the crate `policies`.

pub mod policy;
pub mod prober;
