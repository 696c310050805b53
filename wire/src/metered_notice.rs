//! The datagram that announces "I am a metered node", so that the receiver probes the tunnel that it comes through less often.
//!
//! ```text
//! 0..4  "wrnM"
//! 4     version, 1
//! 5..8  zero
//! ```
//!
//! It goes to the port of [`crate::suspicion`], from one end's link-local address to the other's, with each probe of the
//! metered node. A liar only achieves that its own death is noticed later.

/// The whole datagram; every other one is refused.
pub const METERED_NOTICE: [u8; 8] = *b"wrnM\x01\0\0\0";
