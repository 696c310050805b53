//! Names, comments and documents use the words of the field (CONTRIBUTING.md, *How text should read*).

#![expect(
    clippy::unwrap_used,
    reason = "a test may panic outside its test functions too"
)]

use std::fs;
use warren_tests::{root, tracked_files};

/// Words that had a private meaning here once, or that blur who did what, and the words to use instead. A word is
/// also found as a part of a name: `asker` in `PeerAsker` and in `peer_asker`.
const INSTEAD: &[(&str, &str)] = &[
    ("sounding soundings sounded", "RTT probe, probed"),
    ("scout scouts scouted", "candidate prober, measured"),
    ("rollover rollovers", "rolling restart"),
    ("bearable unbearable", "within or above the loss limit"),
    ("lens", "view settings, observation"),
    (
        "told tells hears",
        "sent, configured, published, reported; receives",
    ),
    ("asker askers", "client"),
    ("outlook outlooks", "route view"),
    ("desk", "registry service"),
    ("witness witnesses", "reporter"),
    ("refusal refusals", "error, rejected request"),
    ("deeds", "audit log"),
    ("barred", "revoked, blocked"),
    ("begun", "started"),
    ("anew", "again, new"),
    ("mend mends mended", "repair"),
    ("patience", "the quantity: a timeout, a limit"),
    ("ways", "routes, paths"),
];

/// Two words that together had a private meaning.
const PHRASES: &[(&str, &str)] = &[
    ("way out", "exit gateway, exit route"),
    ("cut off", "revoked, unreachable, disconnected"),
];

/// The tracked files with one of these extensions, without this one and the list of past renames.
fn texts(extensions: &[&str]) -> Vec<(String, String)> {
    let texts: Vec<_> = tracked_files()
        .into_iter()
        .filter(|name| extensions.iter().any(|extension| name.ends_with(extension)))
        .filter(|name| !["CHANGELOG.md", "tests/tests/language.rs"].contains(&name.as_str()))
        .map(|name| {
            let text = fs::read_to_string(root().join(&name)).unwrap();
            (name, text)
        })
        .collect();
    assert!(texts.len() > 1, "git ls-files lists no such file");
    texts
}

/// Splits a line into lower-case words; names are split at underscores and capitals.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_small = false;
    for c in line.chars() {
        if !c.is_ascii_alphanumeric() || (c.is_ascii_uppercase() && after_small) {
            words.push(String::new());
        }
        if c.is_ascii_alphanumeric() {
            words.last_mut().unwrap().push(c.to_ascii_lowercase());
        }
        after_small = c.is_ascii_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// What a line should say instead of each private word that it has.
fn complaints(line: &str) -> Vec<String> {
    let words = words(line);
    let mut complaints = Vec::new();
    for (private, instead) in INSTEAD {
        for word in private
            .split(' ')
            .filter(|word| words.iter().any(|w| w == word))
        {
            complaints.push(format!("`{word}`: say {instead}"));
        }
    }
    for (private, instead) in PHRASES {
        let pair: Vec<_> = private.split(' ').collect();
        if words.windows(2).any(|two| two == pair) {
            complaints.push(format!("`{private}`: say {instead}"));
        }
    }
    complaints
}

#[test]
fn private_words_are_found_in_names_and_sentences() {
    assert_eq!(
        complaints("    let peer_asker = PeerAsker::new(); // The way out."),
        [
            "`asker`: say client",
            "`way out`: say exit gateway, exit route"
        ]
    );
    assert_eq!(complaints("the tolderate by way of outputs"), [""; 0]);
}

#[test]
fn text_uses_the_words_of_the_field() {
    let mut found = Vec::new();
    for (name, text) in texts(&[".rs", ".md", ".yml", ".yaml", ".json", ".service", ".sh"]) {
        for (number, line) in (1..).zip(text.lines()) {
            for complaint in complaints(line) {
                found.push(format!("{name}:{number}: {complaint}"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_doc_comment_says_more_than_the_name() {
    let mut found = Vec::new();
    for (name, text) in texts(&[".rs"]) {
        let is_doc = |line: &str| line.trim_start().starts_with("///");
        let lines: Vec<_> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let alone = ![at.wrapping_sub(1), at + 1]
                .into_iter()
                .any(|other| lines.get(other).is_some_and(|line| is_doc(line)));
            if is_doc(line) && alone && line.split_whitespace().count() <= 3 {
                found.push(format!("{name}:{}: {}", at + 1, line.trim()));
            }
        }
    }
    assert!(
        found.is_empty(),
        "doc comments of one or two words:\n{}",
        found.join("\n")
    );
}
