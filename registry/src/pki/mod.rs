//! Certificates and keys: the CA that signs, its offline root, certificate requests, and the TLS
//! made of them.
//!
//! Knows no database and no HTTP.

pub mod authority;
pub(crate) mod ca_check;
pub(crate) mod certificates;
pub mod credentials;
mod der;
mod error;
pub(crate) mod issuer;
pub mod offline_root;
pub(crate) mod private_key;
mod random;
pub mod request;
pub(crate) mod tls;

pub use certificates::{BACKDATE_S, random_network};
pub use error::PkiError;
pub use random::random;
