//! Signed documents: network parameters and revocations.
