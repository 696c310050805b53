//! Damaged files of a node, and what its children could put in their place: the daemon starts all the same, or names the file
//! that only an operator can put back, and writes nowhere else.

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Node, Options,
    faults::state_files::{DAMAGES, Damage, MAX_RESIDENT_KIB, REPLACEABLE, start},
    is_skipped_without_root,
    proc_files::peak_kib,
    wait::wait_until,
};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// The files that only an operator can put back.
const IDENTITY: &[&str] = &["ca.crt", "node.crt", "node.key"];
/// Longest wait until the daemon has started its babeld.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// The uids of OpenVPN and babeld in a lab.
const CHILDREN: [&str; 2] = ["61197", "61198"];

/// A file of root's alone, to which links lead.
struct Secret(PathBuf);

impl Secret {
    fn create(folder: &Path) -> Result<Self> {
        let path = folder.join("secret");
        fs::write(&path, "root's alone")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Self(path))
    }

    #[track_caller]
    fn check(&self) {
        let found = fs::symlink_metadata(&self.0).map(|found| (found.uid(), found.mode() & 0o777));
        assert_eq!(found.ok(), Some((0, 0o600)));
        let text = fs::read_to_string(&self.0);
        assert_eq!(text.ok().as_deref(), Some("root's alone"));
    }
}

#[test]
fn a_node_starts_with_damaged_state_files_and_names_them() -> Result<()> {
    if is_skipped_without_root("state files") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options {
        nodes: 1,
        ..Options::default()
    })?;
    let node = lab.node(0)?;
    let state = node.root().join("var/lib/warren");
    let secret = Secret::create(node.root())?;
    start(node)?;
    for damage in DAMAGES {
        node.kill();
        let log = fs::read_to_string(node.log_file())?.len();
        for file in REPLACEABLE {
            damage.apply(&state.join(file), &secret.0)?;
        }
        start(node)?;
        let printed = fs::read_to_string(node.log_file())?;
        let printed = printed.get(log..).unwrap_or_default();
        for file in [
            "revocations.json",
            "babel-seqno",
            "sysctls.json",
            "network.json",
        ] {
            let path = state.join(file).display().to_string();
            assert!(
                printed
                    .lines()
                    .any(|line| line.contains("WARN") && line.contains(&path)),
                "{damage:?} {file}: {printed}"
            );
        }
        let peak = peak_kib(node.pid().context("the daemon has exited")?)?;
        ensure!(peak <= MAX_RESIDENT_KIB, "{damage:?}: {peak} KiB");
        secret.check();
    }
    node.stop_cleanly()?;
    for file in IDENTITY {
        let (path, kept) = (state.join(file), state.join("kept"));
        for damage in DAMAGES {
            fs::copy(&path, &kept)?;
            damage.apply(&path, &secret.0)?;
            let error = node.warren_command(&["run"]).err();
            let error = error.with_context(|| format!("{damage:?} {file}: the node runs"))?;
            let error = error.to_string();
            assert!(error.contains("exit status: 78"), "{damage:?}: {error}");
            assert!(error.contains(file), "{damage:?}: {error}");
            assert_eq!(error.trim().lines().count(), 1, "{damage:?}: {error}");
            drop(fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)));
            fs::rename(&kept, &path)?;
            secret.check();
        }
    }
    Ok(())
}

/// Runs a shell command as a child's user.
fn run_as(node: &Node, uid: &str, command: &str) -> Result<String> {
    let ids = ["--reuid", uid, "--regid", uid, "--clear-groups"];
    node.command("setpriv", &[&ids[..], &["sh", "-c", command]].concat())
}

#[test]
fn a_child_cannot_lead_root_to_another_file() -> Result<()> {
    if is_skipped_without_root("links of children") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options {
        nodes: 1,
        ..Options::default()
    })?;
    let node = lab.node(0)?;
    let secret = Secret::create(node.root())?;
    let run = node.root().join("run/warren");
    start(node)?;
    let roots = [
        run.clone(),
        node.root().join("var"),
        node.root().join("etc"),
    ];
    let roots = roots.map(|root| root.display().to_string()).join(" ");
    let find = format!("find {roots} -writable ! -type l 2>/dev/null; true");
    let babeld = run.join("child/babeld");
    let writable = run_as(node, CHILDREN[0], &find)?;
    assert!(
        writable
            .lines()
            .all(|path| path.ends_with("/management.sock")),
        "{writable}"
    );
    let writable = run_as(node, CHILDREN[1], &find)?;
    let is_inside = |path: &str| Path::new(path).starts_with(&babeld);
    assert!(writable.lines().all(is_inside), "{writable}");

    let links = format!(
        "cd {} && for f in state state.new babeld.conf babeld.new babeld.sock; do ln -sf {} $f; done",
        babeld.display(),
        secret.0.display()
    );
    run_as(node, CHILDREN[1], &links)?;
    let old = babeld_pid(node).context("babeld does not run")?;
    node.command("kill", &["-9", &old.to_string()])?;
    let is_new = || babeld_pid(node).filter(|pid| *pid != old);
    wait_until(START_TIMEOUT, is_new).with_context(|| node.describe("has no new babeld"))?;
    secret.check();
    assert!(
        babeld
            .join("state")
            .symlink_metadata()
            .map_or(true, |found| !found.is_symlink())
    );

    // Whatever a killed daemon and its children left, the next one follows nothing.
    node.kill();
    for place in [
        "child/babeld",
        "child/babeld.new",
        "child/babeld.conf",
        "child/babeld.conf.new",
        "child/babeld.pid",
        "child/server-udp",
    ] {
        Damage::Link.apply(&run.join(place), &secret.0)?;
    }
    start(node)?;
    secret.check();
    node.stop_cleanly()
}

fn babeld_pid(node: &Node) -> Option<u32> {
    let is_babeld = |(pid, line): (u32, String)| line.contains("babeld.conf").then_some(pid);
    node.children().into_iter().find_map(is_babeld)
}
