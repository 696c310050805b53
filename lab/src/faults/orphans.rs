//! SIGKILL of a daemon while only one of the mechanisms by which its children end with it is in force.
//!
//! The parent death signal is taken from the children by setpriv(1), which starts the program in their place. The management connections
//! stay open because the lab holds copies of the daemon's ends.

use super::{Figure, Outcome, kills::CHILDREN_GONE};
use crate::{
    Lab, Node, Options,
    nat_router::load_nft_rules,
    progress::progress,
    wait::{pause, wait_until},
};
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::Path,
    time::{Duration, Instant},
};

/// Time after which a child that lives on counts as an orphan: twice what is promised, so that a late one is measured.
const WAIT_TIMEOUT: Duration = Duration::from_secs(4);
/// Longest wait until the node has a tunnel.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// No other node can dial the node.
const UNREACHABLE: &str = "table inet unreachable {
    chain in {
        type filter hook input priority 0
        iifname eth0 udp dport 1194 drop
        iifname eth0 tcp dport 1194 drop
    }
}
";

/// A mechanism by which children end with their daemon.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Net {
    /// The kernel sends SIGTERM to each child when its parent exits.
    DeathSignal,
    /// OpenVPN exits when its management connection closes. babeld has none.
    Management,
    /// `warren cleanup`, which the unit runs after each stop, kills the children whose pids and start times it finds.
    Cleanup,
}

const NETS: [(Net, &str, &str); 3] = [
    (
        Net::DeathSignal,
        "orphans-death-signal",
        "SIGKILL of a daemon whose management connections stay open: children have the parent death signal only",
    ),
    (
        Net::Management,
        "orphans-management",
        "SIGKILL of a daemon whose children have no parent death signal: OpenVPN has its management connection only, babeld nothing",
    ),
    (
        Net::Cleanup,
        "orphans-cleanup",
        "SIGKILL of a daemon whose children have neither, and `warren cleanup` after it",
    ),
];

/// Tries each mechanism alone.
pub(super) fn run() -> Result<Vec<Outcome>> {
    let lab = Lab::build_joined(Options::with_nodes(3))?;
    let node = lab.node(0)?;
    // So the node dials the others.
    load_nft_rules(node.namespace(), UNREACHABLE)?;
    lab.nodes().iter().skip(1).try_for_each(Node::start)?;
    let nets = NETS.iter();
    nets.map(|net| try_net(node, *net)).collect()
}

fn try_net(node: &Node, (net, id, fault): (Net, &'static str, &'static str)) -> Result<Outcome> {
    progress(fault);
    match net {
        Net::DeathSignal => node.start()?,
        Net::Management | Net::Cleanup => start_without_death_signal(node)?,
    }
    for child in ["babeld", "server-udp", "server-tcp"] {
        node.wait_for_child(child, None)?;
    }
    let children = wait_until(START_TIMEOUT, || {
        let children = node.children();
        children
            .values()
            .any(|line| line.contains("--client --remote"))
            .then_some(children)
    });
    let children = children.context("the node has dialled no tunnel")?;
    let held = match net {
        Net::Management => Vec::new(),
        Net::DeathSignal | Net::Cleanup => hold_sockets(node)?,
    };
    let is_covered = |line: &String| net != Net::Management || !line.contains("babeld");
    let living = || {
        let lines = node.processes().into_values();
        lines.filter(is_covered).count()
    };
    let start = Instant::now();
    node.kill();
    if net == Net::Cleanup {
        pause(CHILDREN_GONE);
        let left = living();
        ensure!(
            left >= children.len(),
            "only {left} of {children:?} live without any mechanism"
        );
        node.warren_command(&["cleanup"])?;
    }
    let since = if net == Net::Cleanup {
        CHILDREN_GONE
    } else {
        Duration::ZERO
    };
    let gone = wait_until(WAIT_TIMEOUT, || (living() == 0).then(|| start.elapsed()));
    let gone = gone.map(|gone| gone.saturating_sub(since));
    let orphans = living();
    drop(held);
    // The next daemon starts without them.
    drop(node.warren_command(&["cleanup"]));
    let covered = children.values().filter(|line| is_covered(line));
    Ok(Outcome {
        id,
        fault,
        tries: covered.count(),
        figures: vec![
            Figure::time("children gone", gone, CHILDREN_GONE),
            Figure::count("orphans", u64::try_from(orphans)?, 0),
        ],
    })
}

/// Starts the daemon so that its children are started by setpriv(1), which clears their parent death signal.
fn start_without_death_signal(node: &Node) -> Result<()> {
    let mut mounts = String::new();
    for program in ["openvpn", "babeld"] {
        let path = Path::new("/usr/sbin").join(program);
        let copy = node.root().join(program);
        fs::copy(&path, &copy).with_context(|| format!("cannot copy {}", path.display()))?;
        let script = node.root().join(format!("{program}.sh"));
        fs::write(
            &script,
            format!(
                "#!/bin/sh\nexec setpriv --pdeathsig clear -- {} \"$@\"\n",
                copy.display()
            ),
        )?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        mounts.push_str(&format!(
            "mount --bind {} {} && ",
            script.display(),
            path.display()
        ));
    }
    let words = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        &format!("{mounts}exec \"$@\""),
        "sh",
    ];
    node.start_through(&words.map(str::to_owned))
}

/// Copies all sockets of the daemon, so that none closes when it dies.
fn hold_sockets(node: &Node) -> Result<Vec<OwnedFd>> {
    let pid = node.pid().context("the daemon has exited")?;
    let process = Pid::from_raw(i32::try_from(pid)?).context("0 is no process")?;
    let process = pidfd_open(process, PidfdFlags::empty())?;
    let folder = format!("/proc/{pid}/fd");
    let mut held = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let number = entry.file_name().to_string_lossy().parse()?;
        if target.to_string_lossy().starts_with("socket:") {
            held.push(pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?);
        }
    }
    Ok(held)
}
