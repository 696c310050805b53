//! How an error is printed.

pub use wire::errors::Chain;
