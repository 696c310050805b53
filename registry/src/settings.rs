//! The settings of a registry (`registry.json`), and where its files lie.

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
    /// Keys, certificates, settings; 0700.
    pub config_dir: PathBuf,
    /// The database; 0700.
    pub state_dir: PathBuf,
    /// The socket of the administration; its folder is 0700.
    pub admin_socket: PathBuf,
}

/// The content of `registry.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The version of the file: 1.
    pub version: u32,
    /// The registry's `HOST:PORT`, as invitations state it.
    pub address: String,
    /// Bits of the prefixes handed out, 1..=32.
    pub prefix_length: u8,
    /// How long a node's certificate is good, in seconds.
    pub certificate_life_s: i64,
    /// The lifetime of an announcement, in seconds.
    pub announcement_ttl_s: i64,
    /// How long after its end a certificate can still be renewed with the same key, and its prefix
    /// is nobody else's, in seconds.
    #[serde(default = "month")]
    pub grace_s: i64,
    /// The version of the CA that signs.
    #[serde(default = "first")]
    pub authority: u32,
    /// The version of another CA that is trusted during a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_authority: Option<u32>,
    /// The revoked CAs below the root, as in the list of revocations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<RevokedCa>,
}

/// A CA below the root that is good no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedCa {
    /// Its certificate's serial number, lower-case hex without leading zeros.
    pub serial: String,
    /// The time at which it would have expired.
    #[serde(rename = "until_s")]
    pub until: UnixSeconds,
}

impl Settings {
    /// Returns the serial numbers of revoked CAs.
    pub(crate) fn revoked_ca_serials(&self) -> Vec<String> {
        self.revoked.iter().map(|ca| ca.serial.clone()).collect()
    }
}

/// The default grace: 30 days.
pub fn month() -> i64 {
    30 * 86_400
}

fn first() -> u32 {
    1
}

/// Puts settings in the place of those on the disk, all at once.
///
/// # Errors
/// They could not be written.
pub(crate) fn replace(paths: &RegistryPaths, settings: &Settings) -> Result<(), FileError> {
    let path = paths.config_dir.join(FILE);
    let text = json(settings).map_err(|error| FileError::Bad {
        path: path.clone(),
        why: error.to_string(),
    })?;
    files::replace(&path, &text)
}

/// The settings' name.
pub(crate) const FILE: &str = "registry.json";

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
            "certificate_life_s and announcement_ttl_s must be 1 and more, grace_s 0".into(),
        ));
    }
    if settings.authority < 1 {
        return Err(bad("authority must be 1 or more".into()));
    }
    Ok(settings)
}

/// A value as it is written to a file or to the database.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(value)
}
