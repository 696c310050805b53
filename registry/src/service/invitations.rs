//! Lists and revokes invitations that can still be used.

use super::{RegistryService, error::ServiceError, operator::described};
use crate::store::OpenInvitation;

impl RegistryService {
    /// Returns the invitations by which nodes may still join, the first to expire first.
    ///
    /// # Errors
    /// The database failed.
    pub fn open_invitations(&self) -> Result<Vec<OpenInvitation>, ServiceError> {
        Ok(self.storage.open_invitations(self.now())?)
    }

    /// Revokes the open invitation with this name or id: no certificate is issued by it from now on.
    ///
    /// # Errors
    /// There is no such open invitation, or the database failed.
    pub fn revoke_invitation(
        &mut self,
        invitation: &str,
        operator: &str,
    ) -> Result<OpenInvitation, ServiceError> {
        let now = self.now();
        let revoked = self.storage.delete_invitation(invitation, now)?;
        let revoked = revoked.ok_or_else(|| ServiceError::UnknownInvitation {
            invitation: invitation.chars().take(80).collect(),
        })?;
        self.audit(
            operator,
            format!(
                "revoke invitation: {}{}, {} of {} uses left",
                revoked.id,
                described(&revoked.wanted),
                revoked.uses_left,
                revoked.uses
            ),
        )?;
        Ok(revoked)
    }
}
