//! Issues certificates for claims, and renews them.

use super::*;

impl RegistryService {
    /// Issues a certificate.
    pub(super) fn issue(&mut self, checked: &CheckedClaim) -> Result<Claimed, IssueError> {
        let (authority, life_s) = (
            &self.authorities.authority,
            self.settings.certificate_life_s,
        );
        let sign = |prefix| authority.sign_node(prefix, &checked.key, checked.now, life_s);
        let (prefix, issued) = self.storage.claim(checked, &sign)?;
        Ok(Claimed {
            version: VERSION,
            prefix,
            certificate: issued.certificate,
            ca: authority.ca_pem().to_owned(),
            network: self.network.1.clone(),
        })
    }

    /// Issues a certificate for a token; `from` is the source of the request.
    ///
    /// # Errors
    /// [`ServiceError`]; nothing was issued then.
    pub fn claim(
        &mut self,
        from: IpAddr,
        claim: &Claim,
        key: ProvenKey,
    ) -> Result<Claimed, ServiceError> {
        let (site, now) = (SourceNetwork::from(from), self.now());
        if !self.failures.can_try(site, now) {
            return Err(ServiceError::TooManyFailedClaims);
        }
        // A text that is no token is handled like an unknown token.
        let token = token_from_text(&claim.token).map_or([0; 32], |token| sha256(&token));
        let anonymous = self.storage.is_anonymous(&token)?;
        if anonymous && !self.pace.can_join(site, now) {
            return Err(ServiceError::TooManyFromNetwork);
        }
        let (length, wanted) = (self.settings.prefix_length, NodeProperties::default());
        let claimed = self
            .issue(&CheckedClaim {
                token: Some(token),
                key,
                wanted,
                length,
                now,
            })
            .inspect_err(|error| {
                if matches!(error, IssueError::TokenRejected) {
                    self.failures.note(site, now);
                }
            })?;
        if anonymous {
            self.pace.joined(site, now);
            self.audit(
                "a stranger",
                format!(
                    "joined by a public invitation: {}, from {from}",
                    claimed.prefix
                ),
            )?;
        }
        tracing::info!(prefix = %claimed.prefix, from = %from, anonymous, "certificate issued");
        Ok(claimed)
    }

    /// The member whose certificate this is, as we recorded it: who stole a CA's key may sign our serial
    /// numbers, but not with our members' keys.
    fn recorded(
        &self,
        shown: &ShownCertificate,
        good: impl FnOnce(&Member) -> bool,
    ) -> Result<Member, ServiceError> {
        let ours = self
            .storage
            .member(&shown.serial)?
            .filter(|member| member.key == shown.key);
        ours.filter(good).ok_or(ServiceError::NotAMember)
    }

    /// The member whose certificate was shown, if it still is one.
    ///
    /// # Errors
    /// Unknown, revoked or expired.
    pub fn member(&self, shown: &ShownCertificate) -> Result<Member, ServiceError> {
        let now = self.now();
        self.recorded(shown, |member| {
            member.revoked_at.is_none() && member.not_after > now
        })
    }

    /// The member whose certificate was shown, if it may be renewed: the grace counts.
    ///
    /// # Errors
    /// Unknown, revoked, or over for too long.
    pub fn renewable(&self, shown: &ShownCertificate) -> Result<Member, ServiceError> {
        let renewable_since = self.now().saturating_sub_s(self.settings.grace_s);
        self.recorded(shown, |member| {
            member.revoked_at.is_none() && member.not_after > renewable_since
        })
    }

    /// A fresh certificate for the prefix of the one that was shown.
    ///
    /// # Errors
    /// Too early or too late, or the key is another's.
    pub fn renew(
        &mut self,
        shown: &ShownCertificate,
        key: &ProvenKey,
    ) -> Result<Renewed, ServiceError> {
        let (old, now) = (self.renewable(shown)?, self.now());
        let hash = key.hash();
        if old.not_after <= now && hash != old.key {
            return Err(ServiceError::LateKey);
        }
        let later = self.storage.certificates(old.prefix, now)?;
        let later: Vec<_> = later
            .into_iter()
            .filter(|(member, _)| member.not_before > old.not_before)
            .collect();
        let wanted = |member: &Member| member.key == hash && !self.is_due(member, now);
        // The answer was lost: here it is again.
        if let Some((_, certificate)) = later.iter().rev().find(|(member, _)| wanted(member)) {
            return Ok(Renewed {
                version: VERSION,
                certificate: certificate.clone(),
            });
        }
        if !self.is_due(&old, now) {
            return Err(ServiceError::TooEarly);
        }
        if later.len() >= MAX_RENEWALS {
            return Err(ServiceError::TooOften {
                what: "renewals of one certificate",
            });
        }
        let (authority, life_s) = (
            &self.authorities.authority,
            self.settings.certificate_life_s,
        );
        let sign = |prefix| authority.sign_node(prefix, key, now, life_s);
        let issued = self.storage.renew(&old, key, now, &sign)?;
        tracing::info!(prefix = %old.prefix, serial = issued.serial, "certificate renewed");
        Ok(Renewed {
            version: VERSION,
            certificate: issued.certificate,
        })
    }

    /// Whether a certificate may be renewed: in the last third of its life, or as soon as its CA is
    /// no longer the one that signs.
    fn is_due(&self, member: &Member, now: UnixSeconds) -> bool {
        let life_s = member.not_after.seconds_since(member.not_before) - BACKDATE_S;
        member.authority != self.authorities.authority.version()
            || member.not_after.seconds_since(now) <= life_s / 3
    }
}
