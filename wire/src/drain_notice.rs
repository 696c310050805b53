//! The datagram that announces "I drain the tunnel that this comes through", so that the receiver
//! may drain its direction too.
//!
//! ```text
//! 0..4  "wrnD"
//! 4     version, 1
//! 5..8  zero
//! ```
//!
//! It goes to the port of [`crate::suspicion`], from one end's link-local address to the other's.
//! A liar only achieves that less traffic passes through its own tunnel.

/// The whole datagram; every other one is refused.
pub const DRAIN_NOTICE: [u8; 8] = *b"wrnD\x01\0\0\0";
