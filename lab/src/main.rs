//! The command `warren-lab`.
fn main() {}
