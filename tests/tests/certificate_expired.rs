//! A node's certificate ends while it is off: it waits for the registry, renews it, and is there again.

use anyhow::{Context, Result, ensure};
use lab::{Lab, Options, is_left_out, measure::certificate_end, process::wait_until};
use std::time::Duration;

#[test]
fn a_node_that_is_late_waits_for_the_registry_or_the_end_and_renews_its_certificate() -> Result<()>
{
    if is_left_out("late_node") {
        return Ok(());
    }
    let life = Some(Duration::from_secs(10));
    let lab = Lab::joined(Options {
        nodes: 1,
        certificate_life: life,
        ..Options::default()
    })?;
    lab.stop_registry();
    let node = lab.node(0)?;
    let certificate = node.root().join("etc/warren/node.crt");
    let ends = [
        "x509",
        "-noout",
        "-checkend",
        "0",
        "-in",
        &certificate.to_string_lossy(),
    ]
    .map(str::to_owned);
    let ends: Vec<&str> = ends.iter().map(String::as_str).collect();
    let ended = wait_until(Duration::from_secs(30), || {
        node.command("openssl", &ends).err().map(drop)
    });
    ended.context("the certificate does not end")?;

    node.start()?;
    let line = "the certificate expired on";
    let said = wait_until(Duration::from_secs(20), || {
        node.log_tail(20).contains(line).then_some(())
    });
    said.with_context(|| format!("it does not say why it waits: {}", node.log_tail(20)))?;
    ensure!(node.ended().is_none(), "it gave up: {}", node.log_tail(20));
    let stopped = node.stop().context("it does not stop")?;
    ensure!(stopped.success(), "{stopped}: {}", node.log_tail(20));
    node.start()?;

    lab.start_registry()?;
    let runs = wait_until(Duration::from_secs(60), || certificate_end(node).ok());
    runs.with_context(|| format!("it is not back: {}", node.log_tail(20)))?;
    node.stop().context("it does not stop")?;
    Ok(())
}
