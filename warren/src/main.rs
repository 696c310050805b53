//! The command `warren`.
fn main() {}
