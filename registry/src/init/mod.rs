//! Creates a registry, and opens an existing one.

pub(crate) mod backups;
pub(crate) mod ca_versions;
pub(crate) mod documents;
pub mod error;
pub mod restore;

use crate::{
    clock::UnixSeconds,
    files::{FileError, io_error, private_folder, write_new},
    init::{
        ca_versions::{FILES, authorities, write_credentials},
        documents::{shape_error, sign_and_store},
        error::RegistryError,
    },
    pki::{
        PkiError,
        authority::{Authorities, Authority},
        credentials::{Credentials, NewCa, OwnCa},
        offline_root::OfflineRoot,
        random, random_network,
    },
    settings::{self, FILE, RegistryPaths, Settings, address_of, database, json},
    store::{self, Storage},
};
use ::files::Access;
use ipnet::Ipv6Net;
use policies::parameters::Parameters;

use std::path::PathBuf;
use wire::{
    invitation::RegistryAddress,
    overlay::Network,
    registry::{DocumentKind, NetworkDocument, Revocations, static_key_text},
    signed::hex,
};

/// The properties of a new network.
#[derive(Clone, Debug)]
pub struct NewNetwork {
    /// Its range; `None` stands for a random /48 of unique local addresses.
    pub network: Option<Ipv6Net>,
    /// The address at which the registry is reached.
    pub address: RegistryAddress,
    /// The usual length of a node's prefix, in bits.
    pub prefix_length: u8,
    /// The parameters of the nodes.
    pub parameters: Parameters,
    /// The lifetime of a node's certificate, in seconds.
    pub certificate_life_s: i64,
    /// The lifetime of an announcement, in seconds.
    pub announcement_ttl_s: i64,
    /// The grace period in seconds: after it expired, a certificate can be renewed for so long with the same
    /// key, and its prefix is not allocated to another node.
    pub grace_s: i64,
    /// Whether nodes may announce private addresses.
    pub private_endpoints: bool,
    /// The new folder for the key of a root above the CA; `None` stands for a CA without a root.
    pub offline_root: Option<PathBuf>,
    /// A CA that the operator brings; `None` stands for a new one. The serial number of the trusted CA encodes the
    /// network.
    pub own_ca: Option<OwnCa>,
}

/// Creates a network: keys, certificates, database, first documents. Returns its range.
///
/// # Errors
/// There is a registry already, a value is out of range, or a file could not be written.
pub fn init(
    paths: &RegistryPaths,
    new: &NewNetwork,
    now: UnixSeconds,
) -> Result<Ipv6Net, RegistryError> {
    let hosts = [new.address.host().to_owned()];
    let own = own_credentials(new, &hosts, now)?;
    let range = match (&own, new.network) {
        (Some((_, range)), _) => *range,
        (None, Some(range)) => range,
        (None, None) => random_network()?,
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
    let made = match (own, &new.offline_root) {
        (Some((made, _)), _) => made,
        (None, None) => Credentials::make(NewCa::self_signed_ca(range, 1, now)?, &hosts, now)?,
        (None, Some(folder)) => {
            let ca = OfflineRoot::make(folder, range, now)?.new_ca(now)?;
            Credentials::make(ca, &hosts, now)?
        }
    };
    write_credentials(paths, 1, &made)?;
    let authority = Authority::load((1, &made), None)?;
    let mut storage = open_database(paths, &settings)?;
    let revocations = Revocations {
        kind: DocumentKind::Revocations,
        version: 1,
        revoked: Vec::new(),
        authorities: Vec::new(),
    };
    sign_and_store(
        storage.as_mut(),
        &authority,
        DocumentKind::Network,
        1,
        &document,
    )?;
    sign_and_store(
        storage.as_mut(),
        &authority,
        DocumentKind::Revocations,
        1,
        &revocations,
    )?;
    // The settings are written last, since their presence means that everything else is there.
    write_new(&settings_file, &json(&settings).map_err(shape_error)?)?;
    Ok(range)
}

/// Returns the keys and certificates of the CA that the operator brings, and its network.
///
/// # Errors
/// The CA cannot be used, or belongs to another network than the one that was requested.
fn own_credentials(
    new: &NewNetwork,
    hosts: &[String],
    now: UnixSeconds,
) -> Result<Option<(Credentials, Ipv6Net)>, PkiError> {
    let Some(own) = &new.own_ca else {
        return Ok(None);
    };
    let (made, range) = own.credentials(hosts, now)?;
    match new.network {
        Some(wanted) if wanted != range => Err(PkiError::UnusableCa {
            why: format!("its serial number encodes the network {range}, not {wanted}"),
        }),
        Some(_) | None => Ok(Some((made, range))),
    }
}

/// Composes the network document of a new network, with new keys.
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
        prefix_lengths: vec![new.prefix_length],
    })
}

/// Composes the settings of a new network, whose first CA signs.
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

fn open_database(
    paths: &RegistryPaths,
    settings: &Settings,
) -> Result<Box<dyn Storage>, RegistryError> {
    let path = database(paths);
    // The database would create its file with the umask's permissions.
    ::files::open_or_create(&path, Access::ours(0o600)).map_err(io_error("open", &path))?;
    Ok(store::open(
        &path,
        settings.prefix_length,
        settings.grace_s,
    )?)
}

/// The files of a registry, read and checked.
pub struct Opened {
    /// The settings of the registry.
    pub settings: Settings,
    /// The paths of its files.
    pub paths: RegistryPaths,
    /// The address from its settings.
    pub address: RegistryAddress,
    /// Its keys and certificates.
    pub(crate) authorities: Authorities,
    /// The database of the registry.
    pub storage: Box<dyn Storage>,
}

/// Opens a registry that `init` created.
///
/// # Errors
/// There is no registry, or one of its files is missing, unreadable or corrupt.
pub fn open(paths: &RegistryPaths) -> Result<Opened, RegistryError> {
    let settings = read_settings(paths)?;
    let address = address_of(paths, &settings)?;
    let authorities = authorities(paths, &settings)?;
    let path = database(paths);
    if !path.exists() {
        // An empty database would allocate prefixes a second time.
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

/// Reads the settings of a registry that exists.
///
/// # Errors
/// [`RegistryError::NoRegistry`] if none of its files exists. If some exist, the settings are missing or cannot
/// be read.
pub(crate) fn read_settings(paths: &RegistryPaths) -> Result<Settings, RegistryError> {
    settings::read_settings(paths).map_err(|error| match error {
        FileError::Missing { path } if !exists_in_part(paths) => RegistryError::NoRegistry { path },
        error @ (FileError::Missing { .. } | FileError::Io { .. } | FileError::Bad { .. }) => {
            error.into()
        }
    })
}

/// Returns whether a file of a registry other than its settings exists.
fn exists_in_part(paths: &RegistryPaths) -> bool {
    let files = FILES.iter().map(|name| paths.config_dir.join(name));
    files.chain([database(paths)]).any(|path| path.exists())
}
