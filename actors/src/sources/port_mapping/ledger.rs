//! Remembers, on disk, the port mappings that we asked gateways for, so that a later run can remove
//! what this one left behind. Written before a mapping is asked for; knows nothing of gateways.

use policies::names::Transport;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, Read, Write},
    net::SocketAddrV4,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use wire::errors::some_if_found;

/// Most bytes of a ledger that are read.
const LIMIT: u64 = 64 * 1024;

/// A mapping that was, or was about to be, asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mapping {
    /// The gateway's port.
    pub external_port: u16,
    /// Our address and port.
    pub internal: SocketAddrV4,
    /// UDP or TCP.
    #[serde(with = "text")]
    pub transport: Transport,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    mappings: Vec<Mapping>,
}

mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::{fmt::Display, str::FromStr};

    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// Reads the ledger; a missing one is empty, a broken one is set aside as `NAME.broken`.
///
/// # Errors
/// The file is there but cannot be read or set aside.
pub fn read(path: &Path) -> io::Result<Vec<Mapping>> {
    let mut bytes = Vec::new();
    let Some(file) = some_if_found(fs::File::open(path))? else {
        return Ok(Vec::new());
    };
    file.take(LIMIT).read_to_end(&mut bytes)?;
    match serde_json::from_slice::<Document>(&bytes) {
        Ok(Document {
            version: 1,
            mappings,
        }) => Ok(mappings),
        Ok(_) | Err(_) => {
            let aside = beside(path, ".broken");
            tracing::warn!(path = %path.display(), aside = %aside.display(), "broken lease ledger set aside");
            fs::rename(path, aside).map(|()| Vec::new())
        }
    }
}

/// Replaces the ledger durably: after a crash it is the old one or the new one, whole.
///
/// # Errors
/// The disk refused.
pub fn write(path: &Path, mappings: &[Mapping]) -> io::Result<()> {
    let document = Document {
        version: 1,
        mappings: mappings.to_vec(),
    };
    let new = beside(path, ".new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&serde_json::to_vec(&document)?)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent()
        .map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(external_port: u16) -> Mapping {
        let internal = "192.168.1.2:1194".parse().unwrap();
        Mapping {
            transport: Transport::Udp,
            external_port,
            internal,
        }
    }

    #[track_caller]
    fn check(path: &Path, expected: &[Mapping]) {
        assert_eq!(read(path).unwrap(), expected);
    }

    #[test]
    fn what_was_written_is_read_and_a_missing_ledger_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leases.json");
        check(&path, &[]);
        write(&path, &[mapping(1), mapping(2)]).unwrap();
        check(&path, &[mapping(1), mapping(2)]);
        write(&path, &[]).unwrap();
        check(&path, &[]);
    }

    #[test]
    fn a_broken_ledger_is_set_aside_and_created_again() {
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
            assert_eq!(
                fs::read_to_string(beside(&path, ".broken")).unwrap(),
                broken
            );
        }
    }
}
