//! Decides when the certificate is renewed: by its age, when another CA signs, and when the registry asks for it.

use super::*;
use crate::messages::RenewalRequested;

impl Credentials {
    /// Returns the time at which the certificate should be renewed, in seconds since 1970: at random in the first tenth of the
    /// last third of its validity, or at once (0) if another CA signs now, or if the registry
    /// asked for it. A request counts once: the registry repeats it with the next announcement.
    ///
    /// The validity counts from notBefore, which the registry sets an hour before it issues the certificate. So the last third
    /// begins 20 minutes earlier than if it were counted from the issue.
    pub(super) fn renewal_due_s(&mut self, chain: &[Vec<u8>], certificate: &Certificate) -> i64 {
        if std::mem::take(&mut self.is_requested) {
            return 0;
        }
        let documents = self.documents.load();
        let has_listed_cas = documents
            .network()
            .is_some_and(|network| !network.authorities.is_empty());
        // The first listed CA is the one that signs now.
        let is_by_other_ca = has_listed_cas
            && documents
                .cas()
                .first()
                .is_some_and(|ca| chain::verify(chain, &[ca], None).is_err());
        if is_by_other_ca || documents.is_superseded(chain) {
            return 0;
        }
        let third = Duration::from_secs(
            u64::try_from(certificate.not_after_s - certificate.last_third_start_s()).unwrap_or(0),
        );
        let delay_s = i64::try_from(third.mul_f64(self.window_share / 10.0).as_secs()).unwrap_or(0);
        certificate.last_third_start_s().saturating_add(delay_s)
    }
}

impl Handler<RenewalRequested> for Credentials {
    type Result = ();

    fn handle(&mut self, _: RenewalRequested, _: &mut Self::Context) {
        if !self.is_renewing {
            (self.is_requested, self.next_check_at) = (true, self.clock.now());
        }
    }
}
