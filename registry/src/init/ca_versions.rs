//! Reads and writes the files of each CA: of the first one, and of those that replaced it.

use crate::{
    clock::UnixSeconds,
    files::{FileError, private_folder, read, remove_if_exists, write_new},
    init::error::RegistryError,
    pki::{
        authority::{Authorities, Authority},
        certificates::{Parsed, new_key},
        credentials::{Credentials, NewCa},
    },
    settings::{RegistryPaths, Settings, address_of},
};
use rcgen::KeyPair;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use std::path::{Path, PathBuf};

/// The names of the files that each CA has.
pub(crate) const FILES: [&str; 6] = [
    "ca.crt",
    "ca.key",
    "signer.crt",
    "signer.key",
    "tls.crt",
    "tls.key",
];

/// The file with the certificate that the previous CA issued for this one.
const CROSS: &str = "cross.crt";

/// The file with the certificate of the root above the CA.
const ROOT: &str = "root.crt";

/// Returns the folder of a CA's files; those of the first CA are beside `registry.json`.
pub(crate) fn folder(paths: &RegistryPaths, version: u32) -> PathBuf {
    match version {
        0 | 1 => paths.config_dir.clone(),
        later => paths.config_dir.join(format!("ca-{later}")),
    }
}

/// Writes a CA's files; existing files are not replaced.
pub(crate) fn write_credentials(
    paths: &RegistryPaths,
    version: u32,
    credentials: &Credentials,
) -> Result<(), RegistryError> {
    let folder = folder(paths, version);
    private_folder(&folder)?;
    let texts = [
        &credentials.ca,
        &credentials.ca_key,
        &credentials.signer,
        &credentials.signer_key,
        &credentials.tls,
        &credentials.tls_key,
    ];
    for (name, text) in FILES.iter().zip(texts) {
        write_new(&folder.join(name), text)?;
    }
    let optional = [(CROSS, &credentials.cross), (ROOT, &credentials.root)];
    for (name, text) in optional.iter().filter(|(_, text)| !text.is_empty()) {
        write_new(&folder.join(name), text)?;
    }
    Ok(())
}

/// Reads a CA's files.
fn read_credentials(paths: &RegistryPaths, version: u32) -> Result<Credentials, RegistryError> {
    let folder = folder(paths, version);
    let read = |name| read_pem(&folder.join(name));
    let [ca, ca_key, signer, signer_key, tls, tls_key] = FILES.map(read);
    let [cross, root] = [CROSS, ROOT].map(|name| match read(name) {
        Err(FileError::Missing { .. }) => Ok(String::new()),
        read => read,
    });
    Ok(Credentials {
        ca: ca?,
        ca_key: ca_key?,
        signer: signer?,
        signer_key: signer_key?,
        tls: tls?,
        tls_key: tls_key?,
        cross: cross?,
        root: root?,
    })
}

/// Reads a file with a certificate or, if its name ends in `key`, with a private key.
fn read_pem(path: &Path) -> Result<String, FileError> {
    let text = read(path)?;
    let (is_valid, what) = if path.extension().is_some_and(|end| end == "key") {
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes());
        (key.is_ok(), "private key")
    } else {
        (Parsed::read(&text, "it").is_ok(), "certificate")
    };
    if is_valid {
        return Ok(text);
    }
    Err(FileError::Bad {
        path: path.to_owned(),
        why: format!("it holds no {what} in PEM; restore it from a backup of its folder"),
    })
}

/// Loads the CAs that the settings name.
pub(crate) fn authorities(
    paths: &RegistryPaths,
    settings: &Settings,
) -> Result<Authorities, RegistryError> {
    let current = read_credentials(paths, settings.authority)?;
    let other = settings
        .other_authority
        .map(|version| read_credentials(paths, version))
        .transpose()?;
    let second = settings.other_authority.zip(other.as_ref());
    let authority = Authority::load((settings.authority, &current), second)?;
    Ok(Authorities {
        current,
        other,
        authority,
    })
}

/// Returns the path of the next CA's key, which exists from the certificate request to the step `stage`.
fn requested_key_path(paths: &RegistryPaths) -> PathBuf {
    paths.config_dir.join("next-ca.key")
}

/// Returns the key of the next CA, which a root shall certify. The first call creates it.
///
/// # Errors
/// The key could not be created, written or read.
pub(crate) fn request_key(paths: &RegistryPaths) -> Result<KeyPair, RegistryError> {
    match requested_key(paths) {
        Err(RegistryError::File(FileError::Missing { .. })) => {
            let key = new_key()?;
            write_new(&requested_key_path(paths), &key.serialize_pem())?;
            Ok(key)
        }
        found => found,
    }
}

/// Returns the key that [`request_key`] created.
///
/// # Errors
/// There is no such key, or it cannot be read.
pub(crate) fn requested_key(paths: &RegistryPaths) -> Result<KeyPair, RegistryError> {
    let path = requested_key_path(paths);
    let text = read(&path)?;
    let key = KeyPair::from_pem(&text).map_err(|error| FileError::Bad {
        path,
        why: error.to_string(),
    })?;
    Ok(key)
}

/// Removes the key that [`request_key`] created, once it is among the files of its CA.
///
/// # Errors
/// The file could not be removed.
pub(crate) fn remove_requested_key(paths: &RegistryPaths) -> Result<(), RegistryError> {
    let path = requested_key_path(paths);
    Ok(remove_if_exists(&path)?)
}

/// Creates the files of the CA after the current one, and changes nothing else. Returns its version.
///
/// # Errors
/// A certificate could not be created, or a file not written.
pub(crate) fn create_next_ca(
    paths: &RegistryPaths,
    settings: &Settings,
    ca: NewCa,
    now: UnixSeconds,
) -> Result<u32, RegistryError> {
    let before = authorities(paths, settings)?;
    let version = settings.authority + 1;
    let hosts = [address_of(paths, settings)?.host().to_owned()];
    let mut credentials = Credentials::make(ca, &hosts, now)?;
    if credentials.anchor() != before.current.anchor() {
        credentials.cross_sign(&before.current, now)?;
    }
    // A folder that exists here is left from an interrupted attempt; no settings name it.
    let folder = folder(paths, version);
    remove_if_exists(&folder)?;
    write_credentials(paths, version, &credentials)?;
    Ok(version)
}

/// Removes the keys of a retired CA; its certificates stay.
///
/// # Errors
/// A key could not be removed.
pub(crate) fn remove_keys(paths: &RegistryPaths, version: u32) -> Result<(), RegistryError> {
    let folder = folder(paths, version);
    for name in FILES.iter().filter(|name| name.ends_with(".key")) {
        remove_if_exists(&folder.join(name))?;
    }
    Ok(())
}
