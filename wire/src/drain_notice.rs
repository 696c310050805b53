//! The datagram that says "I drain the tunnel that this comes through"; whoever hears it may do the same.
//!
//! ```text
//! 0..4  "wrnD"
//! 4     version, 1
//! 5..8  zero
//! ```
//!
//! It goes to the port of [`crate::suspicion`], from one end's link-local address to the other's. All that a liar gains
//! is that less traffic goes through a tunnel of his own.

/// The whole datagram; every other one is refused.
pub const DRAIN_NOTICE: [u8; 8] = *b"wrnD\x01\0\0\0";
