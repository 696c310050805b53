//! A member that posts older and changed signed documents, and a registry that serves older ones.

use crate::{
    Lab, Node, Options,
    faults::{Figure, Outcome},
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use wire::{
    control::{STATUS_PATH, StatusDocument},
    peer,
    registry::DocumentKind,
    signed::SignedDocument,
};

/// The kinds of signed documents, and their label in metrics, which is the name of their file, too.
const KINDS: [(DocumentKind, &str); 2] = [
    (DocumentKind::Network, "network"),
    (DocumentKind::Revocations, "revocations"),
];
/// How long the registry keeps announcements. Each node announces itself after a third of it.
const ANNOUNCEMENT_TTL: Duration = Duration::from_secs(9);
/// The nodes that are attacked.
const HONEST: usize = 2;
/// The member that posts documents.
const LIAR: usize = HONEST;
/// The node that is revoked.
const REVOKED: usize = LIAR + 1;
/// How often the member posts each older document to each node.
const POSTS: usize = 50;
/// Time for which the registry serves older documents; each node compares versions at least twice.
const OLDER_SPAN: Duration = Duration::from_secs(12);
/// Longest wait until all nodes have the newer documents, or one is connected.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The versions of a node's documents, by kind.
type Versions = [u64; KINDS.len()];

pub(super) fn run() -> Result<Outcome> {
    let lab = Lab::build_joined(Options {
        announcement_ttl: Some(ANNOUNCEMENT_TTL),
        ..Options::with_nodes(REVOKED + 1)
    })?;
    lab.start_and_converge()?;
    let database = lab
        .registry_root()
        .join("var/lib/warren-registry/registry.sqlite");
    let older_database = lab.registry_root().join("older.sqlite");
    lab.registry_command("backup", &[&older_database.to_string_lossy()])?;
    let first = versions(lab.node(0)?)?;
    let older = older_documents(&lab)?;
    let revoked = lab.node(REVOKED)?;
    revoked.stop_cleanly()?;
    lab.registry_command("set", &["min-age", "7m"])?;
    lab.revoke(revoked.prefix()?)?;
    let honest = lab.nodes().get(..HONEST).unwrap_or_default();
    wait_until(TIMEOUT, || {
        let mut all = honest.iter().map(versions);
        all.all(|now| now.is_ok_and(|now| now.iter().zip(&first).all(|(now, first)| now > first)))
            .then_some(())
    })
    .context("the nodes do not get the newer documents")?;
    let newest = honest.iter().map(versions).collect::<Result<Vec<_>>>()?;
    progress("a member posts older and changed documents");
    let mut tries = 0;
    for (kind, path) in &older {
        for document in [path, &changed(path)?] {
            for node in honest {
                post(&lab, node, *kind, document)?;
                tries += POSTS;
            }
        }
    }
    let count_lower = || -> Result<usize> {
        let now = honest.iter().map(versions).collect::<Result<Vec<_>>>()?;
        let is_lower = |(now, newest): &(&Versions, &Versions)| {
            now.iter()
                .zip(newest.iter())
                .any(|(now, newest)| now < newest)
        };
        Ok(now.iter().zip(&newest).filter(is_lower).count())
    };
    let mut accepted = count_lower()?;
    progress("the registry serves older documents, and the revoked node starts");
    lab.stop_registry();
    for suffix in ["-wal", "-shm"] {
        drop(fs::remove_file(format!("{}{suffix}", database.display())));
    }
    fs::copy(&older_database, &database)?;
    lab.start_registry()?;
    revoked.start()?;
    pause(OLDER_SPAN);
    accepted += count_lower()?;
    let admitted = revoked
        .control_document::<StatusDocument>(STATUS_PATH)?
        .nodes_reachable;
    let silent = honest
        .iter()
        .filter(|node| !has_reported_registry(node))
        .count();
    for node in honest {
        node.stop_cleanly()?;
        node.start()?;
    }
    accepted += count_lower()?;
    Ok(Outcome {
        id: "older-documents",
        fault: "a member posts older and changed signed documents, and the registry serves older ones than nodes have, also to a revoked node",
        tries,
        figures: vec![
            Figure::count(
                "nodes with older documents than before",
                u64::try_from(accepted)?,
                0,
            ),
            Figure::count("nodes that the revoked one reaches", admitted, 0),
            Figure::count(
                "nodes that do not report the registry",
                u64::try_from(silent)?,
                0,
            ),
        ],
    })
}

/// The versions of a node's documents, once it has both and shows them.
fn versions(node: &Node) -> Result<Versions> {
    let shown = || {
        let mut versions = Versions::default();
        for (version, (_, name)) in versions.iter_mut().zip(KINDS) {
            let sample = format!("warren_document_version{{document=\"{name}\"}}");
            *version = node.metric(&sample).ok().filter(|version| *version > 0)?;
        }
        Some(versions)
    };
    wait_until(TIMEOUT, shown).with_context(|| node.describe("shows no versions of its documents"))
}

/// Copies the documents of the first node, as they are now, to the folder of the member that posts them.
fn older_documents(lab: &Lab) -> Result<Vec<(DocumentKind, PathBuf)>> {
    let copies = KINDS.map(|(kind, name)| {
        let from = lab
            .node(0)?
            .root()
            .join(format!("var/lib/warren/{name}.json"));
        let to = lab.node(LIAR)?.root().join(format!("older-{name}.json"));
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok((kind, to))
    });
    copies.into_iter().collect()
}

/// Posts a document to a node again and again, as the member.
fn post(lab: &Lab, node: &Node, kind: DocumentKind, document: &Path) -> Result<()> {
    let member = lab.node(LIAR)?;
    let file = |name: &str| {
        member
            .root()
            .join("var/lib/warren")
            .join(name)
            .display()
            .to_string()
    };
    let (certificate, key) = (file("node.crt"), file("node.key"));
    let data = format!("@{}", document.display());
    let address = node.identity()?.address;
    let url = format!(
        "https://[{address}]:{}{}",
        peer::PORT,
        peer::document_path(kind)
    );
    let mut arguments = vec!["--silent", "--show-error", "--insecure", "--globoff"];
    arguments.extend([
        "--cert",
        &certificate,
        "--key",
        &key,
        "--data-binary",
        &data,
    ]);
    arguments.extend(["--write-out", "%{http_code}\n"]);
    arguments.extend(std::iter::repeat_n(url.as_str(), POSTS));
    let statuses = member.command("curl", &arguments)?;
    let accepted = statuses.lines().filter(|line| line.ends_with("202"));
    ensure!(
        accepted.count() > 0,
        "no document was taken for verification: {statuses}"
    );
    Ok(())
}

/// Writes a document beside itself, with one letter of its payload changed; returns the path.
fn changed(path: &Path) -> Result<PathBuf> {
    let mut document: SignedDocument = serde_json::from_str(&fs::read_to_string(path)?)?;
    let middle = document.payload.len() / 2;
    let letter = document.payload.get(middle..=middle);
    let other = if letter == Some("A") { "B" } else { "A" };
    document.payload.replace_range(middle..=middle, other);
    let path = path.with_extension("changed");
    fs::write(&path, serde_json::to_vec(&document)?)?;
    Ok(path)
}

/// Whether a node has logged that the registry serves older documents.
fn has_reported_registry(node: &Node) -> bool {
    let log = fs::read_to_string(node.log_file()).unwrap_or_default();
    log.contains("the registry serves an older signed document")
}
