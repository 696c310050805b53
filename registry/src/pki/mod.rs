//! Certificates and keys: the CA that signs, its offline root, certificate requests, and the TLS
//! made of them.
//!
//! Knows no database and no HTTP.

pub mod authority;
pub(crate) mod certificates;
pub mod credentials;
mod error;
pub mod offline_root;
mod random;
pub mod request;
pub(crate) mod tls;

pub use certificates::{BACKDATE_S, random_network};
pub use error::PkiError;
pub use random::random;
