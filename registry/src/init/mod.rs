//! Makes a registry, and opens one that was made.

pub(crate) mod backups;
pub(crate) mod ca_versions;
pub mod error;
pub mod restore;

use crate::{
    clock::UnixSeconds,
    files::{FileError, io_error, private_folder, write_new},
    init::{
        ca_versions::{FILES, authorities, write_credentials},
        error::RegistryError,
    },
    pki::{
        authority::{Authorities, Authority},
        credentials::{Credentials, NewCa},
        offline_root::OfflineRoot,
        random, random_network,
    },
    settings::{self, FILE, RegistryPaths, Settings, address_of, database, json},
    store::{Storage, sqlite::Sqlite},
};
use ipnet::Ipv6Net;
use policies::parameters::Parameters;
use serde::Serialize;
use std::{fs, os::unix::fs::OpenOptionsExt, path::PathBuf};
use wire::{
    invitation::RegistryAddress,
    overlay::Network,
    registry::{DocumentError, DocumentKind, NetworkDocument, Revocations, static_key_text},
    signed::{SignedDocument, hex},
};
/// The properties of a new network.
#[derive(Clone, Debug)]
pub struct NewNetwork {
    /// Its range; `None`: a random /48 of unique local addresses.
    pub network: Option<Ipv6Net>,
    /// The address at which the registry is reached.
    pub address: RegistryAddress,
    /// Bits of the prefixes handed out.
    pub prefix_length: u8,
    /// Numbers that steer the nodes.
    pub parameters: Parameters,
    /// How long a node's certificate is good, in seconds.
    pub certificate_life_s: i64,
    /// The lifetime of an announcement, in seconds.
    pub announcement_ttl_s: i64,
    /// How long after its end a certificate can still be renewed, and its prefix rests, in seconds.
    pub grace_s: i64,
    /// Whether private addresses may be announced.
    pub private_endpoints: bool,
    /// Where the key of a root above the CA is left; `None`: the CA has none.
    pub offline_root: Option<PathBuf>,
}

/// Makes a network: keys, certificates, database, first documents. Returns its range.
///
/// # Errors
/// There is one already, a value is out of range, or something could not be written.
pub fn init(
    paths: &RegistryPaths,
    new: &NewNetwork,
    now: UnixSeconds,
) -> Result<Ipv6Net, RegistryError> {
    let range = match new.network {
        Some(range) => range,
        None => random_network()?,
    };
    let fits = u32::from(range.prefix_len()) + u32::from(new.prefix_length) <= 127;
    if Network::new(range).is_none() || !(1..=32).contains(&new.prefix_length) || !fits {
        return Err(RegistryError::Network { network: range });
    }
    let document = first_document(new, range)?;
    document.check()?;
    let settings = first_settings(new);
    let settings_file = paths.config_dir.join(FILE);
    let all = FILES.iter().map(|name| paths.config_dir.join(name));
    let mut all = all.chain([settings_file.clone(), database(paths)]);
    if let Some(path) = all.find(|path| path.exists()) {
        return Err(RegistryError::Exists { path });
    }
    private_folder(&paths.config_dir)?;
    private_folder(&paths.state_dir)?;
    let ca = match &new.offline_root {
        None => NewCa::alone(range, 1, now)?,
        Some(folder) => OfflineRoot::make(folder, range, now)?.new_ca(now)?,
    };
    let made = Credentials::make(ca, &[new.address.host().to_owned()], now)?;
    write_credentials(paths, 1, &made)?;
    let authority = Authority::load((1, &made), None)?;
    let mut storage = open_database(paths, &settings)?;
    let revocations = Revocations {
        kind: DocumentKind::Revocations,
        version: 1,
        revoked: Vec::new(),
        authorities: Vec::new(),
    };
    keep(
        &mut storage,
        &authority,
        DocumentKind::Network,
        1,
        &document,
    )?;
    keep(
        &mut storage,
        &authority,
        DocumentKind::Revocations,
        1,
        &revocations,
    )?;
    // The settings are written last, since their presence means that everything else is there.
    write_new(&settings_file, &json(&settings).map_err(shape_error)?)?;
    Ok(range)
}

/// The network document of a new network, with fresh keys.
fn first_document(new: &NewNetwork, range: Ipv6Net) -> Result<NetworkDocument, RegistryError> {
    Ok(NetworkDocument {
        kind: DocumentKind::Network,
        version: 1,
        network: range,
        parameters: new.parameters.into(),
        babel_key: hex(&random::<32>()?),
        tls_crypt: static_key_text(&random::<256>()?),
        private_endpoints: new.private_endpoints,
        authorities: Vec::new(),
        babel_lenient: false,
        tls_crypt_other: None,
        gateways: Vec::new(),
        ipv4: None,
        min_version: None,
    })
}

/// The settings of a new network, whose first CA signs.
fn first_settings(new: &NewNetwork) -> Settings {
    Settings {
        version: 1,
        address: new.address.to_string(),
        prefix_length: new.prefix_length,
        certificate_life_s: new.certificate_life_s,
        announcement_ttl_s: new.announcement_ttl_s,
        grace_s: new.grace_s,
        authority: 1,
        other_authority: None,
        revoked: Vec::new(),
    }
}

fn open_database(paths: &RegistryPaths, settings: &Settings) -> Result<Sqlite, RegistryError> {
    let path = database(paths);
    // SQLite would make it with the umask's rights.
    let file = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path);
    file.map_err(io_error("open", &path))?;
    Ok(Sqlite::open(
        &path,
        settings.prefix_length,
        settings.grace_s,
    )?)
}

/// Signs a document and keeps it.
pub(crate) fn keep<T: Serialize>(
    storage: &mut dyn Storage,
    authority: &Authority,
    kind: DocumentKind,
    version: u64,
    document: &T,
) -> Result<SignedDocument, RegistryError> {
    let signed = authority.sign_document(&serde_json::to_vec(document).map_err(shape_error)?)?;
    storage.store_document(kind, version, &json(&signed).map_err(shape_error)?)?;
    Ok(signed)
}

/// A registry's files, read and checked.
pub struct Opened {
    /// The settings of the registry.
    pub settings: Settings,
    /// The paths of its files.
    pub paths: RegistryPaths,
    /// Its address, read.
    pub address: RegistryAddress,
    /// Keys and certificates.
    pub(crate) authorities: Authorities,
    /// The database of the registry.
    pub storage: Sqlite,
}

/// Opens a registry that `init` created.
///
/// # Errors
/// There is none, or some part of it is missing, unreadable or not sound.
pub fn open(paths: &RegistryPaths) -> Result<Opened, RegistryError> {
    let settings = read_settings(paths)?;
    let address = address_of(paths, &settings)?;
    let authorities = authorities(paths, &settings)?;
    let path = database(paths);
    if !path.exists() {
        // An empty one would hand out prefixes a second time.
        return Err(FileError::Missing { path }.into());
    }
    let storage = open_database(paths, &settings)?;
    Ok(Opened {
        settings,
        paths: paths.clone(),
        address,
        authorities,
        storage,
    })
}

fn shape_error(error: serde_json::Error) -> DocumentError {
    DocumentError::Shape {
        what: "signed",
        why: error.to_string(),
    }
}

/// Reads the settings of a registry that exists.
///
/// # Errors
/// [`RegistryError::NoRegistry`] where none of its files exists; where some do, the settings are
/// missing or cannot be read.
pub(crate) fn read_settings(paths: &RegistryPaths) -> Result<Settings, RegistryError> {
    settings::read_settings(paths).map_err(|error| match error {
        FileError::Missing { path } if !exists_in_part(paths) => RegistryError::NoRegistry { path },
        error @ (FileError::Missing { .. } | FileError::Io { .. } | FileError::Bad { .. }) => {
            error.into()
        }
    })
}

/// Whether a file of a registry other than its settings is there.
fn exists_in_part(paths: &RegistryPaths) -> bool {
    let files = FILES.iter().map(|name| paths.config_dir.join(name));
    files.chain([database(paths)]).any(|path| path.exists())
}
