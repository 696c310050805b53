//! Faults are seeded one by one: `warren status` and `warren doctor` name each, and complain of nothing on healthy nodes.
//!
//! Faults of running and stopped nodes are real ones in a lab. Those of kernels, programs and services that this machine
//! does not have are made up ([`made_up_systems`]).

#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "all of it is a test, which prints its table and reads JSON"
)]

mod made_up_systems;
mod shown;
mod stopped_node;

use anyhow::{Context, Result, ensure};
use lab::{Lab, Node, Options, is_skipped_without_root, process::Process, wait::wait_until};
use serde_json::Value;
use shown::{SHOWN_TIMEOUT, Table, doctor, warren};
use std::{fs, path::Path, time::Duration, time::Instant};
use wire::control::{HEALTHY, STATUS_PATH, StatusDocument};

/// Longest time after which readiness must follow the truth while payload flows, and after a loss has ended.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time after which an idle node must notice that it is unplugged: the longest silence at the default hello interval,
/// and 2 s until it is published.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait until a node whose tunnels are by TCP only has one by UDP again.
const LEAVE_TCP_TIMEOUT: Duration = Duration::from_secs(240);
/// Time after which a tunnel that carries pings counts as busy.
const PING_TIME: Duration = Duration::from_secs(3);

/// Number of faults that must be in the table.
const MIN_FAULTS: usize = 20;

fn status(node: &Node) -> Result<StatusDocument> {
    node.control_document(STATUS_PATH)
}

/// Waits until a node is healthy, and checks that nothing is complained of.
fn check_healthy(node: &Node, nodes_reachable: u64) -> Result<()> {
    let is_healthy = || {
        let status = status(node).ok()?;
        (status.health.state == HEALTHY && status.nodes_reachable == nodes_reachable).then_some(())
    };
    wait_until(SHOWN_TIMEOUT, is_healthy).with_context(|| {
        let state = status(node).map(|status| status.health);
        node.describe(&format!("is not healthy: {state:?}"))
    })?;
    let printed = warren(node, "status")?;
    ensure!(
        printed.code == 0 && printed.text.starts_with("healthy: "),
        "{}",
        printed.text
    );
    let examined = doctor(node)?;
    let is_complaint = |(check, outcome): &(&String, &String)| {
        matches!(outcome.as_str(), "failed" | "warning")
            // The registry stores an announcement only some seconds after the start.
            && check.as_str() != "endpoints"
    };
    let complaints: Vec<_> = examined.outcomes.iter().filter(is_complaint).collect();
    ensure!(
        complaints.is_empty() && examined.code == 0,
        "{complaints:?}"
    );
    Ok(())
}

/// Waits until the node is ready, or is not, and checks that status, metric and probe agree. Returns the time until then.
fn check_ready(node: &Node, expected: bool, timeout: Duration) -> Result<Duration> {
    let start = Instant::now();
    let is_seen = || (status(node).ok()?.ready == expected).then_some(());
    wait_until(timeout, is_seen)
        .with_context(|| node.describe(&format!("is not seen as ready = {expected}")))?;
    let elapsed = start.elapsed();
    let metric = node.metric("warren_ready")?;
    let code = node.command(
        "curl",
        &[
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "http://127.0.0.1:9197/readyz",
        ],
    )?;
    ensure!(metric == u64::from(expected), "warren_ready {metric}");
    ensure!((code == "200") == expected, "/readyz {code}");
    Ok(elapsed)
}

fn child(node: &Node, words: &[&str]) -> Result<String> {
    let children = node.children();
    let mut found = children
        .iter()
        .filter(|(_, line)| words.iter().all(|word| line.contains(word)));
    let (pid, _) = found
        .next()
        .with_context(|| format!("no {words:?}: {children:?}"))?;
    Ok(pid.to_string())
}

/// Unplugs a node, and plugs it in again: once while it is idle, once while it pings another node.
fn disconnect(lab: &Lab, index: usize, table: &mut Table) -> Result<()> {
    unplug_and_plug_in(lab, index, IDLE_TIMEOUT, "unplugged while idle", table)?;
    let node = lab.node(index)?;
    let address = lab.node(0)?.identity()?.address.to_string();
    let log = lab.folder().join("pings.log");
    let ping = Path::new("ping");
    let pings = Process::start(node.namespace(), ping, ["-i", "0.1", &address], &log)?;
    lab::wait::pause(PING_TIME);
    let fault = "unplugged while it pings";
    let checked = unplug_and_plug_in(lab, index, READY_TIMEOUT, fault, table);
    pings.kill();
    checked?;
    // A dial that began while it was unplugged may have come to an end by TCP.
    let by_udp = || {
        let findings = status(node).ok()?.health.findings;
        let mut findings = findings.iter();
        findings
            .all(|finding| finding.id != "udp_blocked")
            .then_some(())
    };
    wait_until(LEAVE_TCP_TIMEOUT, by_udp).with_context(|| node.describe("does not leave TCP"))
}

fn unplug_and_plug_in(
    lab: &Lab,
    index: usize,
    timeout: Duration,
    fault: &str,
    table: &mut Table,
) -> Result<()> {
    let node = lab.node(index)?;
    lab.unplug(index)?;
    let elapsed = check_ready(node, false, timeout)?;
    println!("{fault}: not ready after {:.1} s", elapsed.as_secs_f64());
    table.check_status(fault, node, &["disconnected", "no_tunnel"], 1)?;
    lab.plug_in(index)?;
    let address = lab.node(0)?.identity()?.address.to_string();
    let answers = || node.command("ping", &["-c1", "-W1", &address]).ok();
    wait_until(SHOWN_TIMEOUT, answers).context("no ping after it was plugged in")?;
    let elapsed = check_ready(node, true, READY_TIMEOUT)?;
    println!("ready {:.1} s after the first ping", elapsed.as_secs_f64());
    Ok(())
}

/// Faults of the host and of the children of a node that runs.
fn running_node(node: &Node, folder: &Path, table: &mut Table) -> Result<()> {
    let babeld = child(node, &["babeld"])?;
    node.command("kill", &["-STOP", &babeld])?;
    table.check_status("babeld hangs", node, &["babeld_down"], 1)?;
    let replaced = || child(node, &["babeld"]).ok().filter(|pid| *pid != babeld);
    wait_until(SHOWN_TIMEOUT, replaced).context("babeld, which hangs, was not replaced")?;
    let pid_file = folder.join("other-babeld.pid").display().to_string();
    // babeld deletes its state file at its start.
    let state = folder.join("other-babeld.state").display().to_string();
    let arguments = ["-I", &pid_file, "-S", &state, "-p", "6697", "lo"];
    let log = folder.join("other-babeld.log");
    let program = Path::new("/usr/sbin/babeld");
    let other = Process::start(node.namespace(), program, arguments, &log)?;
    let is_running = || Path::new(&pid_file).exists().then_some(());
    wait_until(SHOWN_TIMEOUT, is_running).context("the other babeld does not start")?;
    let seen = doctor(node)?;
    other.kill();
    table.check_doctor("another babeld runs", &seen, "other_babeld", "failed")?;
    // A policy that only logs would dial no tunnel again.
    check_healthy(node, 2)?;
    node.configure("listen", "{ udp: 1195, tcp: 1194 }")?;
    node.configure("dry-run", "true")?;
    node.warren_command(&["reload"])?;
    table.check_status(
        "a changed key needs a restart",
        node,
        &["restart_pending"],
        0,
    )?;
    table.check_status("the policy only logs", node, &["dry_run"], 0)?;
    node.configure("listen", "{ udp: 1194, tcp: 1194 }")?;
    node.configure("dry-run", "false")?;
    node.warren_command(&["reload"])?;
    for _ in 0..4 {
        let server = wait_until(SHOWN_TIMEOUT, || {
            child(node, &["openvpn", "server-udp"]).ok()
        });
        node.command("kill", &["-KILL", &server.context("no server")?])?;
        lab::wait::pause(Duration::from_secs(2));
    }
    table.check_status(
        "a server exits again and again",
        node,
        &["process_restarting"],
        1,
    )?;
    // It is shown for ten minutes, so it comes last.
    for _ in 0..2 {
        node.command("sysctl", &["-w", "net.ipv6.conf.all.forwarding=0"])?;
        let is_repaired = || {
            let read = node.command("sysctl", &["-n", "net.ipv6.conf.all.forwarding"]);
            (read.ok()?.trim() == "1").then_some(())
        };
        wait_until(SHOWN_TIMEOUT, is_repaired).context("forwarding stays off")?;
    }
    let fault = "forwarding is turned off again and again";
    table.check_status(fault, node, &["host_changed"], 1)?;
    Ok(())
}

/// Stops the registry, and lets a node announce other endpoints.
fn registry_away(lab: &Lab, node: &Node, table: &mut Table) -> Result<()> {
    lab.stop_registry();
    node.configure("endpoints", "[\"udp:45.67.9.9:1194\"]")?;
    node.warren_command(&["reload"])?;
    table.check_status("the registry is stopped", node, &["registry_away"], 1)?;
    table.check_doctor(
        "the registry is stopped",
        &doctor(node)?,
        "registry",
        "failed",
    )?;
    lab.start_registry()
}

/// The key of Babel in the node's network document.
fn babel_key(node: &Node, folder: &Path) -> Result<String> {
    let document = node.root().join("var/lib/warren/network.json");
    let document: Value = serde_json::from_str(&fs::read_to_string(document)?)?;
    let payload = folder.join("payload");
    fs::write(
        &payload,
        document["payload"].as_str().context("no payload")?,
    )?;
    let payload = node.command("base64", &["--decode", &payload.display().to_string()])?;
    let payload: Value = serde_json::from_str(&payload)?;
    let key = payload["babel_key"].as_str().context("no Babel key")?;
    Ok(key.to_owned())
}

/// Checks that the bundle of a node has the parts that it should have, and none of its secrets, although a
/// comment in the configuration holds some of them.
fn bundle(node: &Node, invitation: &str, folder: &Path) -> Result<()> {
    let (_, token) = invitation.rsplit_once('=').context("no token")?;
    let mut secrets = vec![babel_key(node, folder)?, token.to_owned()];
    let configuration = node.root().join("etc/warren/warren.yaml");
    let text = fs::read_to_string(&configuration)?;
    fs::write(
        &configuration,
        format!("{text}\n# {invitation} {}\n", secrets[0]),
    )?;
    let file = folder.join("bundle.tar.gz").display().to_string();
    node.warren_command(&["support-bundle", "--output", &file])?;
    let text = node.command("tar", &["-xzOf", &file])?;
    let names = node.command("tar", &["-tzf", &file])?;
    for name in [
        "doctor.json",
        "status.json",
        "metrics.txt",
        "configuration/warren.yaml",
    ] {
        ensure!(names.contains(name), "{names}");
    }
    for part in [
        "warren_ready 1",
        "\"checks\":",
        "registry: https://",
        "# warren://[removed] [removed]",
        "\"prefix\":",
    ] {
        ensure!(text.contains(part), "the bundle lacks {part}");
    }
    let state = node.root().join("var/lib/warren");
    for name in ["node.key", "tls-crypt.key"] {
        let key = fs::read_to_string(state.join(name))?;
        let lines = key
            .lines()
            .filter(|line| line.len() >= 16 && !line.contains(['-', '#']));
        secrets.extend(lines.map(str::to_owned));
    }
    let network: Value = serde_json::from_str(&fs::read_to_string(state.join("network.json"))?)?;
    let payload = network["payload"].as_str().context("no payload")?;
    secrets.push(payload.to_owned());
    ensure!(
        secrets.len() > 10,
        "only {} secrets are known",
        secrets.len()
    );
    for secret in secrets {
        ensure!(!text.contains(&secret), "the bundle has a secret");
    }
    Ok(())
}

/// Lets a node start while its firewall drops the tunnels' UDP.
fn udp_blocked(node: &Node, table: &mut Table) -> Result<()> {
    let rules = "add table inet seeded; add chain inet seeded in { type filter hook input priority 0; }; \
         add chain inet seeded out { type filter hook output priority 0; }; \
         add rule inet seeded in udp dport 1194 drop; add rule inet seeded in udp sport 1194 drop; \
         add rule inet seeded out udp dport 1194 drop; add rule inet seeded out udp sport 1194 drop";
    node.command("nft", &[rules])?;
    node.start()?;
    table.check_status("UDP is blocked", node, &["udp_blocked"], 1)?;
    table.check_doctor("UDP is blocked", &doctor(node)?, "transports", "warning")
}

#[test]
fn each_seeded_fault_is_named_and_healthy_nodes_have_none() -> Result<()> {
    if is_skipped_without_root("seeded_faults") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options::with_nodes(3))?;
    let mut table = Table::default();
    let [first, second, third] = [lab.node(0)?, lab.node(1)?, lab.node(2)?];
    first.start()?;
    table.check_status(
        "the first node of a network",
        first,
        &["waiting_for_others"],
        0,
    )?;
    check_healthy(first, 0)?;
    second.start()?;
    third.start()?;
    for node in lab.nodes() {
        check_healthy(node, 2)?;
    }
    bundle(second, &lab.invite(&[])?, lab.folder())?;
    disconnect(&lab, 2, &mut table)?;
    running_node(third, lab.folder(), &mut table)?;
    registry_away(&lab, first, &mut table)?;
    third.stop_cleanly()?;
    stopped_node::check(third, &mut table)?;
    udp_blocked(third, &mut table)?;
    lab.revoke(second.prefix()?)?;
    table.check_status("the node is revoked", second, &["revoked"], 1)?;
    println!("{}", table.rows.join("\n"));
    ensure!(
        table.rows.len() >= MIN_FAULTS,
        "{} faults",
        table.rows.len()
    );
    Ok(())
}

#[test]
fn each_fault_of_a_made_up_host_is_named() -> Result<()> {
    if is_skipped_without_root("seeded_faults: made-up hosts") {
        return Ok(());
    }
    let folder = std::env::temp_dir().join(format!("warren-made-up-{}", std::process::id()));
    let mut table = Table::default();
    let checked = made_up_systems::check(&folder, &mut table);
    fs::remove_dir_all(&folder)?;
    println!("{}", table.rows.join("\n"));
    checked
}
