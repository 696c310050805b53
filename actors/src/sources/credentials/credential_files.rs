//! Reads and writes the credential files.

use super::*;
use membership::certificate::MAX_CREDENTIAL_BYTES;

/// Returns the wall-clock time, in seconds since 1970.
pub(super) fn now_s() -> i64 {
    i64::try_from(wall().as_secs()).unwrap_or(i64::MAX)
}

pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, CredentialError> {
    files::read(path, MAX_CREDENTIAL_BYTES).map_err(|source| CredentialError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Parses the certificates (DER) in a PEM file as a set, so that their order does not matter.
pub(super) fn parse_cas(pem: &[u8]) -> BTreeSet<Vec<u8>> {
    CertificateDer::pem_slice_iter(pem)
        .filter_map(Result::ok)
        .map(|ca| ca.to_vec())
        .collect()
}

/// Joins the CAs of a network document into the text of one PEM file.
pub(super) fn ca_bundle(network: &NetworkDocument) -> String {
    network
        .authorities
        .iter()
        .map(|ca| format!("{}\n", ca.trim_end()))
        .collect()
}

/// Writes a file if its content differs from `text`; returns whether it did.
pub(super) fn write_if_different(
    path: &Path,
    text: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
) -> Result<bool, CredentialError> {
    let is_different = files::read(path, MAX_CREDENTIAL_BYTES).map_or(true, |old| old != text);
    if is_different {
        replace(path, text, mode, owner)?;
    }
    Ok(is_different)
}
