//! Reads and writes the files of credentials.

use super::*;

pub(super) fn now_s() -> i64 {
    i64::try_from(wall().as_secs()).unwrap_or(i64::MAX)
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, CredentialError> {
    fs::read(path).map_err(|source| CredentialError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The certificates in a PEM file, whatever their order.
pub(super) fn trusted(pem: &[u8]) -> BTreeSet<Vec<u8>> {
    CertificateDer::pem_slice_iter(pem)
        .filter_map(Result::ok)
        .map(|ca| ca.to_vec())
        .collect()
}

pub(super) fn bundle(network: &NetworkDocument) -> String {
    network
        .authorities
        .iter()
        .map(|ca| format!("{}\n", ca.trim_end()))
        .collect()
}

/// Writes a file if its content differs; returns whether it did.
pub(super) fn write_changed(
    path: &Path,
    text: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
) -> Result<bool, CredentialError> {
    let differs = fs::read(path).map_or(true, |old| old != text);
    if differs {
        replace(path, text, mode, owner)?;
    }
    Ok(differs)
}
