//! Finds in a line of OpenVPN's log why a dial failed; the exit code and `>STATE:` do not reveal
//! it.

use policies::names::Prefix;

/// The reason why a dial failed, as far as OpenVPN's log reveals it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DialFailure {
    /// The other end's certificate names another node than we dialled.
    WrongName,
    /// The other end's certificate is past its end or not yet valid, or a clock is wrong.
    OutOfDate,
    /// The other end's certificate is not of our network.
    ForeignCertificate,
    /// The other end's certificate is revoked.
    Revoked,
    /// Our packets fail the network's `tls-crypt` key, or theirs do.
    WrongNetworkKey,
    /// The server's daemon rejected the client after the TLS handshake.
    Refused,
    /// Nothing listens there.
    ConnectionRefused,
    /// No answer in time: nobody there, a firewall, or our own certificate is refused.
    NoAnswer,
    /// No route to that address exists.
    Unreachable,
    /// TLS failed for another reason.
    Tls,
    /// The server's OpenVPN has reached its limit of clients (`--max-clients`).
    ServerFull,
}

impl DialFailure {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::WrongName,
        Self::OutOfDate,
        Self::ForeignCertificate,
        Self::Revoked,
        Self::WrongNetworkKey,
        Self::Refused,
        Self::ConnectionRefused,
        Self::NoAnswer,
        Self::Unreachable,
        Self::Tls,
        Self::ServerFull,
    ];

    /// The metric label: snake case.
    pub fn label(self) -> &'static str {
        match self {
            Self::WrongName => "wrong_name",
            Self::OutOfDate => "out_of_date",
            Self::ForeignCertificate => "foreign_certificate",
            Self::Revoked => "revoked",
            Self::WrongNetworkKey => "wrong_network_key",
            Self::Refused => "refused",
            Self::ConnectionRefused => "connection_refused",
            Self::NoAnswer => "no_answer",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::ServerFull => "server_full",
        }
    }
}

/// What to look for in a line of the log, the more telling first.
const FAILURES: &[(&str, DialFailure)] = &[
    ("VERIFY X509NAME ERROR", DialFailure::WrongName),
    ("error=certificate has expired", DialFailure::OutOfDate),
    ("error=certificate is not yet valid", DialFailure::OutOfDate),
    ("is revoked", DialFailure::Revoked),
    ("VERIFY ERROR", DialFailure::ForeignCertificate),
    ("tls-crypt unwrap error", DialFailure::WrongNetworkKey),
    ("AUTH_FAILED", DialFailure::Refused),
    ("Connection refused", DialFailure::ConnectionRefused),
    (
        "would exceed maximum number of clients",
        DialFailure::ServerFull,
    ),
    (
        "TLS key negotiation failed to occur within",
        DialFailure::NoAnswer,
    ),
    ("Network is unreachable", DialFailure::Unreachable),
    ("No route to host", DialFailure::Unreachable),
    ("TLS handshake failed", DialFailure::Tls),
];

/// Returns the reason for a failed dial that a log line reveals, if any.
pub fn reason_of_log(text: &str) -> Option<DialFailure> {
    FAILURES
        .iter()
        .find(|(pattern, _)| text.contains(pattern))
        .map(|(_, failure)| *failure)
}

/// Returns the name whose revoked certificate OpenVPN has just rejected, if a log line reports
/// that.
///
/// OpenVPN verifies the chain first, so the name is genuine.
pub fn revoked_of_log(text: &str) -> Option<Prefix> {
    let (_, rest) = text.split_once("VERIFY CRL: depth=0, ")?;
    let (subject, _) = rest.strip_suffix(" is revoked")?.rsplit_once(", serial=")?;
    subject.strip_prefix("CN=")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<DialFailure>) {
        assert_eq!(reason_of_log(text), expected, "{text}");
    }

    /// All but the last three lines are from OpenVPN 2.6.14.
    #[test]
    fn the_log_says_why_a_dial_failed() {
        use DialFailure as F;
        check(
            "VERIFY X509NAME ERROR: CN=1/16, must be 7/16",
            Some(F::WrongName),
        );
        check(
            "AUTH: Received control message: AUTH_FAILED",
            Some(F::Refused),
        );
        check(
            "TCP: connect to [AF_INET]127.0.0.1:1195 failed: Connection refused",
            Some(F::ConnectionRefused),
        );
        check(
            "read UDPv4 [ECONNREFUSED]: Connection refused (fd=4,code=111)",
            Some(F::ConnectionRefused),
        );
        check(
            "TLS Error: TLS key negotiation failed to occur within 6 seconds (check your network connectivity)",
            Some(F::NoAnswer),
        );
        check(
            "VERIFY ERROR: depth=0, error=self-signed certificate: CN=3/16, serial=5475772433694",
            Some(F::ForeignCertificate),
        );
        check("TLS Error: TLS handshake failed", Some(F::Tls));
        check(
            "VERIFY ERROR: depth=0, error=certificate has expired: CN=3/16",
            Some(F::OutOfDate),
        );
        check(
            "tls-crypt unwrap error: packet authentication failed",
            Some(F::WrongNetworkKey),
        );
        check(
            "MULTI: new incoming connection would exceed maximum number of clients (1)",
            Some(F::ServerFull),
        );
    }

    #[test]
    fn the_log_names_a_revoked_peer() {
        let revoked = |text: &str| revoked_of_log(text).map(|peer| peer.to_string());
        let line =
            "45.67.1.3:40312 VERIFY CRL: depth=0, CN=7/16, serial=316663873929282 is revoked";
        assert_eq!(revoked(line).as_deref(), Some("7/16"));
        assert_eq!(revoked("VERIFY CRL: depth=0, CN=7/16, serial=3"), None);
        assert_eq!(
            revoked("VERIFY CRL: depth=1, CN=7/16, serial=3 is revoked"),
            None
        );
        check(line, Some(DialFailure::Revoked));
    }

    #[test]
    fn an_ordinary_line_is_no_failure() {
        for text in [
            "",
            "VERIFY OK: depth=0, CN=1/16",
            "VERIFY X509NAME OK: CN=1/16",
            "Initialization Sequence Completed",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn every_failure_has_a_label_of_its_own() {
        let labels: std::collections::BTreeSet<_> =
            DialFailure::ALL.iter().map(|f| f.label()).collect();
        assert_eq!(labels.len(), DialFailure::ALL.len());
    }
}
