//! Issues certificates for claims, and renews certificates.

use super::*;

impl RegistryService {
    /// Issues a certificate for a checked claim.
    pub(super) fn issue(&mut self, checked: &CheckedClaim) -> Result<Claimed, IssueError> {
        let (authority, life_s) = (
            &self.authorities.authority,
            self.settings.certificate_life_s,
        );
        let sign = |prefix, name: Option<&_>| {
            authority.sign_node((prefix, name), &checked.key, checked.now, life_s)
        };
        let (prefix, issued) = self.storage.claim(checked, &sign)?;
        Ok(self.answer_to_claim(prefix, issued.certificate))
    }

    /// Adds to a certificate what a new node needs beside it.
    fn answer_to_claim(&self, prefix: Prefix, certificate: String) -> Claimed {
        Claimed {
            version: VERSION,
            prefix,
            certificate,
            ca: self.authorities.authority.ca_pem().to_owned(),
            network: self.network.1.clone(),
        }
    }

    /// Issues a certificate for a token; `from` is the address of the caller.
    ///
    /// A machine that did not get the answer repeats its claim, and gets the same certificate. That consumes nothing.
    ///
    /// # Errors
    /// The claim is rejected or the database failed; nothing was issued then.
    pub fn claim(
        &mut self,
        from: IpAddr,
        claim: &Claim,
        key: ProvenKey,
    ) -> Result<Claimed, ServiceError> {
        let (site, now) = (SourceNetwork::from(from), self.now());
        if !self.failed_claims.can_try(site, now) {
            return Err(ServiceError::TooManyFailedClaims);
        }
        // A malformed token is handled like an unknown one.
        let token = token_from_text(&claim.token).map_or([0; 32], |token| sha256(&token));
        if let Some((prefix, certificate)) = self.storage.claimed(&token, &key.hash(), now)? {
            tracing::info!(%prefix, %from, "claim repeated: the stored certificate is returned");
            return Ok(self.answer_to_claim(prefix, certificate));
        }
        let anonymous = self.storage.is_anonymous(&token)?;
        if anonymous && !self.request_limits.can_join(site, now) {
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
                    self.failed_claims.note(site, now);
                }
            })?;
        if anonymous {
            self.request_limits.note_joined(site, now);
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

    /// Returns the recorded certificate with this serial number and key, if it is not revoked and expires after `moment`.
    ///
    /// A CA of ours signed each certificate that is shown. One that is not recorded was issued after the copy that an operator has
    /// restored; its node is recognized by the key.
    ///
    /// The key is compared because a thief of the CA's key can sign certificates with our serial numbers, but
    /// does not have our members' keys.
    fn recorded(
        &self,
        shown: &ShownCertificate,
        moment: UnixSeconds,
    ) -> Result<Member, ServiceError> {
        let (member, moment) = match self.storage.member(&shown.serial)? {
            Some(member) => (Some(member), moment),
            None => {
                let member = self.storage.member_with_key(&shown.key)?;
                (member, self.renewable_since())
            }
        };
        member
            .filter(|member| member.key == shown.key)
            .filter(|member| member.revoked_at.is_none() && member.not_after > moment)
            .ok_or(ServiceError::NotAMember)
    }

    /// Returns the time of expiry before which certificates cannot be renewed any more.
    fn renewable_since(&self) -> UnixSeconds {
        self.now().saturating_sub_s(self.settings.grace_s)
    }

    /// Returns the member that showed this certificate.
    ///
    /// # Errors
    /// The certificate is unknown, revoked or expired.
    pub fn member(&self, shown: &ShownCertificate) -> Result<Member, ServiceError> {
        self.recorded(shown, self.now())
    }

    /// Returns the member that showed this certificate, even if the certificate has expired within the grace
    /// period.
    ///
    /// # Errors
    /// The certificate is unknown, revoked, or expired before the grace period.
    pub fn renewable(&self, shown: &ShownCertificate) -> Result<Member, ServiceError> {
        self.recorded(shown, self.renewable_since())
    }

    /// Issues a new certificate for the prefix of the one that was shown.
    ///
    /// # Errors
    /// It is too early or too late, the key is rejected, or the database failed.
    pub fn renew(
        &mut self,
        shown: &ShownCertificate,
        key: &ProvenKey,
    ) -> Result<Renewed, ServiceError> {
        let (old, now) = (self.renewable(shown)?, self.now());
        let hash = key.hash();
        if old.not_after <= now && hash != old.key {
            return Err(ServiceError::KeyChangedAfterExpiry);
        }
        let is_unrecorded = old.serial != shown.serial;
        let newer = self.storage.certificates(old.prefix, now)?;
        let newer: Vec<_> = newer
            .into_iter()
            .filter(|(member, _)| is_unrecorded || member.not_before > old.not_before)
            .collect();
        // A node that did not get the answer repeats its request, and gets the same certificate.
        let is_repeated = |member: &Member| member.key == hash && !self.is_due(member, now);
        let existing = newer.iter().rev().find(|(member, _)| is_repeated(member));
        if let Some((_, certificate)) = existing {
            return Ok(Renewed {
                version: VERSION,
                certificate: certificate.clone(),
            });
        }
        if !self.is_due(&old, now) {
            return Err(ServiceError::TooEarly);
        }
        if newer.len() >= MAX_RENEWALS {
            return Err(ServiceError::TooOften {
                what: "renewals of one certificate",
            });
        }
        let (authority, life_s) = (
            &self.authorities.authority,
            self.settings.certificate_life_s,
        );
        let sign = |prefix, name: Option<&_>| authority.sign_node((prefix, name), key, now, life_s);
        let issued = self.storage.renew(&old, key, now, &sign)?;
        tracing::info!(prefix = %old.prefix, serial = issued.serial, "certificate renewed");
        Ok(Renewed {
            version: VERSION,
            certificate: issued.certificate,
        })
    }

    /// Returns whether a certificate may be renewed: in the last third of its life, or as soon as its CA no
    /// longer signs or its node was renamed.
    fn is_due(&self, member: &Member, now: UnixSeconds) -> bool {
        let life_s = member.not_after.seconds_since(member.not_before) - BACKDATE_S;
        member.authority != self.authorities.authority.version()
            || member.states_old_name()
            || member.not_after.seconds_since(now) <= life_s / 3
    }
}
