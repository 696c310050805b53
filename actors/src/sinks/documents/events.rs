//! Builds the document of what changed lately.

use super::View;
use crate::sinks::telemetry::EventRecord;
use wire::control::{EventEntry, EventsDocument, VERSION};

impl View<'_> {
    pub(crate) fn events(&self, after: u64) -> EventsDocument {
        let log = &self.node.events;
        let after = if after > log.newest() { 0 } else { after };
        let entry = |record: &EventRecord| EventEntry {
            version: VERSION,
            number: record.number,
            at: self.wall_time(record.at),
            tunnel: record.slot.map(|slot| slot.to_string()),
            node: record.node.map(|node| node.to_string()),
            node_name: record.node.and_then(|node| self.name(node)),
            event: record.event.clone(),
        };
        EventsDocument {
            version: VERSION,
            at: self.wall_time(self.now),
            started_at: self.wall_time(self.node.identity.started),
            newest: log.newest(),
            events: log.after(after).map(entry).collect(),
        }
    }
}
