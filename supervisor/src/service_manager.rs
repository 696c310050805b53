//! Reports to systemd (sd_notify(3)): readiness once the child processes run, one line about the node, and the answer to
//! the watchdog.
//!
//! Without systemd there is no receiver, and nothing happens.

use crate::graph::Graph;
use actors::{
    guardian::heartbeats,
    sinks::telemetry::{Published, Row, Snapshot},
};
use os::process::ProcessReading;
use policies::names::Transport;
use sd_notify::NotifyState;
use std::{cell::Cell, time::Duration};

/// Interval between two checks whether the children run, until they do.
const START_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Interval at which the line about the node is updated.
const STATUS_INTERVAL: Duration = Duration::from_secs(2);

/// Divides the watchdog's timeout into the interval between two answers.
const ANSWERS_PER_TIMEOUT: u32 = 3;

/// Reports that a server of another kind, the registry, is ready, and one line about it.
pub fn report_ready(line: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(line)]);
}

/// Sends states to systemd.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd not notified");
    }
}

/// Reports that the configuration is being reloaded, if the node was ready.
pub(crate) fn report_reload(is_ready: &Cell<bool>) {
    if is_ready.get() {
        let now = NotifyState::monotonic_usec_now().ok();
        let states: Vec<_> = [NotifyState::Reloading].into_iter().chain(now).collect();
        notify(&states);
    }
}

/// Reports that the reload has finished.
pub(crate) fn report_reloaded(is_ready: &Cell<bool>) {
    if is_ready.get() {
        notify(&[NotifyState::Ready]);
    }
}

/// Reports that the node stops. If it was never ready, the reason stays visible.
pub(crate) fn report_stop(is_ready: &Cell<bool>) {
    let status = is_ready.get().then_some(NotifyState::Status("stopping"));
    let states: Vec<_> = [NotifyState::Stopping].into_iter().chain(status).collect();
    notify(&states);
}

/// Answers systemd's watchdog for as long as all actors run. Returns at once if there is no watchdog.
pub(crate) async fn answer_watchdog() {
    let Some(timeout) = sd_notify::watchdog_enabled() else {
        return;
    };
    let interval = timeout / ANSWERS_PER_TIMEOUT;
    let limit = interval.max(heartbeats::INTERVAL * 2);
    loop {
        let silent = heartbeats::silent_actors(limit);
        if silent.is_empty() {
            notify(&[NotifyState::Watchdog]);
        } else {
            tracing::error!(
                actors = silent.join(", "),
                seconds = limit.as_secs(),
                "actors do not run; the watchdog of systemd is not answered, which restarts the daemon"
            );
        }
        tokio::time::sleep(interval).await;
    }
}

/// Reports how the node does, for ever: readiness as soon as babeld and the servers run, and one line whenever it
/// changes. `is_ready` is set when readiness was reported.
pub(crate) async fn report(
    graph: &Graph,
    published: &Published,
    servers: &[(Transport, u16)],
    is_ready: &Cell<bool>,
) {
    let mut expected = vec!["babeld".to_owned()];
    expected.extend(
        servers
            .iter()
            .map(|(transport, _)| format!("server-{transport}")),
    );
    let mut last_line = String::new();
    loop {
        let problem = problem(&expected, &graph.processes());
        if problem.is_none() && !is_ready.get() {
            is_ready.set(true);
            notify(&[NotifyState::Ready]);
            tracing::info!("ready: all child processes run");
        }
        let line = match problem {
            Some(problem) if !is_ready.get() => format!("starting; {problem}"),
            problem => status_line(&published.load(), problem),
        };
        if line != last_line {
            notify(&[NotifyState::Status(&line)]);
            last_line = line;
        }
        let interval = if is_ready.get() {
            STATUS_INTERVAL
        } else {
            START_CHECK_INTERVAL
        };
        tokio::time::sleep(interval).await;
    }
}

/// Returns which expected process does not run, and why; `None` if all run.
fn problem(expected: &[String], processes: &[ProcessReading]) -> Option<String> {
    expected.iter().find_map(|name| {
        let process = processes.iter().find(|process| process.name == *name);
        if process.is_some_and(|process| process.ready) {
            return None;
        }
        let failure = process.and_then(|process| process.failure.as_deref());
        Some(match failure {
            Some(failure) => format!("{name} does not run: {failure}"),
            None => format!("{name} does not run yet"),
        })
    })
}

fn status_line(node: &Snapshot, problem: Option<String>) -> String {
    let tunnels = node.rows.live().filter(|row| Row::is_up(row)).count();
    let gateway = node.gateway().map(|gateway| node.names.describe(gateway));
    describe(tunnels, node.nodes_reachable, gateway, problem)
}

/// Returns the line about the node, such as "3 tunnels, 41 nodes, exit gateway 9/16".
fn describe(
    tunnels: usize,
    nodes: u64,
    gateway: Option<String>,
    problem: Option<String>,
) -> String {
    let plural = |is_one| if is_one { "" } else { "s" };
    let (tunnel_s, node_s) = (plural(tunnels == 1), plural(nodes == 1));
    let mut line = format!("{tunnels} tunnel{tunnel_s}, {nodes} node{node_s}");
    if let Some(gateway) = gateway {
        line += &format!(", exit gateway {gateway}");
    }
    if let Some(problem) = problem {
        line += &format!("; {problem}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(name: &str, ready: bool, failure: Option<&str>) -> ProcessReading {
        ProcessReading {
            name: name.to_owned(),
            pid: None,
            ready,
            starts: 1,
            exits: Default::default(),
            stale: false,
            failure: failure.map(str::to_owned),
        }
    }

    #[track_caller]
    fn check_problem(processes: &[ProcessReading], expected: Option<&str>) {
        let names = ["babeld".to_owned(), "server-udp".to_owned()];
        assert_eq!(problem(&names, processes).as_deref(), expected);
    }

    #[test]
    fn the_first_process_that_does_not_run_is_named_with_the_reason() {
        let babeld = process("babeld", true, Some("it exited with 1: no socket"));
        let denied = Some("cannot become user 60197: Operation not permitted");
        check_problem(&[], Some("babeld does not run yet"));
        check_problem(
            &[process("babeld", false, None)],
            Some("babeld does not run yet"),
        );
        check_problem(
            &[babeld.clone(), process("server-udp", false, denied)],
            Some("server-udp does not run: cannot become user 60197: Operation not permitted"),
        );
        check_problem(&[babeld, process("server-udp", true, None)], None);
    }

    #[test]
    fn the_line_counts_tunnels_and_nodes_and_names_the_gateway_and_a_problem() {
        let gateway = Some("9/16".to_owned());
        let problem = Some("babeld does not run yet".to_owned());
        assert_eq!(describe(1, 1, None, None), "1 tunnel, 1 node");
        assert_eq!(
            describe(3, 41, gateway, None),
            "3 tunnels, 41 nodes, exit gateway 9/16"
        );
        assert_eq!(
            describe(0, 0, None, problem),
            "0 tunnels, 0 nodes; babeld does not run yet"
        );
    }
}
