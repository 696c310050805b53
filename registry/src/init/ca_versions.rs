//! Knows where the files of each CA lie: the first, and those that replaced it.

use crate::{
    clock::UnixSeconds,
    files::{
        FileError, private_folder, read, remove_file_if_exists, remove_folder_if_exists, write_new,
    },
    init::error::RegistryError,
    pki::{
        authority::{Authorities, Authority},
        certificates::new_key,
        credentials::{Credentials, NewCa},
    },
    settings::{RegistryPaths, Settings, address_of},
};
use rcgen::KeyPair;
use std::path::PathBuf;

pub(crate) const FILES: [&str; 6] = [
    "ca.crt",
    "ca.key",
    "signer.crt",
    "signer.key",
    "tls.crt",
    "tls.key",
];

/// A CA that has one before it keeps that one's certificate for it.
const CROSS: &str = "cross.crt";

/// A CA that has a root above it keeps the root's certificate.
const ROOT: &str = "root.crt";

/// Where the files of a CA lie: those of the first beside `registry.json`.
pub(crate) fn folder(paths: &RegistryPaths, version: u32) -> PathBuf {
    match version {
        0 | 1 => paths.config_dir.clone(),
        later => paths.config_dir.join(format!("ca-{later}")),
    }
}

/// Writes a CA's files, none over another.
pub(crate) fn write_credentials(
    paths: &RegistryPaths,
    version: u32,
    made: &Credentials,
) -> Result<(), RegistryError> {
    let folder = folder(paths, version);
    private_folder(&folder)?;
    let texts = [
        &made.ca,
        &made.ca_key,
        &made.signer,
        &made.signer_key,
        &made.tls,
        &made.tls_key,
    ];
    for (name, text) in FILES.iter().zip(texts) {
        write_new(&folder.join(name), text)?;
    }
    let more = [(CROSS, &made.cross), (ROOT, &made.root)];
    for (name, text) in more.iter().filter(|(_, text)| !text.is_empty()) {
        write_new(&folder.join(name), text)?;
    }
    Ok(())
}

/// Reads a CA's files.
fn read_credentials(paths: &RegistryPaths, version: u32) -> Result<Credentials, RegistryError> {
    let folder = folder(paths, version);
    let [ca, ca_key, signer, signer_key, tls, tls_key] = FILES.map(|name| read(&folder.join(name)));
    let [cross, root] = [CROSS, ROOT].map(|name| match read(&folder.join(name)) {
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

/// The key of the next CA, for which a root is asked, until it is used.
fn requested(paths: &RegistryPaths) -> PathBuf {
    paths.config_dir.join("next-ca.key")
}

/// A key for the next CA, which a root shall certify; asked again, the same.
///
/// # Errors
/// It could not be made, written or read.
pub(crate) fn request_key(paths: &RegistryPaths) -> Result<KeyPair, RegistryError> {
    match requested_key(paths) {
        Err(RegistryError::File(FileError::Missing { .. })) => {
            let key = new_key()?;
            write_new(&requested(paths), &key.serialize_pem())?;
            Ok(key)
        }
        found => found,
    }
}

/// The key that [`request_key`] made.
///
/// # Errors
/// There is none, or it cannot be read.
pub(crate) fn requested_key(paths: &RegistryPaths) -> Result<KeyPair, RegistryError> {
    let path = requested(paths);
    let text = read(&path)?;
    let key = KeyPair::from_pem(&text).map_err(|error| FileError::Bad {
        path,
        why: error.to_string(),
    })?;
    Ok(key)
}

/// Removes the key that [`request_key`] made, now that its CA has it.
///
/// # Errors
/// It could not be removed.
pub(crate) fn remove_requested_key(paths: &RegistryPaths) -> Result<(), RegistryError> {
    let path = requested(paths);
    Ok(remove_file_if_exists(&path)?)
}

/// Makes what the CA after the current one needs; its files are all that changes.
///
/// # Errors
/// Something could not be made or written.
pub(crate) fn create_next_ca(
    paths: &RegistryPaths,
    settings: &Settings,
    ca: NewCa,
    now: UnixSeconds,
) -> Result<u32, RegistryError> {
    let before = authorities(paths, settings)?;
    let version = settings.authority + 1;
    let hosts = [address_of(paths, settings)?.host().to_owned()];
    let mut made = Credentials::make(ca, &hosts, now)?;
    if made.anchor() != before.current.anchor() {
        made.cross(&before.current, now)?;
    }
    // Files of an interrupted attempt are not named by any settings, so they can be removed.
    let folder = folder(paths, version);
    remove_folder_if_exists(&folder)?;
    write_credentials(paths, version, &made)?;
    Ok(version)
}

/// Removes the keys of a CA that signs no more; its certificate stays.
///
/// # Errors
/// A key could not be removed.
pub(crate) fn remove_keys(paths: &RegistryPaths, version: u32) -> Result<(), RegistryError> {
    let folder = folder(paths, version);
    for name in FILES.iter().filter(|name| name.ends_with(".key")) {
        remove_file_if_exists(&folder.join(name))?;
    }
    Ok(())
}
