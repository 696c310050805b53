//! Random bytes from the system.

use super::PkiError;
use ring::rand::{SecureRandom, SystemRandom};

/// Returns `N` random bytes.
///
/// # Errors
/// The system has no random bytes.
pub fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| PkiError::NoRandom)?;
    Ok(bytes)
}
