//! Finds the secrets of a node, and removes them from texts.

use crate::identity::NodeIdentity;
use config::paths::Paths;
use membership::certificate::MAX_CREDENTIAL_BYTES;

/// What stands in the place of a secret.
const REMOVED: &str = "[removed]";

/// Lines of key files that are shorter than this are no part of a key, in characters.
const MIN_SECRET_LENGTH: usize = 16;

/// What begins an invitation, whose token is secret.
const INVITATION: &str = "warren://";

/// The secrets of one node.
pub struct Secrets {
    /// The lines of the keys, and the keys of the network document.
    values: Vec<String>,
}

impl Secrets {
    /// Reads the keys of the node. A file that cannot be read has no secrets to remove.
    pub fn read(paths: &Paths) -> Self {
        let secret_files = [paths.key(), paths.tls_crypt(), paths.tls_crypt_other()];
        let texts = secret_files
            .iter()
            .filter_map(|file| files::read_text(file, MAX_CREDENTIAL_BYTES).ok());
        let mut texts: Vec<_> = texts.collect();
        if let Ok(identity) = NodeIdentity::read(paths) {
            let document = identity.document;
            texts.extend([document.babel_key, document.tls_crypt]);
            texts.extend(document.tls_crypt_other);
        }
        let lines = texts.iter().flat_map(|text| text.lines());
        let is_secret = |line: &&str| {
            let is_heading = line.contains("-----") || line.starts_with('#');
            !is_heading && line.chars().count() >= MIN_SECRET_LENGTH
        };
        let values = lines.filter(is_secret).map(str::to_owned).collect();
        Self { values }
    }

    /// Returns the text without secrets: neither those of this node, nor private keys, nor invitations.
    pub fn remove_from(&self, text: &str) -> String {
        let mut text = self
            .values
            .iter()
            .fold(text.to_owned(), |text, value| text.replace(value, REMOVED));
        for (begin, end) in [
            ("PRIVATE KEY-----", "-----END"),
            ("-----BEGIN OpenVPN Static key", "-----END"),
        ] {
            text = without_blocks(&text, begin, end);
        }
        without_invitations(&text)
    }
}

/// Removes what stands between `begin` and `end`, each time both occur.
fn without_blocks(text: &str, begin: &str, end: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(begin) {
        out.push_str(before);
        out.push_str(begin);
        match after.split_once(end) {
            Some((_, after)) if !before.ends_with("END ") => {
                out.push_str(REMOVED);
                out.push_str(end);
                rest = after;
            }
            Some(_) | None => rest = after,
        }
    }
    out.push_str(rest);
    out
}

fn without_invitations(text: &str) -> String {
    let mut parts = text.split(INVITATION);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_whitespace() || c == '"' || c == '\'');
        let (_, rest) = part.split_at(end.unwrap_or(part.len()));
        out.push_str(INVITATION);
        out.push_str(REMOVED);
        out.push_str(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let secrets = Secrets {
            values: vec!["0123456789abcdef0123".into()],
        };
        assert_eq!(secrets.remove_from(text), expected);
    }

    #[test]
    fn known_values_private_keys_and_invitations_are_removed() {
        check("key=0123456789abcdef0123;", "key=[removed];");
        check(
            "a\n-----BEGIN PRIVATE KEY-----\nMIIx\n-----END PRIVATE KEY-----\nb",
            "a\n-----BEGIN PRIVATE KEY-----[removed]-----END PRIVATE KEY-----\nb",
        );
        check(
            "join 'warren://r:1/?pin=a&token=b' now warren://x",
            "join 'warren://[removed]' now warren://[removed]",
        );
    }
}
