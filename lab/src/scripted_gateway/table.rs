//! The table of mappings of a scripted gateway, and how it shows them.

use super::faults::{DescriptionFault, ForeignEntry, GatewayFaults, LeaseFault, ListFault};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A client of the gateway that no node is.
const OTHER_CLIENT: &str = "192.168.77.9";
/// The first port of the entries of other clients.
const FIRST_FOREIGN_PORT: u16 = 20_000;

/// A port mapping.
#[derive(Clone, Debug)]
struct Entry {
    client: String,
    internal_port: String,
    description: String,
    requested_seconds: u32,
    expiry: Option<Instant>,
}

/// A request to map a port.
pub(super) struct MappingRequest {
    pub(super) protocol: String,
    pub(super) external_port: u16,
    pub(super) client: String,
    pub(super) internal_port: String,
    pub(super) description: String,
    pub(super) seconds: u32,
}

/// All mappings, and what was requested.
pub(super) struct Table {
    rows: BTreeMap<(String, u16), Entry>,
    pub(super) external: String,
    /// The number of requests to map a port.
    pub(super) requests: usize,
}

impl Table {
    pub(super) fn new(faults: &GatewayFaults) -> Self {
        let entry = |port: u16| Entry {
            client: OTHER_CLIENT.to_owned(),
            internal_port: port.to_string(),
            description: "game".to_owned(),
            requested_seconds: 0,
            expiry: None,
        };
        let ports = (FIRST_FOREIGN_PORT..).take(usize::from(faults.foreign_entries));
        let rows = ports.map(|port| (("UDP".to_owned(), port), entry(port)));
        Self {
            rows: rows.collect(),
            external: faults.external.to_owned(),
            requests: 0,
        }
    }

    pub(super) fn clear(&mut self, external: &str) {
        self.rows.clear();
        external.clone_into(&mut self.external);
    }

    pub(super) fn own_rows(&mut self) -> Vec<String> {
        self.remove_expired();
        let own = self
            .rows
            .iter()
            .filter(|(_, entry)| entry.client != OTHER_CLIENT);
        own.map(|((protocol, port), entry)| {
            let (client, internal_port) = (&entry.client, &entry.internal_port);
            format!("{protocol} {port} to {client}:{internal_port}")
        })
        .collect()
    }

    fn remove_expired(&mut self) {
        let now = Instant::now();
        self.rows
            .retain(|_, entry| entry.expiry.is_none_or(|expiry| expiry > now));
    }

    /// Maps a port.
    ///
    /// # Errors
    /// The error code with which the gateway rejects the request.
    pub(super) fn add(
        &mut self,
        request: MappingRequest,
        faults: &GatewayFaults,
    ) -> Result<(), u16> {
        self.requests += 1;
        self.remove_expired();
        if let Some(code) = faults.rejects_all {
            return Err(code);
        }
        let mut seconds = request.seconds;
        match faults.lease {
            Some(LeaseFault::Rejected(code)) if seconds > 0 => return Err(code),
            Some(LeaseFault::AtMost(limit)) if seconds > 0 => seconds = seconds.min(limit),
            _ => {}
        }
        let (conflicts, code) = faults.conflicts;
        if self.requests <= conflicts {
            return Err(code);
        }
        let key = (request.protocol, request.external_port);
        let existing = self.rows.get(&key);
        if existing.is_some_and(|entry| entry.client != request.client) {
            return Err(718);
        }
        let description = match faults.description {
            None => request.description,
            Some(DescriptionFault::Cut(length)) => {
                request.description.chars().take(length).collect()
            }
            Some(DescriptionFault::Replaced(text)) => text.to_owned(),
        };
        let lifetime = Duration::from_secs(seconds.into());
        let entry = Entry {
            client: request.client,
            internal_port: request.internal_port,
            description,
            requested_seconds: request.seconds,
            expiry: (seconds > 0).then(|| Instant::now() + lifetime),
        };
        self.rows.insert(key, entry);
        Ok(())
    }

    /// Removes a mapping.
    ///
    /// # Errors
    /// There is no such mapping.
    pub(super) fn remove(&mut self, protocol: &str, port: u16) -> Result<(), u16> {
        let removed = self.rows.remove(&(protocol.to_owned(), port));
        removed.map(drop).ok_or(714)
    }

    /// Returns the fields of the mapping at this port; `None` if there is none.
    pub(super) fn single(
        &mut self,
        protocol: &str,
        port: u16,
        faults: &GatewayFaults,
    ) -> Option<String> {
        self.remove_expired();
        let entry = self.rows.get(&(protocol.to_owned(), port))?;
        Some(entry.fields(faults))
    }

    /// Returns the fields of the entry with this index.
    ///
    /// # Errors
    /// The error code by which the list ends.
    pub(super) fn listed(&mut self, index: usize, faults: &GatewayFaults) -> Result<Vec<u8>, u16> {
        self.remove_expired();
        let mut rows: Vec<Vec<u8>> = faults.foreign.map(foreign_fields).into_iter().collect();
        rows.extend(self.rows.iter().map(|((protocol, port), entry)| {
            let place = field("NewRemoteHost", "")
                + &field("NewExternalPort", &port.to_string())
                + &field("NewProtocol", protocol);
            (place + &entry.fields(faults)).into_bytes()
        }));
        let end = match faults.list {
            Some(ListFault::Empty) => return Err(713),
            Some(ListFault::EndsBy(code)) => code,
            None => 713,
        };
        rows.get(index).cloned().ok_or(end)
    }
}

impl Entry {
    fn fields(&self, faults: &GatewayFaults) -> String {
        let remaining = self
            .expiry
            .map_or(0, |expiry| (expiry - Instant::now()).as_secs().max(1));
        let shown = match faults.lease {
            Some(LeaseFault::ShownAsRequested) => u64::from(self.requested_seconds),
            Some(LeaseFault::ShownAsPermanent) => 0,
            Some(LeaseFault::Rejected(_) | LeaseFault::AtMost(_)) | None => remaining,
        };
        field("NewInternalPort", &self.internal_port)
            + &field("NewInternalClient", &self.client)
            + &field("NewEnabled", "1")
            + &field("NewPortMappingDescription", &self.description)
            + &field("NewLeaseDuration", &shown.to_string())
    }
}

pub(super) fn field(name: &str, value: &str) -> String {
    format!("<{name}>{value}</{name}>")
}

/// The fields of a mapping of another client.
pub(super) fn another_client() -> Vec<u8> {
    let fields = field("NewInternalPort", "3074") + &field("NewInternalClient", OTHER_CLIENT);
    fields.into_bytes()
}

/// An entry of another client with what is unusual in it.
fn foreign_fields(kind: ForeignEntry) -> Vec<u8> {
    let description = match kind {
        ForeignEntry::Ampersand => "Tom & Jerry",
        ForeignEntry::Latin1 => "cam?ra",
        ForeignEntry::LowerCase
        | ForeignEntry::NoLease
        | ForeignEntry::EnabledWord
        | ForeignEntry::NoRemoteHost => "console",
    };
    let protocol = if matches!(kind, ForeignEntry::LowerCase) {
        "udp"
    } else {
        "UDP"
    };
    let enabled = if matches!(kind, ForeignEntry::EnabledWord) {
        "true"
    } else {
        "1"
    };
    let mut fields = String::new();
    if !matches!(kind, ForeignEntry::NoRemoteHost) {
        fields += &field("NewRemoteHost", "");
    }
    fields += &field("NewExternalPort", "3074");
    fields += &field("NewProtocol", protocol);
    fields += &field("NewInternalPort", "3074");
    fields += &field("NewInternalClient", OTHER_CLIENT);
    fields += &field("NewEnabled", enabled);
    fields += &field("NewPortMappingDescription", description);
    if !matches!(kind, ForeignEntry::NoLease) {
        fields += &field("NewLeaseDuration", "0");
    }
    let mut bytes = fields.into_bytes();
    if matches!(kind, ForeignEntry::Latin1) {
        // The letter é in ISO 8859-1.
        bytes
            .iter_mut()
            .filter(|byte| **byte == b'?')
            .for_each(|byte| *byte = 0xe9);
    }
    bytes
}
