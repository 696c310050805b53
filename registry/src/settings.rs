//! A registry's settings and files: makes them once, and reads them at each start.

pub use crate::restore::restore;

use crate::{
    authority::{Authority, AuthorityError, random},
    credentials::{Credentials, NewCa, random_network},
    files::{io_error, private_folder, read, write_new},
    generations::{Authorities, FILES, authorities, write_credentials},
    offline_root::OfflineRoot,
    sqlite::Sqlite,
    storage::{Storage, StorageError},
};
use ipnet::Ipv6Net;
use policies::parameters::Parameters;
use serde::{Deserialize, Serialize};
use std::{fs, io, os::unix::fs::OpenOptionsExt, path::PathBuf};
use wire::{
    invitation::RegistryAddress,
    overlay::Network,
    registry::{DocumentError, Kind, NetworkDocument, Revocations, static_key_text},
    signed::{SignedDocument, hex},
};

/// Where a registry's files lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Keys, certificates, settings; 0700.
    pub etc: PathBuf,
    /// The database; 0700.
    pub state: PathBuf,
    /// The socket of the administration; its folder is 0700.
    pub admin: PathBuf,
}

/// `registry.json`: what `init` was told and `run` needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// 1.
    pub version: u32,
    /// `HOST:PORT` as invitations say it.
    pub address: String,
    /// Bits of the prefixes handed out, 1..=32.
    pub prefix_length: u8,
    /// How long a node's certificate is good, in seconds.
    pub certificate_life_s: i64,
    /// How long an announcement is kept, in seconds.
    pub announcement_ttl_s: i64,
    /// How long after its end a certificate can still be renewed with the same key, and its prefix
    /// is nobody else's, in seconds.
    #[serde(default = "month")]
    pub grace_s: i64,
    /// Generation of the CA that signs.
    #[serde(default = "first")]
    pub authority: u32,
    /// Generation of another CA that is trusted, while it is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_authority: Option<u32>,
    /// CAs below the root that are good no more, as the revocations say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub barred: Vec<BarredCa>,
}

/// A CA below the root that is good no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BarredCa {
    /// Its certificate's serial number, lower-case hex without leading zeros.
    pub serial: String,
    /// When it would have ended, seconds since 1970.
    pub until_s: i64,
}

impl Settings {
    /// What the revocations shall say of CAs.
    pub(crate) fn barred_serials(&self) -> Vec<String> {
        self.barred.iter().map(|ca| ca.serial.clone()).collect()
    }
}

/// The grace where nobody said another: 30 days.
pub fn month() -> i64 {
    30 * 86_400
}

fn first() -> u32 {
    1
}

/// What a new network shall be.
#[derive(Clone, Debug)]
pub struct NewNetwork {
    /// Its range; `None`: a random /48 of unique local addresses.
    pub network: Option<Ipv6Net>,
    /// Where the registry is reached.
    pub address: RegistryAddress,
    /// Bits of the prefixes handed out.
    pub prefix_length: u8,
    /// Numbers that steer the nodes.
    pub parameters: Parameters,
    /// How long a node's certificate is good, in seconds.
    pub certificate_life_s: i64,
    /// How long an announcement is kept, in seconds.
    pub announcement_ttl_s: i64,
    /// How long after its end a certificate can still be renewed, and its prefix rests, in seconds.
    pub grace_s: i64,
    /// Whether private addresses may be announced.
    pub private_endpoints: bool,
    /// Where the key of a root above the CA is left; `None`: the CA has none.
    pub offline_root: Option<PathBuf>,
}

/// What could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// There is a registry already.
    #[error("{} exists: there is a registry already, and nothing was changed", path.display())]
    Exists {
        /// What was found.
        path: PathBuf,
    },
    /// No registry here.
    #[error("there is no registry at {} (make one with `warren registry init`)", path.display())]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `registry.json` is not good.
    #[error("{}: {why}", path.display())]
    Bad {
        /// Which file.
        path: PathBuf,
        /// In words.
        why: String,
    },
    /// It runs.
    #[error("the registry runs: stop it first (somebody listens at {})", path.display())]
    Running {
        /// Its socket.
        path: PathBuf,
    },
    /// A range that no network can have.
    #[error(
        "the network {network} must have 16 to 64 bits, no bits set after them, and room for prefixes"
    )]
    Network {
        /// What was asked for.
        network: Ipv6Net,
    },
    /// A root is made once.
    #[error("there is a root in {} already, and nothing was changed", path.display())]
    RootExists {
        /// Its folder.
        path: PathBuf,
    },
    /// No root, or none with its key.
    #[error("there is no root in {}: root.crt or root.key is missing", path.display())]
    NoRoot {
        /// The folder.
        path: PathBuf,
    },
    /// A root certifies nothing that would be older than what it certified before.
    #[error("the root in {} certified a CA later than now: set the clock", path.display())]
    Clock {
        /// Its folder.
        path: PathBuf,
    },
    /// A number out of range.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Keys or certificates.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The database.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl SettingsError {
    /// Whether rights were missing.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Puts settings in the place of those on the disk, all at once.
///
/// # Errors
/// They could not be written.
pub(crate) fn replace(places: &Places, settings: &Settings) -> Result<(), SettingsError> {
    crate::files::replace(&places.etc.join(FILE), &json(settings)?)
}

/// The settings' name.
const FILE: &str = "registry.json";

pub(crate) fn address_of(
    places: &Places,
    settings: &Settings,
) -> Result<RegistryAddress, SettingsError> {
    RegistryAddress::parse(&settings.address, wire::registry::PORT).map_err(|error| {
        SettingsError::Bad {
            path: places.etc.join(FILE),
            why: error.to_string(),
        }
    })
}

/// Makes a network: keys, certificates, database, first documents. Returns its range.
///
/// # Errors
/// There is one already, a value is out of range, or something could not be written.
pub fn init(places: &Places, new: &NewNetwork, now_s: i64) -> Result<Ipv6Net, SettingsError> {
    let range = match new.network {
        Some(range) => range,
        None => random_network()?,
    };
    let fits = u32::from(range.prefix_len()) + u32::from(new.prefix_length) <= 127;
    if Network::new(range).is_none() || !(1..=32).contains(&new.prefix_length) || !fits {
        return Err(SettingsError::Network { network: range });
    }
    let document = NetworkDocument {
        kind: Kind::Network,
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
    };
    document.check()?;
    let settings = Settings {
        version: 1,
        address: new.address.to_string(),
        prefix_length: new.prefix_length,
        certificate_life_s: new.certificate_life_s,
        announcement_ttl_s: new.announcement_ttl_s,
        grace_s: new.grace_s,
        authority: 1,
        other_authority: None,
        barred: Vec::new(),
    };
    let settings_file = places.etc.join(FILE);
    let all = FILES.iter().map(|name| places.etc.join(name));
    let mut all = all.chain([settings_file.clone(), database(places)]);
    if let Some(path) = all.find(|path| path.exists()) {
        return Err(SettingsError::Exists { path });
    }
    private_folder(&places.etc)?;
    private_folder(&places.state)?;
    let ca = match &new.offline_root {
        None => NewCa::alone(range, 1, now_s)?,
        Some(folder) => NewCa::below(&OfflineRoot::make(folder, range, now_s)?, now_s)?,
    };
    let made = Credentials::make(ca, &[new.address.host().to_owned()], now_s)?;
    write_credentials(places, 1, &made)?;
    let authority = Authority::load((1, &made), None)?;
    let mut storage = open_database(places, &settings)?;
    let revocations = Revocations {
        kind: Kind::Revocations,
        version: 1,
        revoked: Vec::new(),
        authorities: Vec::new(),
    };
    keep(&mut storage, &authority, Kind::Network, 1, &document)?;
    keep(&mut storage, &authority, Kind::Revocations, 1, &revocations)?;
    // Last, since its presence says that all is there.
    write_new(&settings_file, &json(&settings)?)?;
    Ok(range)
}

/// Where the database lies.
pub(crate) fn database(places: &Places) -> PathBuf {
    places.state.join("registry.sqlite")
}

fn open_database(places: &Places, settings: &Settings) -> Result<Sqlite, SettingsError> {
    let path = database(places);
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

fn json<T: Serialize>(value: &T) -> Result<String, SettingsError> {
    let shape = |error: serde_json::Error| DocumentError::Shape {
        what: "signed",
        why: error.to_string(),
    };
    Ok(serde_json::to_string_pretty(value).map_err(shape)?)
}

/// Signs a document and keeps it.
pub(crate) fn keep<T: Serialize>(
    storage: &mut dyn Storage,
    authority: &Authority,
    kind: Kind,
    version: u64,
    document: &T,
) -> Result<SignedDocument, SettingsError> {
    let shape = |error: serde_json::Error| DocumentError::Shape {
        what: "signed",
        why: error.to_string(),
    };
    let signed = authority.sign_document(&serde_json::to_vec(document).map_err(shape)?)?;
    storage.keep_document(kind, version, &json(&signed)?)?;
    Ok(signed)
}

/// A registry's files, read and checked.
pub struct Opened {
    /// What `init` was told.
    pub settings: Settings,
    /// Where its files lie.
    pub places: Places,
    /// Its address, read.
    pub address: RegistryAddress,
    /// Keys and certificates.
    pub(crate) authorities: Authorities,
    /// The database.
    pub storage: Sqlite,
}

/// Opens a registry that `init` made.
///
/// # Errors
/// There is none, or something of it cannot be read or is not sound.
pub fn open(places: &Places) -> Result<Opened, SettingsError> {
    let settings = read_settings(places)?;
    let address = address_of(places, &settings)?;
    let authorities = authorities(places, &settings)?;
    let storage = open_database(places, &settings)?;
    Ok(Opened {
        settings,
        places: places.clone(),
        address,
        authorities,
        storage,
    })
}

/// Reads and checks `registry.json`.
pub(crate) fn read_settings(places: &Places) -> Result<Settings, SettingsError> {
    let file = places.etc.join(FILE);
    let bad = |why: String| SettingsError::Bad {
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
