//! Runs a real Alertmanager (Debian package `prometheus-alertmanager`) with the shipped example of its configuration.

use crate::{Lab, http, process::Process, wait::wait_until};
use anyhow::{Context, Result};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

/// Where Alertmanager answers, inside the namespace of the internet.
pub(super) const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9093);
/// Time until Alertmanager answers after its start.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running Alertmanager, in the namespace of the internet.
pub struct Alertmanager {
    process: Process,
    namespace: String,
}

impl Alertmanager {
    /// Starts Alertmanager, and waits until it is ready.
    ///
    /// # Errors
    /// Fails if Alertmanager cannot be started, or does not answer.
    pub fn start(lab: &Lab) -> Result<Self> {
        let folder = lab.folder().join("alertmanager");
        fs::create_dir_all(&folder)?;
        let example = Path::new(env!("CARGO_MANIFEST_DIR"));
        let example = example.join("../dashboards/prometheus/alertmanager.yml");
        let arguments = [
            format!("--config.file={}", example.display()),
            format!("--storage.path={}", folder.join("data").display()),
            format!("--web.listen-address={ADDRESS}"),
            // One instance needs no cluster.
            "--cluster.listen-address=".to_owned(),
        ];
        let namespace = lab.internet_namespace();
        let program = Path::new("prometheus-alertmanager");
        let process = Process::start(&namespace, program, arguments, &folder.join("log"))?;
        let started = Self { process, namespace };
        wait_until(START_TIMEOUT, || started.active().ok()).with_context(|| {
            let log = started.process.log_tail(20);
            format!("Alertmanager does not answer:\n{log}")
        })?;
        Ok(started)
    }

    /// Returns the names of all alerts that Alertmanager has been sent and that have not ended, inhibited ones included.
    ///
    /// # Errors
    /// Fails if Alertmanager does not answer.
    pub fn active(&self) -> Result<BTreeSet<String>> {
        let answer = http::get_inside(&self.namespace, ADDRESS, "/api/v2/alerts")?;
        let alerts: Vec<Value> = serde_json::from_str(&answer)?;
        let name = |alert: &Value| Some(alert.pointer("/labels/alertname")?.as_str()?.to_owned());
        let names = alerts.iter().map(name).collect::<Option<_>>();
        names.context("an alert without a name")
    }
}
