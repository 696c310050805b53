//! Carries out the operator's requests: invitations, certificates for requests from files, revocations, the
//! list of nodes and the audit log.

use super::{RegistryService, proven_key};
use crate::{
    clock::UnixSeconds,
    pki::{random, request::sha256},
    service::error::ServiceError,
    store::{
        AuditEntry, CheckedClaim, Member, NewInvitation, NodeProperties, StoredAnnouncement,
        invitation_id,
    },
};
use policies::{names::Prefix, node_name::NodeName};
use std::collections::BTreeSet;
use wire::{
    invitation::Invitation,
    registry::{Departed, Enrolment, VERSION},
};

/// Longest lifetime of an invitation, in seconds: ten years.
pub const MAX_TTL_S: i64 = 10 * 365 * 86_400;

/// Largest number of nodes that join by one invitation.
pub const MAX_USES: u32 = 10_000;

/// Characters of a wrong value that an error repeats.
const MAX_SHOWN_CHARS: usize = 63;

/// The properties of an invitation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InvitationRequest {
    /// The lifetime of the invitation, in seconds.
    pub ttl_s: i64,
    /// The number of nodes that may join by it.
    pub uses: u32,
    /// The properties of the nodes that join by it.
    pub wanted: NodeProperties,
    /// Whether the invitation may be published.
    pub anonymous: bool,
}

/// An invitation with its expiry.
pub struct CreatedInvitation {
    /// The invitation for the newcomer.
    pub invitation: Invitation,
    /// The id by which it is revoked.
    pub id: String,
    /// The moment from which it is no longer accepted.
    pub expires_at: UnixSeconds,
}

fn bad<T>(
    field: &'static str,
    value: impl ToString,
    right: impl ToString,
) -> Result<T, ServiceError> {
    Err(ServiceError::Value {
        field,
        value: value.to_string(),
        right: right.to_string(),
    })
}

fn unknown_node(node: &str) -> ServiceError {
    ServiceError::UnknownNode {
        node: node.chars().take(80).collect(),
    }
}

/// Checks a name that an operator wants for a node.
fn checked_name(name: &str) -> Result<NodeName, ServiceError> {
    name.parse().or_else(|_| {
        let shown: String = name.chars().take(MAX_SHOWN_CHARS).collect();
        bad("name", shown, NodeName::RULE)
    })
}

impl RegistryService {
    /// Appends an entry to the audit log, and writes it to the log of the process.
    ///
    /// # Errors
    /// The database failed.
    pub(crate) fn audit(&mut self, actor: &str, action: String) -> Result<(), ServiceError> {
        tracing::info!(actor, action, "recorded in the audit log");
        let entry = AuditEntry {
            at: self.now(),
            actor: actor.to_owned(),
            action,
        };
        Ok(self.storage.append_audit_entry(&entry)?)
    }

    /// Checks the properties that an operator wants for a node; returns them with the name in lower case.
    fn checked_properties(&self, wanted: &NodeProperties) -> Result<NodeProperties, ServiceError> {
        let name = match &wanted.name {
            None => None,
            Some(name) => Some(checked_name(name)?.to_string()),
        };
        if let (Some(length), Some(prefix)) = (wanted.length, wanted.prefix)
            && length != prefix.length()
        {
            return bad(
                "prefix_length",
                length,
                format!("that of the prefix {prefix}"),
            );
        }
        let max = (127 - self.authorities.authority.network().range().prefix_len()).min(32);
        let length = wanted.prefix.map(Prefix::length).or(wanted.length);
        match length.filter(|length| !(1..=max).contains(length)) {
            Some(length) => bad("prefix_length", length, format!("in 1 to {max}")),
            None => Ok(NodeProperties {
                name,
                length: wanted.length,
                prefix: wanted.prefix,
            }),
        }
    }

    /// Creates an invitation.
    ///
    /// # Errors
    /// A value is out of range, the name or the prefix is taken, or the database failed.
    pub fn invite(
        &mut self,
        request: &InvitationRequest,
        operator: &str,
    ) -> Result<CreatedInvitation, ServiceError> {
        let InvitationRequest {
            ttl_s,
            uses,
            wanted,
            anonymous,
        } = request;
        if !(1..=MAX_TTL_S).contains(ttl_s) {
            return bad("ttl_s", ttl_s, format!("in 1 to {MAX_TTL_S}"));
        }
        if !(1..=MAX_USES).contains(uses) {
            return bad("uses", uses, format!("in 1 to {MAX_USES}"));
        }
        let is_for_one_node = wanted.name.is_some() || wanted.prefix.is_some();
        if *uses > 1 && is_for_one_node {
            return bad(
                "uses",
                uses,
                "1, which is required if the invitation has a name or a prefix",
            );
        }
        if *anonymous && is_for_one_node {
            return bad(
                "anonymous",
                anonymous,
                "allowed if the invitation has a name or a prefix",
            );
        }
        let wanted = self.checked_properties(wanted)?;
        let (token, now) = (random::<16>()?, self.now());
        let expires_at = now.saturating_add_s(*ttl_s);
        let invitation = NewInvitation {
            token: sha256(&token),
            uses: *uses,
            expires_at,
            wanted,
            anonymous: *anonymous,
            created_by: operator.to_owned(),
        };
        let id = invitation_id(&invitation.token);
        self.publish_prefix_length(&invitation.wanted)?;
        self.storage.add_invitation(&invitation, now)?;
        self.audit(
            operator,
            format!(
                "invite: {id}, {uses} uses, {ttl_s} s{}{}",
                described(&invitation.wanted),
                if *anonymous { ", anonymous" } else { "" }
            ),
        )?;
        let pin = self.authorities.authority.pin();
        let invitation = Invitation {
            address: self.address.clone(),
            pin,
            token,
        };
        Ok(CreatedInvitation {
            invitation,
            id,
            expires_at,
        })
    }

    /// Issues a certificate for a request that the operator brings as a file; no token is needed.
    ///
    /// # Errors
    /// The request or a property is rejected, or the database failed.
    pub fn sign(
        &mut self,
        csr: &str,
        wanted: &NodeProperties,
        operator: &str,
    ) -> Result<Enrolment, ServiceError> {
        let key = proven_key(VERSION, csr)?;
        let wanted = self.checked_properties(wanted)?;
        self.publish_prefix_length(&wanted)?;
        let (length, now) = (self.settings.prefix_length, self.now());
        let checked = CheckedClaim {
            token: None,
            key,
            wanted,
            length,
            now,
        };
        let claimed = self.issue(&checked)?;
        self.audit(
            operator,
            format!("sign: {}{}", claimed.prefix, described(&checked.wanted)),
        )?;
        Ok(Enrolment {
            version: VERSION,
            registry: self.address.to_string(),
            claimed,
        })
    }

    /// Returns all unexpired certificates with the names and the announcements of their nodes.
    ///
    /// # Errors
    /// The database failed.
    pub fn members(&self) -> Result<Vec<NodeEntry>, ServiceError> {
        let now = self.now();
        let members = self.storage.members(now)?.into_iter();
        Ok(members
            .map(|(member, name)| NodeEntry {
                announcement: self.directory.announcement(member.prefix, now).cloned(),
                name,
                member,
            })
            .collect())
    }

    /// Writes one line to the log if nodes have names from before the present rule for names.
    ///
    /// # Errors
    /// The database failed.
    pub(crate) fn log_old_names(&self) -> Result<(), ServiceError> {
        let renewable_since = self.now().saturating_sub_s(self.settings.grace_s);
        let members = self.storage.members(renewable_since)?;
        let invalid: BTreeSet<String> = members
            .into_iter()
            .filter_map(|(member, name)| Some((member.prefix, name?)))
            .filter(|(_, name)| !NodeName::is_normalized(name))
            .map(|(prefix, name)| format!("{prefix} {name}"))
            .collect();
        if !invalid.is_empty() {
            let names = invalid.into_iter().collect::<Vec<_>>().join(", ");
            tracing::warn!(
                names,
                "some nodes have names that are not {}; they keep them",
                NodeName::RULE
            );
        }
        Ok(())
    }

    /// Gives the node with this name, prefix or serial number another name, which its certificate states from the next
    /// renewal on. Returns the prefix and the new name.
    ///
    /// # Errors
    /// No such node has a certificate that is live or can be renewed, the name is malformed or taken, or the database failed.
    pub fn rename(
        &mut self,
        node: &str,
        name: &str,
        operator: &str,
    ) -> Result<(Prefix, NodeName), ServiceError> {
        let (name, now) = (checked_name(name)?, self.now());
        let prefix = self
            .storage
            .find_node(node)?
            .ok_or_else(|| unknown_node(node))?;
        let renewable_since = now.saturating_sub_s(self.settings.grace_s);
        let certificates = self.storage.certificates(prefix, renewable_since)?;
        if certificates
            .iter()
            .all(|(member, _)| member.revoked_at.is_some())
        {
            return Err(unknown_node(node));
        }
        self.storage.rename(prefix, &name, now)?;
        self.audit(operator, format!("rename: {prefix} to {name}"))?;
        Ok((prefix, name))
    }

    /// Revokes the node with this name, prefix or serial number: revokes its certificates, blocks their keys, and
    /// publishes the list of revocations. Returns the prefix, the number of certificates, and the version of the
    /// list.
    ///
    /// # Errors
    /// No such node has a live certificate, or the database failed.
    pub fn revoke(
        &mut self,
        node: &str,
        operator: &str,
    ) -> Result<(Prefix, usize, u64), ServiceError> {
        let unknown = || unknown_node(node);
        let prefix = self.storage.find_node(node)?.ok_or_else(unknown)?;
        let count = self.revoke_prefix(prefix)?;
        if count == 0 {
            return Err(unknown());
        }
        let version = self.publish_revocations()?;
        self.audit(operator, format!("revoke: {prefix}, {count} certificates"))?;
        Ok((prefix, count, version))
    }

    /// Revokes the node that asks for it, because it leaves the network.
    ///
    /// # Errors
    /// The database failed.
    pub fn depart(&mut self, member: &Member) -> Result<Departed, ServiceError> {
        let prefix = member.prefix;
        let certificates = self.revoke_prefix(prefix)?;
        self.publish_revocations()?;
        self.audit(
            "the node",
            format!("left: {prefix}, {certificates} certificates"),
        )?;
        Ok(Departed {
            version: VERSION,
            certificates,
        })
    }

    /// Revokes the certificates of a node, and forgets its announcement. Returns the number of certificates.
    fn revoke_prefix(&mut self, prefix: Prefix) -> Result<usize, ServiceError> {
        let now = self.now();
        let renewable_since = now.saturating_sub_s(self.settings.grace_s);
        let count = self.storage.revoke(prefix, now, renewable_since)?;
        self.directory.remove(prefix);
        Ok(count)
    }

    /// Returns the last entries of the audit log, the oldest first.
    ///
    /// # Errors
    /// The database failed.
    pub fn audit_log(&self, count: usize) -> Result<Vec<AuditEntry>, ServiceError> {
        Ok(self.storage.audit_entries(count)?)
    }
}

/// A certificate as the operator sees it.
pub struct NodeEntry {
    /// The certificate and its state.
    pub member: Member,

    /// The name of the node.
    pub name: Option<String>,
    /// The announcement of the node, if it is still valid.
    pub announcement: Option<StoredAnnouncement>,
}

/// Describes properties for the audit log.
pub(super) fn described(wanted: &NodeProperties) -> String {
    let name = wanted
        .name
        .as_ref()
        .map(|name| format!(", name {name}"))
        .unwrap_or_default();
    let prefix = wanted
        .prefix
        .map(|prefix| format!(", prefix {prefix}"))
        .unwrap_or_default();
    let length = wanted
        .length
        .map(|length| format!(", {length} bits"))
        .unwrap_or_default();
    format!("{name}{prefix}{length}")
}
