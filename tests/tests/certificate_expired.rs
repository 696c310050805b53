//! A node's certificate expires while its daemon does not run: the daemon waits for the registry, renews the
//! certificate, and is part of the network again.

use anyhow::{Context, Result, ensure};
use lab::{Lab, Options, is_skipped_without_root, wait::wait_until};
use std::time::Duration;

/// Lifetime of the node's certificate.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(10);
/// What the daemon logs while it waits for the registry.
const WAITING_LINE: &str = "the certificate expired on";

#[test]
fn a_daemon_with_an_expired_certificate_waits_for_the_registry_and_renews_it() -> Result<()> {
    if is_skipped_without_root("certificate_expired") {
        return Ok(());
    }
    let lab = Lab::build_joined(Options {
        nodes: 1,
        certificate_life: Some(CERTIFICATE_LIFE),
        ..Options::default()
    })?;
    lab.stop_registry();
    let node = lab.node(0)?;
    let certificate = node.root().join("var/lib/warren/node.crt");
    let certificate = certificate.to_string_lossy();
    let check_expiry = ["x509", "-noout", "-checkend", "0", "-in", &certificate];
    let expired = wait_until(Duration::from_secs(30), || {
        node.command("openssl", &check_expiry).err()
    });
    expired.context("the certificate did not expire within 30 s")?;

    node.start()?;
    let is_waiting = || node.log_tail(20).contains(WAITING_LINE).then_some(());
    wait_until(Duration::from_secs(20), is_waiting)
        .with_context(|| node.describe("did not log why it waits"))?;
    ensure!(
        node.exit_status().is_none(),
        "{}",
        node.describe("gave up waiting")
    );
    node.stop_cleanly()?;
    node.start()?;

    lab.start_registry()?;
    let expiry = wait_until(Duration::from_secs(60), || node.certificate_expiry().ok());
    expiry.with_context(|| node.describe("did not come back within a minute"))?;
    node.stop().context("the daemon did not stop in time")?;
    Ok(())
}
