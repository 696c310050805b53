//! Builds the list of pinned nodes.

use super::View;
use wire::control::PinEntry;

impl View<'_> {
    pub(super) fn pins(&self) -> Vec<PinEntry> {
        let entry = |node: &policies::names::Prefix| PinEntry {
            prefix: node.to_string(),
            name: self.name(*node),
        };
        self.node.pins.iter().map(entry).collect()
    }
}
