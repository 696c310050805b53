//! The offline root: a CA that certifies the signing CAs and nothing else. Its key is in a folder of its own.
//!
//! Only the commands `warren registry init`, `certify` and `rotate-ca` with `--offline-root` open that folder; a
//! running registry never does.

use super::{
    PkiError,
    certificates::{CA_LIFE_S, Parsed, make, new_key, online_ca_params, root_params},
    credentials::NewCa,
    issuer::CertificateIssuer,
    private_key::read_key,
    random,
    request::ProvenKey,
};
use crate::clock::UnixSeconds;
use crate::files::{FileError, io_error, private_folder, read, write_new};
use ipnet::Ipv6Net;
use rcgen::{KeyPair, PublicKeyData, SerialNumber, SubjectPublicKeyInfo};
use std::{
    fs,
    path::{Path, PathBuf},
};
use wire::{
    chain::{self, IntermediateCa},
    overlay::Network,
    signed::hex,
};

/// The file of the root's certificate, which is no secret.
const CERTIFICATE: &str = "root.crt";

/// Serial numbers that are drawn for a CA that follows another in one second, until one is greater. All are smaller in one
/// case of a thousand.
const SERIAL_DRAWS: usize = 1_000;

/// The file of the root's key.
const KEY: &str = "root.key";

/// The reason why a root cannot be created, opened or used.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The folder holds a root already.
    #[error("there is a root in {} already, and nothing was changed", path.display())]
    Exists {
        /// The folder of the root.
        path: PathBuf,
    },
    /// The folder holds no root, or only its certificate.
    #[error("there is no root in {}: root.crt or root.key is missing", path.display())]
    Missing {
        /// The folder of the root.
        path: PathBuf,
    },
    /// The clock is behind the time at which the root certified its last CA.
    #[error("the root in {} has certified a CA at a later time than now: correct the clock", path.display())]
    Clock {
        /// The folder of the root.
        path: PathBuf,
    },
    /// No network can have this range.
    #[error("no network can have the range {network}")]
    Network {
        /// The range that was requested.
        network: Ipv6Net,
    },
    /// A file of the root cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key or certificate cannot be created or read.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// A root, with its key.
pub struct OfflineRoot {
    folder: PathBuf,
    pem: String,
    parsed: Parsed,
    network: Network,
    issuer: CertificateIssuer,
}

impl OfflineRoot {
    /// Returns whether the folder holds a root, or a part of one.
    pub fn exists(folder: &Path) -> bool {
        [CERTIFICATE, KEY]
            .iter()
            .any(|name| folder.join(name).symlink_metadata().is_ok())
    }

    /// Creates a root for a network, in a folder that has none.
    ///
    /// # Errors
    /// The folder has a root, or the root could not be created or written.
    pub fn make(folder: &Path, network: Ipv6Net, now: UnixSeconds) -> Result<Self, RootError> {
        if Self::exists(folder) {
            return Err(RootError::Exists {
                path: folder.to_owned(),
            });
        }
        if Network::new(network).is_none() {
            return Err(RootError::Network { network });
        }
        private_folder(folder)?;
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(make("a key"))?;
        let root = root_params(network, now)?
            .self_signed(&key)
            .map_err(make("the root"))?;
        write_new(&folder.join(KEY), &key.serialize_pem())?;
        write_new(&folder.join(CERTIFICATE), &root.pem())?;
        Self::open(folder)
    }

    /// Opens the root in a folder.
    ///
    /// # Errors
    /// The folder has no root, or the root cannot be read.
    pub fn open(folder: &Path) -> Result<Self, RootError> {
        let (path, key_path) = (folder.join(CERTIFICATE), folder.join(KEY));
        let read = |path: &Path| match read(path) {
            Err(FileError::Missing { .. }) => Err(RootError::Missing {
                path: folder.to_owned(),
            }),
            outcome => Ok(outcome?),
        };
        let pem = read(&path)?;
        let bad = |why: &str| FileError::Bad {
            path: path.clone(),
            why: why.to_owned(),
        };
        let parsed = Parsed::read(&pem, "the root").map_err(|error| bad(&error.to_string()))?;
        let network = parsed
            .network()
            .ok_or_else(|| bad("its serial number encodes no network"))?;
        let key = read_key(&read(&key_path)?).map_err(|fault| FileError::Bad {
            path: key_path,
            why: fault.to_string(),
        })?;
        let issuer = CertificateIssuer::new(&pem, key)?;
        Ok(Self {
            folder: folder.to_owned(),
            pem,
            parsed,
            network,
            issuer,
        })
    }

    /// Returns the certificate of the root in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Returns the network whose CAs the root certifies.
    pub fn network(&self) -> Network {
        self.network
    }

    /// Certifies a CA with this key; returns its certificate in PEM, and leaves a copy in the folder. The CA expires
    /// after ten years, but no later than the root.
    ///
    /// The serial number begins with the time, so that a later CA has a greater one. Nodes prefer the CA with the
    /// greater serial number.
    ///
    /// # Errors
    /// The clock is behind the time of the last CA, or the certificate could not be created or written.
    pub fn certify(&self, key: &ProvenKey, now: UnixSeconds) -> Result<String, RootError> {
        let serial = self.next_serial(now)?;
        let not_after = now.saturating_add_s(CA_LIFE_S).min(self.parsed.not_after);
        let mut ca = online_ca_params(self.network.range(), now, not_after)?;
        ca.serial_number = Some(SerialNumber::from_slice(&serial));
        let key = SubjectPublicKeyInfo::from_der(&key.spki).map_err(make("use of the CA's key"))?;
        let certificate = self.issuer.sign(&ca, &key, "the CA")?;
        // No CA is certified that nodes would reject, whoever made the root.
        let der = Parsed::read(&certificate, "the CA")?.der;
        chain::verify_intermediate(&der, &[&self.parsed.der], now.0).map_err(|error| {
            PkiError::UnusableCa {
                why: format!("the root cannot certify it: {error}"),
            }
        })?;
        write_new(
            &self.folder.join(format!("ca-{}.crt", hex(&serial))),
            &certificate,
        )?;
        Ok(certificate)
    }

    /// Draws a serial number that is greater than those of all CAs before, of which one may be of the same second.
    fn next_serial(&self, now: UnixSeconds) -> Result<[u8; 17], RootError> {
        let certified = self.certified()?;
        for _ in 0..SERIAL_DRAWS {
            let serial = serial(now)?;
            let number = IntermediateCa {
                serial: hex(&serial).trim_start_matches('0').to_owned(),
            };
            if certified.iter().all(|before| *before < number) {
                return Ok(serial);
            }
        }
        Err(RootError::Clock {
            path: self.folder.clone(),
        })
    }

    /// Creates a CA below this root, with a new key.
    pub(crate) fn new_ca(&self, now: UnixSeconds) -> Result<NewCa, RootError> {
        let key = new_key()?;
        let certificate = self.certify(
            &ProvenKey {
                spki: key.subject_public_key_info(),
            },
            now,
        )?;
        Ok(NewCa {
            certificate,
            key,
            root: self.pem().to_owned(),
        })
    }

    /// Returns the CAs that the root has certified, according to the copies in the folder.
    fn certified(&self) -> Result<Vec<IntermediateCa>, RootError> {
        let failed = io_error("read", &self.folder);
        let entries = fs::read_dir(&self.folder).map_err(&failed)?;
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(&failed)?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if name.starts_with("ca-") {
                let bad = |why: String| FileError::Bad {
                    path: path.clone(),
                    why,
                };
                let chain = chain::read_pem(read(&path)?.as_bytes())
                    .map_err(|error| bad(error.to_string()))?;
                let ca = chain.first().map_or(&[][..], Vec::as_slice);
                found.push(chain::number_of(ca).map_err(|error| bad(error.to_string()))?);
            }
        }
        Ok(found)
    }
}

/// Returns a serial number of 17 octets, more than any other certificate of a network has: the octet 1, the time in
/// seconds (8 octets), and 64 random bits.
fn serial(now: UnixSeconds) -> Result<[u8; 17], PkiError> {
    let mut serial = [1; 17];
    let parts = now.0.to_be_bytes().into_iter().chain(random::<8>()?);
    serial
        .iter_mut()
        .skip(1)
        .zip(parts)
        .for_each(|(place, byte)| *place = byte);
    Ok(serial)
}
