//! Looks up which mappings a UPnP gateway shows.

use super::{Service, code, protocol};
use crate::sources::port_mapping::gateway::{Effort, Entry, Lookup};
use policies::names::Transport;
use std::{cell::RefCell, time::Duration};
use tokio::time::timeout;
use wire::upnp::ActionResponse;

/// Maximum number of entries that are read of a gateway's table.
const MAX_ENTRIES: u32 = 128;
/// Maximum duration of reading the table; some gateways take a second for each entry.
const TABLE_TIMEOUT: Duration = Duration::from_secs(3);
/// The port of the service *discard*, which nobody maps.
const DISCARD_PORT: u16 = 9;

/// A row of the gateway's table: where it is, and what it shows.
type TableRow = ((Transport, u16), Entry);

impl Service {
    /// Looks up the mappings at these ports, one by one, or else in the table.
    pub(super) async fn look_up_places(
        &self,
        ports: &[(Transport, u16)],
        effort: Effort,
    ) -> Vec<Lookup> {
        if ports.is_empty() {
            return Vec::new();
        }
        if self.shows_single_mappings().await {
            let mut found = Vec::new();
            for port in ports {
                found.push(self.look_up_single(*port).await);
            }
            return found;
        }
        if effort == Effort::Quick {
            return vec![Lookup::Unknown; ports.len()];
        }
        let (table, is_complete) = self.read_table().await;
        let in_table = |port: &(Transport, u16)| {
            let row = table.iter().find(|(place, _)| place == port);
            match row {
                Some((_, entry)) => Lookup::Taken(entry.clone()),
                None if is_complete => Lookup::Free,
                None => Lookup::Unknown,
            }
        };
        ports.iter().map(in_table).collect()
    }

    /// Requests one mapping by the action made for it.
    async fn request_single(
        &self,
        (transport, port): (Transport, u16),
    ) -> std::io::Result<ActionResponse> {
        let arguments = [
            ("NewRemoteHost", ""),
            ("NewExternalPort", &*port.to_string()),
            ("NewProtocol", &*protocol(transport).to_string()),
        ];
        self.request("GetSpecificPortMappingEntry", &arguments)
            .await
    }

    /// Whether the gateway shows single mappings: it must not show one at a port that nobody maps.
    async fn shows_single_mappings(&self) -> bool {
        if let Some(shows) = self.shows_single_mappings.get() {
            return shows;
        }
        let answer = self.request_single((Transport::Udp, DISCARD_PORT)).await;
        let shows = matches!(answer, Ok(ActionResponse::Fault(code::NO_SUCH_ENTRY)));
        // A request without an answer is repeated the next time.
        if answer.is_ok() {
            self.shows_single_mappings.set(Some(shows));
        }
        shows
    }

    /// Looks up one mapping.
    async fn look_up_single(&self, place: (Transport, u16)) -> Lookup {
        match self.request_single(place).await {
            Ok(ActionResponse::Fault(code::NO_SUCH_ENTRY)) => Lookup::Free,
            Ok(response) => entry(&response).map_or(Lookup::Unknown, Lookup::Taken),
            Err(error) => {
                tracing::debug!(%error, "the gateway does not show a mapping");
                Lookup::Unknown
            }
        }
    }

    /// Reads the table. Returns the entries that can be read, and whether its end was reached.
    async fn read_table(&self) -> (Vec<TableRow>, bool) {
        let rows = RefCell::new(Vec::new());
        let reading = async {
            for index in 0..MAX_ENTRIES {
                let arguments = [("NewPortMappingIndex", &*index.to_string())];
                match self.request("GetGenericPortMappingEntry", &arguments).await {
                    Ok(ActionResponse::Fault(code::NO_SUCH_INDEX)) => return true,
                    // Gateways report the end of the table by other errors, too, but an error may as well mean a fault.
                    Ok(ActionResponse::Fault(_)) | Err(_) => return false,
                    Ok(response) => rows.borrow_mut().extend(table_row(&response)),
                }
            }
            false
        };
        let is_complete = timeout(TABLE_TIMEOUT, reading).await.unwrap_or(false);
        (rows.into_inner(), is_complete)
    }
}

/// Returns what a response shows of a mapping; `None` if it lacks where the mapping leads to.
fn entry(response: &ActionResponse) -> Option<Entry> {
    let lease_s = response
        .field("NewLeaseDuration")
        .and_then(|lease| lease.parse().ok())
        .unwrap_or(0);
    let description = response.field("NewPortMappingDescription");
    let client = response.field("NewInternalClient");
    let client = client.filter(|client| !client.is_empty())?;
    Some(Entry {
        client: client.to_owned(),
        internal_port: response.field("NewInternalPort")?.parse().ok()?,
        description: description.unwrap_or_default().to_owned(),
        remaining: (lease_s > 0).then(|| Duration::from_secs(lease_s)),
    })
}

/// Returns an entry of the table with its place; `None` if it cannot be read.
fn table_row(response: &ActionResponse) -> Option<TableRow> {
    let transport = response.field("NewProtocol")?.to_ascii_lowercase();
    let place = (
        transport.parse().ok()?,
        response.field("NewExternalPort")?.parse().ok()?,
    );
    Some((place, entry(response)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(fields: &[(&str, &str)]) -> ActionResponse {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        ActionResponse::Done {
            name: "GetGenericPortMappingEntryResponse".to_owned(),
            fields: fields.iter().map(owned).collect(),
        }
    }

    #[test]
    fn an_entry_is_read_if_it_says_where_it_is_and_where_it_leads() {
        let fields = [
            ("NewExternalPort", "3074"),
            ("NewProtocol", "udp"),
            ("NewInternalPort", "80"),
            ("NewInternalClient", "192.168.1.9"),
            ("NewEnabled", "yes"),
        ];
        let (place, entry) = table_row(&response(&fields)).unwrap();
        assert_eq!(place, (Transport::Udp, 3074));
        assert_eq!(
            (entry.client.as_str(), entry.internal_port),
            ("192.168.1.9", 80)
        );
        assert_eq!((entry.description.as_str(), entry.remaining), ("", None));
        let mut empty = fields;
        empty[3].1 = "";
        assert_eq!(table_row(&response(&empty)), None);
        for missing in 0..4 {
            let mut fewer = fields.to_vec();
            fewer.remove(missing);
            assert_eq!(table_row(&response(&fewer)), None);
        }
    }
}
