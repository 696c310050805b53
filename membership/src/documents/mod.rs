//! The two signed documents of a network (parameters and keys; revocations), as this node holds them.

mod current;
mod files;

pub use current::*;
pub use files::*;
