//! A network whose CA is below an offline root: nodes reach each other, the CA is replaced, and the real OpenVPN rejects
//! certificates of the old CA from then on.

use anyhow::{Context, Result};
use lab::{
    Lab, Node, Options, PingSchedule, Pinger, is_skipped_without_root,
    pinger::all_pairs,
    wait::{pause, wait_until},
};
use std::{fs, time::Duration};

/// The line that starts each certificate in PEM.
const PEM_START: &str = "-----BEGIN CERTIFICATE-----";
/// So long that no certificate is renewed because of its age, and so short that the restarts after a renewal are soon.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(2400);
/// Longest time that one step may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(240);
/// Time for which a node with a certificate of the old CA tries to connect.
const RETURN_ATTEMPTS: Duration = Duration::from_secs(20);

/// The intermediate CA that the node's certificate file contains after the certificate.
fn intermediate_ca(node: &Node) -> Option<String> {
    let chain = fs::read_to_string(node.root().join("var/lib/warren/node.crt")).ok()?;
    let (_, ca) = chain.rsplit_once(PEM_START)?;
    (chain.matches(PEM_START).count() == 2).then(|| ca.to_owned())
}

fn rotate_ca(lab: &Lab, arguments: &[&str]) -> Result<()> {
    lab.registry_command("rotate-ca", arguments).map(drop)
}

fn wait_for_replies(pinger: &Pinger) -> Result<Duration> {
    let start = pinger.now();
    wait_until(STEP_TIMEOUT, || pinger.all_answered(start, all_pairs))
        .context("the nodes do not reach each other")
}

/// Checks where the root's certificate and key are.
fn check_root_files(lab: &Lab) -> Result<()> {
    let offline = lab.offline_root_folder();
    let online = lab.registry_root().join("etc/warren-registry");
    assert!(offline.join("root.key").exists());
    assert!(!online.join("root.key").exists());
    let root = fs::read_to_string(offline.join("root.crt"))?;
    for node in lab.nodes() {
        let trusted = fs::read_to_string(node.root().join("var/lib/warren/ca.crt"))?;
        assert_eq!(trusted, root);
    }
    Ok(())
}

#[test]
fn a_replaced_ca_is_rejected_and_a_node_that_was_absent_returns_by_the_registry() -> Result<()> {
    if is_skipped_without_root("offline_root") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options {
        nodes: 2,
        tunnels_to_dial: Some(1),
        has_offline_root: true,
        certificate_life: Some(CERTIFICATE_LIFE),
        ..Options::default()
    })?;
    check_root_files(&lab)?;
    let (present, absent) = (lab.node(0)?, lab.node(1)?);
    let first_ca = intermediate_ca(present).context("node.crt contains no intermediate CA")?;
    lab.start_and_converge()?;
    let pinger = lab.start_pings(PingSchedule::Every(Duration::from_millis(50)))?;
    wait_for_replies(&pinger)?;

    let offline_root = lab.offline_root_folder();
    let offline_root = offline_root.to_string_lossy();
    rotate_ca(&lab, &["stage", "--offline-root", &offline_root])?;
    absent.stop();
    rotate_ca(&lab, &["activate"])?;
    let second_ca = wait_until(STEP_TIMEOUT, || {
        intermediate_ca(present).filter(|ca| *ca != first_ca)
    });
    let second_ca = second_ca.context("the present node has not renewed its certificate")?;
    rotate_ca(&lab, &["retire", "--force"])?;
    let revoked_folder = present.root().join("var/lib/warren/revoked");
    let revokes_a_ca = || fs::read_dir(&revoked_folder).ok()?.next().map(drop);
    wait_until(STEP_TIMEOUT, revokes_a_ca)
        .context("the present node does not revoke the old CA")?;

    lab.stop_registry();
    let restarted_at = pinger.now();
    absent.start()?;
    pause(RETURN_ATTEMPTS);
    let pings = pinger.summarize(restarted_at, pinger.now(), all_pairs);
    assert_eq!(
        pings.answered, 0,
        "a certificate of the revoked CA was accepted"
    );
    lab.start_registry()?;
    wait_for_replies(&pinger).context("the absent node does not return")?;
    assert_eq!(intermediate_ca(absent), Some(second_ca));
    Ok(())
}
