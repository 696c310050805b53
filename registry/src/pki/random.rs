//! Random bytes from the system.

use super::PkiError;
use ring::rand::{SecureRandom, SystemRandom};

/// `count` random bytes.
///
/// # Errors
/// The system has none.
pub fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| PkiError::NoRandom)?;
    Ok(bytes)
}
