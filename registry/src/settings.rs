//! A registry's settings and files: makes them once, and reads them at each start.

use crate::{
    authority::{Authority, AuthorityError, Credentials, random, random_network},
    sqlite::Sqlite,
    storage::{Storage, StorageError},
};
use ipnet::Ipv6Net;
use policies::parameters::Parameters;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};
use wire::{
    invitation::RegistryAddress,
    overlay::Network,
    registry::{DocumentError, Kind, NetworkDocument, Revocations, static_key_text},
    signed::hex,
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
    /// Whether private addresses may be announced.
    pub private_endpoints: bool,
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
    /// A range that no network can have.
    #[error("the network {network} must have 16 to 64 bits, no bits set after them, and room for prefixes")]
    Network {
        /// What was asked for.
        network: Ipv6Net,
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

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> SettingsError + 'a {
    move |source| SettingsError::Io { what, path: path.to_owned(), source }
}

/// Makes a folder with its parents; the last is 0700, those above keep the usual rights.
pub(crate) fn private_folder(path: &Path) -> Result<(), SettingsError> {
    let failed = io_error("make the folder", path);
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(&failed)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(&failed)
        }
        outcome => outcome.map_err(&failed),
    }
}

/// Writes a new file, 0600, down to the disk.
fn write_new(path: &Path, text: &str) -> Result<(), SettingsError> {
    let failed = io_error("write", path);
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(&failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(&failed)
}

fn read(path: &Path) -> Result<String, SettingsError> {
    fs::read_to_string(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => SettingsError::Missing { path: path.to_owned() },
        _ => SettingsError::Io { what: "read", path: path.to_owned(), source },
    })
}

const FILES: [&str; 6] = ["ca.crt", "ca.key", "signer.crt", "signer.key", "tls.crt", "tls.key"];

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
        min_version: None,
    };
    document.check()?;
    let settings = Settings {
        version: 1,
        address: new.address.to_string(),
        prefix_length: new.prefix_length,
        certificate_life_s: new.certificate_life_s,
        announcement_ttl_s: new.announcement_ttl_s,
    };
    let settings_file = places.etc.join("registry.json");
    let all = FILES.iter().map(|name| places.etc.join(name));
    let mut all = all.chain([settings_file.clone(), database(places)]);
    if let Some(path) = all.find(|path| path.exists()) {
        return Err(SettingsError::Exists { path });
    }
    private_folder(&places.etc)?;
    private_folder(&places.state)?;
    let made = Credentials::make(range, &[new.address.host().to_owned()], now_s)?;
    let texts = [&made.ca, &made.ca_key, &made.signer, &made.signer_key, &made.tls, &made.tls_key];
    for (name, text) in FILES.iter().zip(texts) {
        write_new(&places.etc.join(name), text)?;
    }
    let authority = Authority::load(&made)?;
    let mut storage = open_database(places, &settings)?;
    let revocations = Revocations { kind: Kind::Revocations, version: 1, revoked: Vec::new() };
    keep(&mut storage, &authority, Kind::Network, 1, &document)?;
    keep(&mut storage, &authority, Kind::Revocations, 1, &revocations)?;
    // Last, since its presence says that all is there.
    write_new(&settings_file, &json(&settings)?)?;
    Ok(range)
}

fn database(places: &Places) -> PathBuf {
    places.state.join("registry.sqlite")
}

fn open_database(places: &Places, settings: &Settings) -> Result<Sqlite, SettingsError> {
    let path = database(places);
    // SQLite would make it with the umask's rights.
    let file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    file.map_err(io_error("open", &path))?;
    Ok(Sqlite::open(&path, settings.prefix_length)?)
}

fn json<T: Serialize>(value: &T) -> Result<String, SettingsError> {
    let shape = |error: serde_json::Error| DocumentError::Shape { what: "signed", why: error.to_string() };
    Ok(serde_json::to_string_pretty(value).map_err(shape)?)
}

/// Signs a document and keeps it.
pub(crate) fn keep<T: Serialize>(
    storage: &mut dyn Storage,
    authority: &Authority,
    kind: Kind,
    version: u64,
    document: &T,
) -> Result<(), SettingsError> {
    let signed = authority.sign_document(json(document)?.as_bytes())?;
    Ok(storage.keep_document(kind, version, &json(&signed)?)?)
}

/// A registry's files, read and checked.
pub struct Opened {
    /// What `init` was told.
    pub settings: Settings,
    /// Its address, read.
    pub address: RegistryAddress,
    /// Keys and certificates.
    pub credentials: Credentials,
    /// The CA at work.
    pub authority: Authority,
    /// The database.
    pub storage: Sqlite,
}

/// Opens a registry that `init` made.
///
/// # Errors
/// There is none, or something of it cannot be read or is not sound.
pub fn open(places: &Places) -> Result<Opened, SettingsError> {
    let file = places.etc.join("registry.json");
    let bad = |why: String| SettingsError::Bad { path: file.clone(), why };
    let settings: Settings = serde_json::from_str(&read(&file)?).map_err(|error| bad(error.to_string()))?;
    if settings.version != 1 {
        return Err(bad(format!("version {} is not 1", settings.version)));
    }
    if !(1..=32).contains(&settings.prefix_length) {
        return Err(bad(format!("prefix_length {} is not in 1..=32", settings.prefix_length)));
    }
    if settings.certificate_life_s < 1 || settings.announcement_ttl_s < 1 {
        return Err(bad("certificate_life_s and announcement_ttl_s must be 1 and more".into()));
    }
    let address = RegistryAddress::parse(&settings.address, wire::registry::PORT)
        .map_err(|error| bad(error.to_string()))?;
    let [ca, ca_key, signer, signer_key, tls, tls_key] = FILES.map(|name| read(&places.etc.join(name)));
    let credentials = Credentials {
        ca: ca?,
        ca_key: ca_key?,
        signer: signer?,
        signer_key: signer_key?,
        tls: tls?,
        tls_key: tls_key?,
    };
    let authority = Authority::load(&credentials)?;
    let storage = open_database(places, &settings)?;
    Ok(Opened { settings, address, credentials, authority, storage })
}
