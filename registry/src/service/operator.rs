//! Does what the operator asks: invitations, certificates by file, revocations, copies, the log.

use super::{RegistryService, proven};
use crate::{
    clock::UnixSeconds,
    pki::{random, request::sha256},
    service::error::ServiceError,
    store::{AuditEntry, CheckedClaim, Member, NewInvitation, NodeProperties, StoredAnnouncement},
};
use policies::names::Prefix;
use wire::{
    invitation::Invitation,
    registry::{Enrolment, VERSION},
};

/// The longest an invitation may be good: ten years.
pub const MAX_TTL_S: i64 = 10 * 365 * 86_400;

/// The most nodes that one invitation may let in.
pub const MAX_USES: u32 = 10_000;

/// The properties of an invitation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InvitationRequest {
    /// The lifetime of the invitation, in seconds.
    pub ttl_s: i64,
    /// The number of nodes that it lets in.
    pub uses: u32,
    /// The properties of the nodes that it lets in.
    pub wanted: NodeProperties,
    /// Its line may be published.
    pub anonymous: bool,
}

/// An invitation, and its end.
pub struct CreatedInvitation {
    /// The invitation for the newcomer.
    pub invitation: Invitation,
    /// The end of its life.
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

/// Whether people may call a node so: letters, digits, dots, hyphens, underscores, at most 63, and
/// nothing that could be a serial number.
fn is_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let serial = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (1..=63).contains(&text.len()) && text.bytes().all(good) && !serial
}

impl RegistryService {
    /// Adds to the log that only grows.
    ///
    /// # Errors
    /// It could not be kept.
    pub(crate) fn audit(&mut self, actor: &str, action: String) -> Result<(), ServiceError> {
        tracing::info!(actor, action, "recorded in the audit log");
        let entry = AuditEntry {
            at: self.now(),
            actor: actor.to_owned(),
            action,
        };
        Ok(self.storage.append_audit_entry(&entry)?)
    }

    fn check_wanted(&self, wanted: &NodeProperties) -> Result<(), ServiceError> {
        if let Some(name) = wanted.name.as_ref().filter(|name| !is_name(name)) {
            let shown: String = name.chars().take(63).collect();
            return bad(
                "name",
                shown,
                "1 to 63 letters, digits, dots, hyphens and underscores",
            );
        }
        if let (Some(length), Some(prefix)) = (wanted.length, wanted.prefix)
            && length != prefix.length()
        {
            return bad(
                "prefix_length",
                length,
                format!("that of the prefix {prefix}"),
            );
        }
        let most = (127 - self.authorities.authority.network().range().prefix_len()).min(32);
        let length = wanted.prefix.map(Prefix::length).or(wanted.length);
        match length.filter(|length| !(1..=most).contains(length)) {
            Some(length) => bad("prefix_length", length, format!("in 1 to {most}")),
            None => Ok(()),
        }
    }

    /// Makes an invitation.
    ///
    /// # Errors
    /// A value is out of range, name or prefix are somebody's, or it could not be kept.
    pub fn invite(
        &mut self,
        asked: &InvitationRequest,
        operator: &str,
    ) -> Result<CreatedInvitation, ServiceError> {
        let InvitationRequest {
            ttl_s,
            uses,
            wanted,
            anonymous,
        } = asked;
        if !(1..=MAX_TTL_S).contains(ttl_s) {
            return bad("ttl_s", ttl_s, format!("in 1 to {MAX_TTL_S}"));
        }
        if !(1..=MAX_USES).contains(uses) {
            return bad("uses", uses, format!("in 1 to {MAX_USES}"));
        }
        let one = wanted.name.is_some() || wanted.prefix.is_some();
        if *uses > 1 && one {
            return bad(
                "uses",
                uses,
                "1, where the invitation has a name or a prefix",
            );
        }
        if *anonymous && one {
            return bad(
                "anonymous",
                anonymous,
                "for an invitation that has a name or a prefix",
            );
        }
        self.check_wanted(wanted)?;
        let (token, now) = (random::<16>()?, self.now());
        let expires_at = now.saturating_add_s(*ttl_s);
        let kept = NewInvitation {
            token: sha256(&token),
            uses: *uses,
            expires_at,
            wanted: wanted.clone(),
            anonymous: *anonymous,
        };
        self.storage.add_invitation(&kept, now)?;
        self.audit(
            operator,
            format!(
                "invite: {uses} uses, {ttl_s} s{}{}",
                shown(wanted),
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
            expires_at,
        })
    }

    /// Signs a request that came by file.
    ///
    /// # Errors
    /// As for a claim.
    pub fn sign(
        &mut self,
        csr: &str,
        wanted: &NodeProperties,
        operator: &str,
    ) -> Result<Enrolment, ServiceError> {
        let key = proven(VERSION, csr)?;
        self.check_wanted(wanted)?;
        let (length, now) = (self.settings.prefix_length, self.now());
        let checked = CheckedClaim {
            token: None,
            key,
            wanted: wanted.clone(),
            length,
            now,
        };
        let claimed = self.issue(&checked)?;
        self.audit(
            operator,
            format!("sign: {}{}", claimed.prefix, shown(wanted)),
        )?;
        Ok(Enrolment {
            version: VERSION,
            registry: self.address.to_string(),
            claimed,
        })
    }

    /// Returns all live certificates with their expiry, their names, and the last announcements of
    /// their nodes.
    ///
    /// # Errors
    /// The database failed.
    pub fn members(&self) -> Result<Vec<NodeEntry>, ServiceError> {
        let now = self.now();
        let members = self.storage.members(now)?.into_iter();
        Ok(members
            .map(|(member, name)| NodeEntry {
                report: self.directory.report(member.prefix, now).cloned(),
                name,
                member,
            })
            .collect())
    }

    /// Revokes the node with this name, prefix or serial number: blocks its certificates and keys,
    /// and lists them in the signed revocations. Returns its prefix, the number of certificates,
    /// and the version of the list.
    ///
    /// # Errors
    /// It has no live certificate, or the change could not be stored.
    pub fn revoke(
        &mut self,
        node: &str,
        operator: &str,
    ) -> Result<(Prefix, usize, u64), ServiceError> {
        let unknown = || ServiceError::UnknownNode {
            node: node.chars().take(80).collect(),
        };
        let prefix = self.storage.find_node(node)?.ok_or_else(unknown)?;
        let now = self.now();
        let count =
            self.storage
                .revoke(prefix, now, now.saturating_sub_s(self.settings.grace_s))?;
        if count == 0 {
            return Err(unknown());
        }
        self.directory.remove(prefix);
        let version = self.publish_revocations()?;
        self.audit(operator, format!("revoke: {prefix}, {count} certificates"))?;
        Ok((prefix, count, version))
    }

    /// The last lines of the log, the oldest first.
    ///
    /// # Errors
    /// The database refused.
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
    /// What its node announced last, if that counts still.
    pub report: Option<StoredAnnouncement>,
}

fn shown(wanted: &NodeProperties) -> String {
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
