//! A network whose CA has a root above it: nodes reach each other, the CA is replaced, and its certificates
//! are refused by the real OpenVPN from then on.

use anyhow::{Context, Result};
use lab::{
    Lab, Node, Options, Pace, is_left_out,
    measure::{pause, start_whole},
    process::wait_until,
};
use std::{fs, time::Duration};

/// One certificate in PEM begins so.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
/// Long enough that no certificate is renewed for its age, short enough that what follows a renewal is soon.
const LIFE: Duration = Duration::from_secs(2400);
const PATIENCE: Duration = Duration::from_secs(240);

/// The CA between that a node's certificate brings along.
fn between(node: &Node) -> Option<String> {
    let chain = fs::read_to_string(node.root().join("etc/warren/node.crt")).ok()?;
    let (_, ca) = chain.rsplit_once(BEGIN)?;
    (chain.matches(BEGIN).count() == 2).then(|| ca.to_owned())
}

fn rotate(lab: &Lab, words: &[&str]) -> Result<()> {
    let words: Vec<String> = words.iter().map(ToString::to_string).collect();
    lab.registry_command("rotate-ca", &words).map(drop)
}

#[test]
fn below_an_offline_root_the_ca_is_replaced_and_who_has_the_old_one_s_word_waits_for_the_registry()
-> Result<()> {
    if is_left_out("offline_root") {
        return Ok(());
    }
    let options = Options {
        nodes: 2,
        dial: Some(1),
        offline_root: true,
        ..Options::default()
    };
    let lab = Lab::joined(Options {
        certificate_life: Some(LIFE),
        ..options
    })?;
    let (folder, etc) = (
        lab.offline_root(),
        lab.registry_root().join("etc/warren-registry"),
    );
    let root = fs::read_to_string(folder.join("root.crt"))?;
    assert!(folder.join("root.key").exists() && !etc.join("root.key").exists());
    let (stays, away) = (lab.node(0)?, lab.node(1)?);
    let first = between(stays).context("no chain in node.crt")?;
    for node in lab.nodes() {
        assert_eq!(
            fs::read_to_string(node.root().join("etc/warren/ca.crt"))?,
            root
        );
    }
    start_whole(&lab)?;
    let pinger = lab.ping(Pace::Every(Duration::from_millis(50)))?;
    let whole = |from: Duration| wait_until(PATIENCE, || pinger.all_answered(from, |_, _| true));
    whole(pinger.now()).context("the nodes do not reach each other")?;

    rotate(
        &lab,
        &["stage", "--offline-root", &folder.to_string_lossy()],
    )?;
    away.stop();
    rotate(&lab, &["activate"])?;
    let renewed = || between(stays).filter(|ca| *ca != first);
    let second = wait_until(PATIENCE, renewed).context("the node that stays has not renewed")?;
    rotate(&lab, &["retire", "--force"])?;
    let barred = || {
        fs::read_dir(stays.root().join("var/lib/warren/revoked"))
            .ok()?
            .next()
            .map(drop)
    };
    wait_until(PATIENCE, barred).context("the node that stays does not bar the old CA")?;

    lab.stop_registry();
    let back = pinger.now();
    away.start()?;
    pause(Duration::from_secs(20));
    let let_in = pinger.sum_up(back, pinger.now(), |_, _| true).answered;
    assert_eq!(let_in, 0, "a certificate of the barred CA was taken");
    lab.start_registry()?;
    whole(pinger.now()).context("the node that was away does not come back")?;
    assert_eq!(between(away), Some(second));
    Ok(())
}
