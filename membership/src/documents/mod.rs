//! The current versions of the network's two signed documents: the network document (parameters and keys) and the revocation
//! list.

mod current;
mod files;

pub use current::*;
pub use files::*;
