//! Keeps the lengths of prefixes in the network document complete, since nodes accept no routes to ranges of other lengths.

use super::{RegistryService, error::ServiceError};
use crate::store::NodeProperties;
use policies::names::Prefix;
use std::collections::BTreeSet;

impl RegistryService {
    /// Publishes the length of the prefix that a node with these properties gets, before it gets it.
    ///
    /// # Errors
    /// The document could not be signed or stored.
    pub(super) fn publish_prefix_length(
        &mut self,
        wanted: &NodeProperties,
    ) -> Result<(), ServiceError> {
        let length = wanted.prefix.map(Prefix::length).or(wanted.length);
        self.publish_prefix_lengths(length.into_iter().collect())
    }

    /// Publishes the lengths of all prefixes that nodes have, or may get by open invitations, if the document lacks one: an older
    /// registry published none, and a restored one may have an older document.
    ///
    /// # Errors
    /// The document could not be signed or stored, or the database failed.
    pub(super) fn publish_missing_prefix_lengths(&mut self) -> Result<(), ServiceError> {
        let now = self.now();
        let renewable_since = now.saturating_sub_s(self.settings.grace_s);
        let members = self.storage.members(renewable_since)?.into_iter();
        let invitations = self.storage.open_invitations(now)?.into_iter();
        let invited = invitations.filter_map(|invitation| {
            let wanted = invitation.wanted;
            wanted.prefix.map(Prefix::length).or(wanted.length)
        });
        let lengths = members
            .map(|(member, _)| member.prefix.length())
            .chain(invited)
            .chain([self.settings.prefix_length]);
        self.publish_prefix_lengths(lengths.collect())
    }

    /// Adds lengths to the document, and publishes it if it lacked one of them.
    fn publish_prefix_lengths(&mut self, mut lengths: BTreeSet<u8>) -> Result<(), ServiceError> {
        let published = &self.network.0.prefix_lengths;
        if lengths.iter().all(|length| published.contains(length)) {
            return Ok(());
        }
        lengths.extend(published);
        let lengths = lengths.into_iter().collect();
        self.publish(|document| document.prefix_lengths = lengths)?;
        Ok(())
    }
}
