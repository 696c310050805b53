//! A real Prometheus that scrapes all nodes and the registry of a lab once a second, and loads the shipped rules.

mod alertmanager;
mod short_rules;

pub use alertmanager::Alertmanager;
pub use short_rules::{SHORT_FOR_S, short_rules};

use crate::{Lab, Node, http, network::REGISTRY_METRICS_PORT, process::Process, wait::wait_until};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// Where nodes serve their metrics, on all addresses.
pub const NODE_PORT: u16 = 9197;
/// Where Prometheus answers, inside the namespace of the internet.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
/// Time until Prometheus answers after its start.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// The name of the job that scrapes nodes.
pub const NODES_JOB: &str = "nodes";
/// The name of the job that scrapes the registry.
pub const REGISTRY_JOB: &str = "registry";

/// One element of a result: labels and value.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The labels, without those that are empty.
    pub labels: BTreeMap<String, String>,
    /// The newest value.
    pub value: f64,
}

/// A running Prometheus.
pub struct Prometheus {
    process: Process,
    namespace: String,
}

impl Prometheus {
    /// Lets each node serve its metrics on all addresses, and routers pass them on. To be called before the nodes are started.
    ///
    /// # Errors
    /// Fails if a configuration cannot be changed, or if a router's kernel rejects a rule.
    pub fn configure_nodes(lab: &Lab) -> Result<()> {
        for router in lab.nat_routers() {
            router.forward_tcp_port(NODE_PORT)?;
        }
        lab.nodes().iter().try_for_each(Self::configure_node)
    }

    /// Lets one node serve its metrics on all addresses, from its next start on.
    ///
    /// # Errors
    /// Fails if the configuration cannot be changed.
    pub fn configure_node(node: &Node) -> Result<()> {
        node.configure("metrics", &format!("'[::]:{NODE_PORT}'"))
    }

    /// Starts Prometheus with the rules in this file.
    ///
    /// # Errors
    /// Fails if Prometheus cannot be started, or does not answer.
    pub fn start(lab: &Lab, rules: &Path) -> Result<Self> {
        Self::start_in(lab, lab.internet_namespace(), &configuration(lab, rules)?)
    }

    /// Starts Prometheus with the rules in this file, so that it sends alerts to a running [`Alertmanager`].
    ///
    /// # Errors
    /// Fails if Prometheus cannot be started, or does not answer.
    pub fn start_with_alerts(lab: &Lab, rules: &Path) -> Result<Self> {
        let address = alertmanager::ADDRESS;
        let targets =
            format!("alertmanagers: [{{ static_configs: [{{ targets: ['{address}'] }}] }}]");
        let configuration = configuration(lab, rules)?;
        let configuration = format!("{configuration}alerting: {{ {targets} }}\n");
        Self::start_in(lab, lab.internet_namespace(), &configuration)
    }

    /// Starts Prometheus with these jobs beside that of the registry, and with the rules in this file.
    ///
    /// # Errors
    /// Fails if Prometheus cannot be started, or does not answer.
    pub fn start_with_jobs(lab: &Lab, rules: &Path, jobs: &str) -> Result<Self> {
        let registry = registry_target(lab);
        let registry = format!(
            "- job_name: {REGISTRY_JOB}\n  scrape_interval: 15s\n  static_configs: [{{ targets: ['{registry}'] }}]\n"
        );
        let rules = format!("rule_files: ['{}']\n", rules.display());
        let configuration = format!("{rules}scrape_configs:\n{registry}{jobs}");
        Self::start_in(lab, lab.internet_namespace(), &configuration)
    }

    /// Starts Prometheus on a member of the network, without rules; it gets the list of nodes from the registry.
    ///
    /// # Errors
    /// Fails if Prometheus cannot be started, or does not answer.
    pub fn start_on_member(lab: &Lab, member: &Node) -> Result<Self> {
        let targets = format!("http://{}/targets", registry_target(lab));
        let discovery = format!("http_sd_configs: [{{ url: '{targets}', refresh_interval: 5s }}]");
        let job = format!("scrape_configs:\n- job_name: {NODES_JOB}\n  {discovery}\n");
        let configuration = format!("global: {{ scrape_interval: 1s }}\n{job}");
        Self::start_in(lab, member.namespace().to_owned(), &configuration)
    }

    fn start_in(lab: &Lab, namespace: String, configuration: &str) -> Result<Self> {
        let folder = lab.folder().join("prometheus");
        fs::create_dir_all(&folder)?;
        let file = folder.join("prometheus.yml");
        fs::write(&file, configuration)?;
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.join("data").display()),
            format!("--web.listen-address={ADDRESS}"),
        ];
        let log = folder.join("log");
        let process = Process::start(&namespace, "prometheus".as_ref(), arguments, &log)?;
        let started = Self { process, namespace };
        wait_until(START_TIMEOUT, || started.query("vector(1)").ok())
            .with_context(|| format!("Prometheus does not answer:\n{}", started.log_tail()))?;
        Ok(started)
    }

    /// The namespace in which it answers at [`Prometheus::url`].
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Where it answers inside its namespace.
    pub fn url(&self) -> String {
        format!("http://{ADDRESS}")
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        self.process.log_tail(20)
    }

    /// Returns the answer to `GET` of this path.
    ///
    /// # Errors
    /// Fails if Prometheus does not answer, or reports an error.
    pub fn get(&self, path: &str) -> Result<Value> {
        let answer: Value =
            serde_json::from_str(&http::get_inside(&self.namespace, ADDRESS, path)?)?;
        ensure!(
            answer
                .pointer("/status")
                .is_some_and(|status| status == "success"),
            "{path}: {answer}"
        );
        Ok(answer)
    }

    /// Returns the newest values of a query.
    ///
    /// # Errors
    /// Fails if Prometheus does not answer, or rejects the query.
    pub fn query(&self, query: &str) -> Result<Vec<Sample>> {
        self.samples(query, "")
    }

    /// Returns the values of a query at this time, in seconds since 1970.
    ///
    /// # Errors
    /// Fails as [`Prometheus::query`] does.
    pub fn query_at(&self, query: &str, time: u64) -> Result<Vec<Sample>> {
        self.samples(query, &format!("&time={time}"))
    }

    fn samples(&self, query: &str, parameters: &str) -> Result<Vec<Sample>> {
        let encoded = percent_encoded(query);
        let path = format!("/api/v1/query?query={encoded}{parameters}");
        let answer = self.get(&path).with_context(|| query.to_owned())?;
        let results = answer.pointer("/data/result").and_then(Value::as_array);
        let results = results.context("no result")?;
        let sample = |result: &Value| {
            let labels = result.pointer("/metric")?.as_object()?;
            let label =
                |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
            Some(Sample {
                labels: labels.iter().filter_map(label).collect(),
                value: result.pointer("/value/1")?.as_str()?.parse().ok()?,
            })
        };
        let samples = results.iter().map(sample).collect::<Option<_>>();
        samples.with_context(|| format!("{query}: {answer}"))
    }

    /// Returns the value of a query that has one result.
    ///
    /// # Errors
    /// Fails as [`Prometheus::query`] does, or if there is not exactly one result.
    pub fn value(&self, query: &str) -> Result<f64> {
        let samples = self.query(query)?;
        match samples.as_slice() {
            [only] => Ok(only.value),
            others => anyhow::bail!("{query} has {} results", others.len()),
        }
    }

    /// Returns whether an alert fires.
    ///
    /// # Errors
    /// Fails as [`Prometheus::query`] does.
    pub fn fires(&self, alert: &str) -> Result<bool> {
        let query = format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}");
        Ok(!self.query(&query)?.is_empty())
    }

    /// Returns the names of all alerts that fire.
    ///
    /// # Errors
    /// Fails as [`Prometheus::query`] does.
    pub fn firing(&self) -> Result<Vec<String>> {
        let alerts = self.query("count by (alertname) (ALERTS{alertstate=\"firing\"})")?;
        let name = |alert: Sample| alert.labels.get("alertname").cloned();
        Ok(alerts.into_iter().filter_map(name).collect())
    }
}

/// The shipped rules.
pub fn shipped_rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/prometheus/warren.rules.yml")
}

/// Returns the address at which Prometheus scrapes a node.
pub fn node_target(index: usize) -> String {
    format!("45.67.1.{}:{NODE_PORT}", index + 1)
}

/// Returns the address at which the registry serves its metrics.
fn registry_target(lab: &Lab) -> String {
    format!("{}:{REGISTRY_METRICS_PORT}", lab.registry_address())
}

fn configuration(lab: &Lab, rules: &Path) -> Result<String> {
    let target = |index| format!("{}:{NODE_PORT}", lab.uplink_address(index));
    let nodes: Vec<_> = (0..lab.nodes().len()).map(target).collect();
    let registry = registry_target(lab);
    let mut text = "global: { scrape_interval: 1s, evaluation_interval: 1s }\n".to_owned();
    writeln!(text, "rule_files: ['{}']\nscrape_configs:", rules.display())?;
    for (job, targets) in [(NODES_JOB, nodes), (REGISTRY_JOB, vec![registry])] {
        let targets: Vec<_> = targets.iter().map(|target| format!("'{target}'")).collect();
        let targets = targets.join(", ");
        writeln!(
            text,
            "- job_name: {job}\n  static_configs: [{{ targets: [{targets}] }}]"
        )?;
    }
    Ok(text)
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        // A string can always grow.
        write!(encoded, "%{byte:02X}").ok();
        encoded
    })
}
