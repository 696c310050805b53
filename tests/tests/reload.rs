//! A reload of the configuration under traffic: each live key is applied without loss, and a wrong configuration changes
//! nothing.

use anyhow::{Context, Result, bail};
use lab::{
    Lab, Node, Options, PingSchedule, is_skipped_without_root,
    ping_record::LOST_AFTER,
    pinger::all_pairs,
    wait::{pause, wait_until},
};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};
use wire::control::{ReloadDocument, STATUS_PATH, StatusDocument};

/// Time until all routes of the new network are settled.
const SETTLING: Duration = Duration::from_secs(10);

/// Time under pings after each reload.
const AFTER_RELOAD: Duration = Duration::from_secs(2);

/// An address at which no registry is.
const UNREACHABLE_REGISTRY: &str = "https://127.0.0.1:1";

/// A new value of each key that a reload applies, in the order in which the keys are changed.
const LIVE: [(&str, &str); 10] = [
    ("log", "debug"),
    ("metrics", "0.0.0.0:9197"),
    ("metrics", "127.0.0.1:9198"),
    ("registry", UNREACHABLE_REGISTRY),
    ("endpoints", "[\"udp:198.51.100.7:1194\"]"),
    ("neighbours", "[0/1]"),
    ("policy", "random"),
    ("private-endpoints", "true"),
    ("max-accepted", "5"),
    ("tunnels-to-dial", "1"),
];

/// Interval between two plans of the policy.
const REFRESH: Duration = Duration::from_secs(15);
/// Longest wait until a tunnel above the new limit is drained and closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// The configuration files of a node.
struct Files {
    main: PathBuf,
    drop_ins: PathBuf,
}

impl Files {
    fn of(node: &Node) -> Self {
        let main = node.root().join("etc/warren/warren.yaml");
        Self {
            drop_ins: main.with_extension("d"),
            main,
        }
    }
}

/// The number of dialled tunnels that are up.
fn dialled(node: &Node) -> Option<usize> {
    let status: StatusDocument = node.control_document(STATUS_PATH).ok()?;
    usize::try_from(status.tunnels_up.dialled).ok()
}

fn reload(node: &Node) -> Result<ReloadDocument> {
    let printed = node.warren_command(&["reload", "--json"])?;
    serde_json::from_str(&printed).context(printed)
}

/// Reloads a wrong configuration, and checks that one line names the fault and that nothing has changed. The configuration
/// also turns on `dry-run`, which would be seen.
fn check_wrong(node: &Node, fault: &str, expected: &str) -> Result<()> {
    let Err(error) = node.warren_command(&["reload"]) else {
        bail!("{fault}: the configuration was reloaded");
    };
    let text = format!("{error:#}");
    let lines: Vec<_> = text
        .lines()
        .filter(|line| line.contains("warren: "))
        .collect();
    let [line] = lines.as_slice() else {
        bail!("{fault}: expected one line: {text}");
    };
    assert!(
        line.contains("exit status: 78")
            && line.contains("configuration not reloaded, the old one stays in force: ")
            && line.contains(expected),
        "{fault}: {line}"
    );
    let status: StatusDocument = node.control_document(STATUS_PATH)?;
    assert!(!status.dry_run, "{fault}: the configuration was changed");
    node.scrape()
        .with_context(|| format!("{fault}: metrics are no longer served"))?;
    Ok(())
}

/// Gives the node wrong configurations of ten kinds, one after the other, and then the good one again.
fn check_wrong_configurations(lab: &Lab, node: &Node) -> Result<()> {
    let Files { main, drop_ins } = Files::of(node);
    let good = fs::read_to_string(&main)?;
    let changed = good.replace("dry-run: false", "dry-run: true");
    assert_ne!(good, changed);
    let appended = [
        ("syntax", "more: [", "did not find expected node content"),
        (
            "unknown key",
            "refresh: 5m",
            "refresh: unknown key: expected one of registry, ",
        ),
        (
            "duplicate key",
            "log: debug",
            "log: given twice: expected each key once",
        ),
    ];
    for (fault, line, expected) in appended {
        fs::write(&main, format!("{changed}{line}\n"))?;
        check_wrong(node, fault, expected)?;
    }
    fs::create_dir(&drop_ins)?;
    let drop_in = drop_ins.join("50-test.yaml");
    fs::write(&main, &changed)?;
    let in_drop_in = [
        (
            "wrong type",
            "upnp: true",
            "50-test.yaml:1: upnp: value true: expected one of auto, off",
        ),
        (
            "out of range",
            "\nmax-accepted: 251",
            "50-test.yaml:2: max-accepted: value 251: expected a number from 0 to 250",
        ),
        (
            "conflicting",
            "transit: leaf\ngateway: true",
            "50-test.yaml:2: gateway: value true: expected false with transit: leaf",
        ),
        (
            "wrong drop-in",
            "- log",
            "50-test.yaml:1: the document: a list: expected keys and values",
        ),
    ];
    for (fault, text, expected) in in_drop_in {
        fs::write(&drop_in, format!("{text}\n"))?;
        check_wrong(node, fault, expected)?;
    }
    fs::remove_dir_all(&drop_ins)?;
    fs::remove_file(&main)?;
    check_wrong(
        node,
        "missing file",
        "warren.yaml: cannot read the configuration: No such file",
    )?;
    symlink(&main, &main)?;
    check_wrong(
        node,
        "unreadable",
        "warren.yaml: cannot read the configuration: Too many levels of symbolic links",
    )?;
    fs::remove_file(&main)?;
    fs::write(&main, &changed)?;
    check_other_identity(lab, node)?;
    fs::write(&main, good)?;
    assert_eq!(reload(node)?.lines(), ["nothing changed"]);
    Ok(())
}

/// Puts the certificate and key of another node in the place of this node's.
fn check_other_identity(lab: &Lab, node: &Node) -> Result<()> {
    let other = lab
        .nodes()
        .iter()
        .find(|other| other.index() != node.index())
        .context("no other node")?;
    let names = ["node.crt", "node.key"];
    let file = |root: &Path, name: &str| root.join("var/lib/warren").join(name);
    let mut own = Vec::new();
    for name in names {
        own.push((name, fs::read(file(node.root(), name))?));
        fs::copy(file(other.root(), name), file(node.root(), name))?;
    }
    let expected = format!(
        "is the certificate of node {}, expected that of",
        other.prefix()?
    );
    let checked = check_wrong(node, "changes identity", &expected);
    for (name, bytes) in own {
        fs::write(file(node.root(), name), bytes)?;
    }
    checked
}

#[test]
fn live_keys_are_applied_without_loss_and_a_wrong_configuration_changes_nothing() -> Result<()> {
    if is_skipped_without_root("reload") {
        return Ok(());
    }
    let lab = Lab::build_converged(Options {
        refresh: Some(REFRESH),
        min_age: Some(Duration::from_secs(5)),
        ..Options::with_nodes(4)
    })?;
    let find = || lab.nodes().iter().find(|node| dialled(node) == Some(2));
    let node = wait_until(DRAIN_TIMEOUT, find).context("no node dials two tunnels")?;
    let pinger = lab.start_pings(PingSchedule::STEADY)?;
    pause(SETTLING);
    let start = pinger.now();
    check_wrong_configurations(&lab, node)?;
    for (key, value) in LIVE {
        node.configure(key, value)?;
        let document = reload(node).with_context(|| format!("{key}: {value}"))?;
        let keys = [document.applied, document.draining].concat();
        assert_eq!(keys, [key], "{value}");
        assert_eq!(document.restart, Vec::<String>::new(), "{key}");
        pause(AFTER_RELOAD);
    }
    let log = fs::read_to_string(node.log_file())?;
    let failures = log.matches("does not answer").count();
    assert!(
        (1..20).contains(&failures),
        "{failures} calls to a registry that does not answer"
    );
    // The changed endpoints were announced at once, to the registry's changed address.
    let status: StatusDocument = node.control_document(STATUS_PATH)?;
    let error = status.registry.last_error.unwrap_or_default();
    assert!(error.contains(UNREACHABLE_REGISTRY), "{error}");
    let is_drained = || (dialled(node)? <= 1).then_some(());
    wait_until(DRAIN_TIMEOUT, is_drained)
        .with_context(|| node.describe("keeps two dialled tunnels"))?;
    node.configure("dry-run", "true")?;
    assert_eq!(reload(node)?.applied, ["dry-run"]);
    let is_shown = || {
        node.control_document::<StatusDocument>(STATUS_PATH)
            .ok()
            .filter(|status| status.dry_run)
    };
    wait_until(AFTER_RELOAD, is_shown).context("status does not show the dry run")?;
    let metrics = node.command("curl", &["-sS", "http://127.0.0.1:9198/healthz"]);
    assert!(metrics.is_ok(), "{metrics:?}");
    node.configure("listen", "{ udp: 1195 }")?;
    let document = reload(node)?;
    assert_eq!(
        (document.applied.len(), document.restart),
        (0, vec!["listen".to_owned()])
    );
    let end = pinger.now();
    pause(LOST_AFTER);
    let pings = pinger.summarize(start, end, all_pairs);
    let losses = pinger.describe_losses(start, end, all_pairs);
    assert!(pings.sent > 5_000, "{pings:?}");
    assert_eq!(pings.lost, 0, "{pings:?} {losses:?}");
    node.stop_cleanly()
}
