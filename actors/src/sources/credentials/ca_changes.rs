//! Reacts to changes of the CAs below the root: a later one that signs, and revoked ones.

use super::*;

/// Span over which nodes spread their renewals at random when a later intermediate CA of the same root starts to sign.
const LATER_CA_WINDOW: Duration = Duration::from_secs(30);
/// Maximum remaining lifetime that a certificate of an earlier intermediate CA counts with once a later one signs: a day.
const MAX_REMAINING_WHEN_SUPERSEDED: Duration = Duration::from_secs(86_400);
/// Maximum remaining lifetime that a certificate of a revoked CA counts with.
const MAX_REMAINING_WHEN_CA_REVOKED: Duration = Duration::from_secs(300);

impl Credentials {
    /// Renews the certificate soon if a later intermediate CA signs now. If more CAs are revoked, requests the restart of dialled
    /// tunnels, since a peer that we dialled may have presented a certificate of a revoked CA.
    pub(super) fn react_to_ca_changes(&mut self, documents: &CurrentDocuments) {
        if self
            .read_certificate()
            .is_some_and(|(chain, _)| documents.is_superseded(&chain))
        {
            self.next_check_at = self
                .next_check_at
                .min(self.clock.now() + LATER_CA_WINDOW.mul_f64(self.window_share));
        }
        if self.handled_ca_revocations != documents.revoked_ca_count() {
            self.handled_ca_revocations = documents.revoked_ca_count();
            tracing::info!(
                cas = self.handled_ca_revocations,
                "intermediate CAs are revoked; dialled tunnels restart"
            );
            self.report(
                self.remaining_lifetime().min(MAX_REMAINING_WHEN_CA_REVOKED),
                false,
                true,
            );
        }
    }

    /// Returns the time for which other nodes still accept our certificate.
    pub(super) fn remaining_until_others_reject(&self) -> Duration {
        let Some((chain, certificate)) = self.read_certificate() else {
            return Duration::ZERO;
        };
        let (documents, remaining) = (
            self.documents.load(),
            certificate.remaining_lifetime(now_s()),
        );
        match (
            documents.is_ca_of_chain_revoked(&chain),
            documents.is_superseded(&chain),
        ) {
            (true, _) => remaining.min(MAX_REMAINING_WHEN_CA_REVOKED),
            (false, true) => remaining.min(MAX_REMAINING_WHEN_SUPERSEDED),
            (false, false) => remaining,
        }
    }

    /// Returns the time until our certificate expires; zero if it cannot be read.
    pub(super) fn remaining_lifetime(&self) -> Duration {
        self.read_certificate()
            .map(|(_, certificate)| certificate.remaining_lifetime(now_s()))
            .unwrap_or_default()
    }
}
