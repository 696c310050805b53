//! Stores on disk the port mappings that were requested from gateways, so that a later run can remove those that are left.
//!
//! The keeper writes each mapping before it requests it.

use super::protocol::Protocol;
use files::Access;
use policies::names::Transport;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io,
    marker::PhantomData,
    net::SocketAddrV4,
    path::{Path, PathBuf},
};

/// Maximum number of bytes that are read from a ledger.
const MAX_LEDGER_BYTES: u64 = 64 * 1024;

/// A mapping that was requested, or was about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mapping {
    /// The port on the gateway.
    pub external_port: u16,
    /// The address and port on this host.
    pub internal: SocketAddrV4,
    /// UDP or TCP.
    #[serde(with = "text")]
    pub transport: Transport,
    /// The protocol by which it was requested.
    #[serde(default)]
    pub protocol: Protocol,
    /// The nonce of PCP, without which nobody can renew or remove the mapping (RFC 6887, section 11.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<[u32; 3]>,
}

impl Mapping {
    /// Returns the transport and the port on the gateway, by which a mapping is looked up.
    pub fn external_port_key(&self) -> (Transport, u16) {
        (self.transport, self.external_port)
    }

    /// Whether both have the same ports, address and protocol.
    pub fn is_same(&self, other: &Self) -> bool {
        let parts = |mapping: &Self| {
            (
                mapping.external_port_key(),
                mapping.internal,
                mapping.protocol,
            )
        };
        parts(self) == parts(other)
    }
}

#[derive(Serialize, Deserialize)]
struct Document<T> {
    version: u32,
    mappings: Vec<T>,
}

pub(in crate::sources) mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::{fmt::Display, str::FromStr};

    pub(in crate::sources) fn serialize<T: Display, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(in crate::sources) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// The ledger cannot be read or written; without it, no mapping is requested.
#[derive(Debug, thiserror::Error)]
#[error("cannot read or write the lease ledger {}", path.display())]
pub struct LedgerError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Where a keeper records mappings: a file, or a test's fake.
pub trait Ledger: 'static {
    /// Returns the recorded mappings.
    fn read(&self) -> impl Future<Output = Result<Vec<Mapping>, LedgerError>>;

    /// Replaces the recorded mappings.
    fn write(&self, mappings: Vec<Mapping>) -> impl Future<Output = Result<(), LedgerError>>;
}

/// A ledger in a file, in an existing folder. Other threads read and write it, since a slow disk must not block the actors.
#[derive(Clone, Debug)]
pub struct FileLedger<T = Mapping>(PathBuf, PhantomData<T>);

impl<T: Serialize + DeserializeOwned + Send + 'static> FileLedger<T> {
    /// The ledger at this path.
    pub fn new(path: PathBuf) -> Self {
        Self(path, PhantomData)
    }

    /// Returns the recorded entries.
    ///
    /// # Errors
    /// The thread that reads them panicked.
    pub async fn entries(&self) -> Result<Vec<T>, LedgerError> {
        self.run_blocking(|path| Ok(read(path))).await
    }

    /// Replaces the recorded entries.
    ///
    /// # Errors
    /// The disk cannot be written.
    pub async fn replace(&self, entries: Vec<T>) -> Result<(), LedgerError> {
        self.run_blocking(move |path| write(path, &entries)).await
    }

    async fn run_blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> io::Result<R> + Send + 'static,
    ) -> Result<R, LedgerError> {
        let path = self.0.clone();
        let result = tokio::task::spawn_blocking(move || work(&path)).await;
        let result = result.map_err(io::Error::other).flatten();
        result.map_err(|source| LedgerError {
            path: self.0.clone(),
            source,
        })
    }
}

impl Ledger for FileLedger {
    async fn read(&self) -> Result<Vec<Mapping>, LedgerError> {
        self.entries().await
    }

    async fn write(&self, mappings: Vec<Mapping>) -> Result<(), LedgerError> {
        self.replace(mappings).await
    }
}

/// Reads the ledger. A missing file counts as empty; a bad one is set aside and counts as empty, too.
pub fn read<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let consequence = "port mappings of earlier runs stay on the router until they expire";
    let parse = |text: &[u8]| match serde_json::from_slice::<Document<T>>(text) {
        Ok(Document {
            version: 1,
            mappings,
        }) => Ok(mappings),
        Ok(_) => Err("it has another version than 1".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    files::load(path, MAX_LEDGER_BYTES, consequence, parse).unwrap_or_default()
}

/// Replaces the ledger atomically and durably: even after a crash, it is completely the old one or the new one.
///
/// # Errors
/// The disk cannot be written.
pub fn write<T: Serialize>(path: &Path, mappings: &[T]) -> io::Result<()> {
    let document = Document {
        version: 1,
        mappings: mappings.iter().collect(),
    };
    let text = serde_json::to_vec(&document)?;
    files::replace(path, &text, Access::ours(0o600))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn mapping(external_port: u16) -> Mapping {
        let internal = "192.168.1.2:1194".parse().unwrap();
        Mapping {
            transport: Transport::Udp,
            external_port,
            internal,
            protocol: Protocol::Pcp,
            nonce: Some([1, 2, u32::MAX]),
        }
    }

    #[track_caller]
    fn check(path: &Path, expected: &[Mapping]) {
        assert_eq!(read::<Mapping>(path), expected);
    }

    #[test]
    fn written_mappings_are_read_and_a_missing_ledger_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leases.json");
        check(&path, &[]);
        write(&path, &[mapping(1), mapping(2)]).unwrap();
        check(&path, &[mapping(1), mapping(2)]);
        write::<Mapping>(&path, &[]).unwrap();
        check(&path, &[]);
    }

    #[test]
    fn a_ledger_without_protocols_is_one_of_upnp() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leases.json");
        let mapping = Mapping {
            protocol: Protocol::Upnp,
            nonce: None,
            ..mapping(1)
        };
        let entry = r#"{"external_port":1,"internal":"192.168.1.2:1194","transport":"udp"}"#;
        fs::write(&path, format!(r#"{{"version":1,"mappings":[{entry}]}}"#)).unwrap();
        check(&path, &[mapping]);
    }

    #[test]
    fn a_bad_ledger_is_set_aside_and_counts_as_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leases.json");
        for broken in [
            "",
            "{",
            r#"{"version":2,"mappings":[]}"#,
            r#"{"version":1,"mappings":[{}]}"#,
        ] {
            fs::write(&path, broken).unwrap();
            check(&path, &[]);
            assert!(!path.exists());
            assert_eq!(fs::read_to_string(files::aside(&path)).unwrap(), broken);
        }
    }
}
