//! The settings of a registry (`registry.json`), and the paths of its files.

use crate::{
    clock::UnixSeconds,
    files::{self, FileError, read},
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use wire::invitation::RegistryAddress;

/// The folders and paths of a registry's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryPaths {
    /// The folder of keys, certificates and settings, with mode 0700.
    pub config_dir: PathBuf,
    /// The folder of the database, with mode 0700.
    pub state_dir: PathBuf,
    /// The operator's socket, in a folder with mode 0700.
    pub admin_socket: PathBuf,
}

/// The content of `registry.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The version of the file's format: 1.
    pub version: u32,
    /// The `HOST:PORT` at which nodes reach the registry, as invitations contain it.
    pub address: String,
    /// The usual length of a node's prefix in bits, 1 to 32.
    pub prefix_length: u8,
    /// The lifetime of a node's certificate, in seconds.
    pub certificate_life_s: i64,
    /// The lifetime of an announcement, in seconds.
    pub announcement_ttl_s: i64,
    /// The grace period in seconds: after it expired, a certificate can be renewed for so long with the same key, and
    /// its prefix is not allocated to another node.
    #[serde(default = "default_grace_s")]
    pub grace_s: i64,
    /// The version of the CA that signs.
    #[serde(default = "first_ca_version")]
    pub authority: u32,
    /// The version of the staged or the retiring CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_authority: Option<u32>,
    /// The revoked CAs below the root, which the list of revocations contains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<RevokedCa>,
}

/// A revoked CA below the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedCa {
    /// The serial number of its certificate, in lower-case hex without leading zeros.
    pub serial: String,
    /// The moment at which its certificate expires; then it is dropped from the list.
    #[serde(rename = "until_s")]
    pub until: UnixSeconds,
}

impl Settings {
    /// Returns the serial numbers of the revoked CAs.
    pub(crate) fn revoked_ca_serials(&self) -> Vec<String> {
        self.revoked.iter().map(|ca| ca.serial.clone()).collect()
    }
}

fn default_grace_s() -> i64 {
    30 * 86_400
}

fn first_ca_version() -> u32 {
    1
}

/// Replaces the settings on disk.
///
/// # Errors
/// The file could not be written.
pub(crate) fn replace(paths: &RegistryPaths, settings: &Settings) -> Result<(), FileError> {
    let path = paths.config_dir.join(FILE);
    let text = json(settings).map_err(|error| FileError::Bad {
        path: path.clone(),
        why: error.to_string(),
    })?;
    files::replace(&path, &text)
}

/// The name of the settings' file.
pub(crate) const FILE: &str = "registry.json";

/// Parses the address in the settings.
pub(crate) fn address_of(
    paths: &RegistryPaths,
    settings: &Settings,
) -> Result<RegistryAddress, FileError> {
    RegistryAddress::parse(&settings.address, wire::registry::PORT).map_err(|error| {
        FileError::Bad {
            path: paths.config_dir.join(FILE),
            why: error.to_string(),
        }
    })
}

/// Returns the path of the database.
pub(crate) fn database(paths: &RegistryPaths) -> PathBuf {
    paths.state_dir.join("registry.sqlite")
}

/// Reads and checks `registry.json`.
pub(crate) fn read_settings(paths: &RegistryPaths) -> Result<Settings, FileError> {
    let file = paths.config_dir.join(FILE);
    let bad = |why: String| FileError::Bad {
        path: file.clone(),
        why,
    };
    let settings: Settings =
        serde_json::from_str(&read(&file)?).map_err(|error| bad(error.to_string()))?;
    if settings.version != 1 {
        return Err(bad(format!("version {} is not 1", settings.version)));
    }
    if !(1..=32).contains(&settings.prefix_length) {
        return Err(bad(format!(
            "prefix_length {} is not in 1..=32",
            settings.prefix_length
        )));
    }
    if settings.certificate_life_s < 1 || settings.announcement_ttl_s < 1 || settings.grace_s < 0 {
        return Err(bad(
            "certificate_life_s and announcement_ttl_s must be 1 or more, grace_s 0 or more".into(),
        ));
    }
    if settings.authority < 1 {
        return Err(bad("authority must be 1 or more".into()));
    }
    Ok(settings)
}

/// Formats a value for a file or for the database.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(value)
}
