//! The current versions of the network's two signed documents: the network document (parameters and keys) and the revocation
//! list.

mod current;
mod files;
mod private_endpoints;

pub use current::*;
pub use files::*;
pub use private_endpoints::*;
