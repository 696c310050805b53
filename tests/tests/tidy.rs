//! The rules of the repository: who depends on whom, how long a file may be, what must not stand in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
};
use warren_tests::{root, tracked_files};

/// Lines that a source file may have before its tests.
const MAX_LINES: usize = 400;

/// The packages that each package may depend on, as in the table of `docs/ARCHITECTURE.md`; the names
/// stand without their `warren-`.
const ALLOWED: &[(&str, &[&str])] = &[
    ("policies", &[]),
    ("fault-points", &[]),
    ("files", &["fault-points"]),
    ("local-http", &[]),
    ("wire", &["policies"]),
    ("map", &["wire"]),
    ("config", &["wire", "policies"]),
    ("os", &["files", "fault-points", "wire", "policies"]),
    ("membership", &["files", "wire", "policies"]),
    (
        "actors",
        &[
            "membership",
            "os",
            "map",
            "files",
            "fault-points",
            "wire",
            "policies",
        ],
    ),
    (
        "supervisor",
        &[
            "actors",
            "membership",
            "os",
            "config",
            "files",
            "fault-points",
            "wire",
            "policies",
        ],
    ),
    (
        "registry",
        &["os", "files", "local-http", "map", "wire", "policies"],
    ),
    (
        "warren",
        &[
            "supervisor",
            "registry",
            "config",
            "files",
            "local-http",
            "map",
            "wire",
            "policies",
        ],
    ),
    ("lab", &["local-http", "map", "wire", "policies"]),
    ("sim", &["wire", "policies"]),
    ("tests", &["lab", "map", "wire", "policies"]),
];

/// Returns the paths of the tracked files with this extension.
fn tracked(extension: &str) -> Vec<PathBuf> {
    let paths = tracked_files().into_iter().map(|name| root().join(name));
    paths
        .filter(|path| path.extension().is_some_and(|is| is == extension))
        .collect()
}

/// The package's name without the `warren-` that all of ours begin with.
fn short_name(package: &str) -> &str {
    package.strip_prefix("warren-").unwrap_or(package)
}

/// The lines before the first `#[cfg(test)]`.
fn lines_before_tests(text: &str) -> usize {
    text.lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .count()
}

#[test]
fn crates_depend_downwards_only() {
    let metadata = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let allowed: BTreeMap<&str, BTreeSet<&str>> = ALLOWED
        .iter()
        .map(|(name, on)| (*name, on.iter().copied().collect()))
        .collect();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(
        packages.len() >= ALLOWED.len(),
        "cargo metadata lists too few packages"
    );
    for package in packages {
        let full_name = package["name"].as_str().unwrap();
        assert!(
            full_name == "warren" || full_name.starts_with("warren-"),
            "the package {full_name} must be named warren-{full_name}"
        );
        let name = short_name(full_name);
        let on = allowed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in the table"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let dependency_name = short_name(dependency["name"].as_str().unwrap());
            let ours = allowed.contains_key(dependency_name);
            assert!(
                !ours || on.contains(dependency_name),
                "{name} must not depend on {dependency_name}"
            );
            assert!(
                name != "policies" || dependency["kind"] == "dev",
                "policies depends on {dependency_name}"
            );
        }
    }
}

#[test]
fn files_are_short_before_their_tests() {
    let long: Vec<_> = tracked("rs")
        .into_iter()
        .filter(|path| lines_before_tests(&fs::read_to_string(path).unwrap()) > MAX_LINES)
        .collect();
    assert!(
        long.is_empty(),
        "longer than {MAX_LINES} lines before their tests: {long:?}"
    );
}

#[test]
fn a_source_file_says_what_it_is_for() {
    let mute: Vec<_> = tracked("rs")
        .into_iter()
        .filter(|path| {
            !fs::read_to_string(path)
                .unwrap()
                .trim_start()
                .starts_with("//!")
        })
        .filter(|path| !path.components().any(|part| part.as_os_str() == "fuzz"))
        .collect();
    assert!(
        mute.is_empty(),
        "do not begin with a sentence about the file: {mute:?}"
    );
}

#[test]
fn nothing_is_unfinished_or_switched_off() {
    // In two parts, so that this file does not find itself.
    let banned = [
        ("to", "do!("),
        ("unimple", "mented!("),
        ("#[ig", "nore"),
        ("#[should", "_panic"),
        ("FIX", "ME"),
    ];
    for path in tracked("rs") {
        let text = fs::read_to_string(&path).unwrap();
        for (head, tail) in banned {
            let word = format!("{head}{tail}");
            assert!(!text.contains(&word), "{} contains {word}", path.display());
        }
    }
}

/// The anchors of a document's headings, as GitHub and GitLab make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let heading = |line: &str| {
        let heading = line.trim_start_matches('#');
        (heading.len() < line.len()).then(|| heading.trim().to_lowercase())
    };
    let anchor = |heading: String| {
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    text.lines().filter_map(heading).map(anchor).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    for path in tracked("md") {
        let text = fs::read_to_string(&path).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
            .filter(|link| !link.contains("://"))
        {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            let has_anchor = anchor.is_empty()
                || anchors(&fs::read_to_string(&target).unwrap()).contains(anchor);
            assert!(has_anchor, "{}: {link}: no such heading", path.display());
        }
    }
}

/// The paths below a folder of the repository that a document names as `code`.
fn named_paths(text: &str) -> BTreeSet<PathBuf> {
    let code = text.split('`').skip(1).step_by(2);
    // Placeholders such as NAME.rs are in capitals.
    let is_plain = |word: &&str| {
        word.contains('/')
            && word.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/._-".contains(&byte)
            })
    };
    let is_ours = |path: &PathBuf| {
        let folder = path.iter().next().map(|folder| root().join(folder));
        path.is_relative() && folder.is_some_and(|folder| folder.is_dir())
    };
    code.filter(is_plain)
        .map(PathBuf::from)
        .filter(|path| is_ours(path) && !path.starts_with("target"))
        .collect()
}

#[test]
fn paths_in_documents_exist() {
    for document in tracked("md") {
        let text = fs::read_to_string(&document).unwrap();
        for path in named_paths(&text) {
            assert!(
                root().join(&path).exists(),
                "{} names {}, which does not exist",
                document.display(),
                path.display()
            );
        }
    }
}
