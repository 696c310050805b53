//! `warren events`: what changed lately, and with `--follow` what changes from now on.

use super::{
    ShowArgs,
    format::{float, node, printable, split_numbers, time_span, utc_time},
    subject::Subject,
    why,
};
use crate::{
    control_client::{self, ControlError},
    output::{fail, pause, print_error_line},
};
use clap::Args;
use map::text::bytes;
use std::{
    io::{self, ErrorKind, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};
use wire::control::{
    ChangedNodes, ClosedTunnel, DECISIONS_PATH, DecidedOrder, EVENTS_PATH, Event, EventEntry,
    EventsDocument, ExitedProcess, FailedDials, LeasedPort, NAMES_PATH,
};

/// How long the daemon may hold an answer back until something happens, in seconds.
const WAIT_S: u64 = 30;

/// Longest time for an answer that may be held back.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(WAIT_S + 5);

/// Interval at which a daemon that went away is asked for again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The arguments of `warren events`.
#[derive(Args, Clone, Debug)]
pub(crate) struct EventsArgs {
    /// Show only events of this tunnel (wrn0) or node (its name, or its prefix such as 7/16)
    #[arg(value_name = "TUNNEL|NODE")]
    subject: Option<String>,
    /// Go on with what happens from now on, also after a restart of the daemon
    #[arg(short, long)]
    follow: bool,
    /// Show at most this number of past events
    #[arg(short, long, value_name = "COUNT", default_value_t = 100)]
    number: usize,
    /// The folder below which all files of the node lie
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Print each event as one line of JSON
    #[arg(long)]
    json: bool,
}

/// `warren events`: prints the past events, and follows if that was asked for.
pub(crate) fn events(args: &EventsArgs) -> ExitCode {
    let subject = match find_subject(args) {
        Ok(subject) => subject,
        Err(code) => return code,
    };
    let past = match request(args, 0, 0) {
        Ok(document) => document,
        Err(error) => return fail(&error, error.exit_code()),
    };
    let selected: Vec<_> = selected(&past, subject.as_ref()).collect();
    let skipped = selected.len().saturating_sub(args.number);
    let printed = print(args, selected.into_iter().skip(skipped));
    if !args.follow || printed.is_err() {
        return exit_code(printed);
    }
    follow(args, subject.as_ref(), past)
}

/// Prints what happens after the events of this document, until the output is closed or the daemon rejects the request.
fn follow(args: &EventsArgs, subject: Option<&Subject>, mut last: EventsDocument) -> ExitCode {
    let mut is_away = false;
    loop {
        match request(args, last.newest, WAIT_S) {
            Ok(next) if next.started_at != last.started_at && next.newest != 0 => {
                // The numbers of another daemon count from 1 again.
                last = EventsDocument { newest: 0, ..next };
                is_away = false;
            }
            Ok(next) => {
                is_away = false;
                let printed = print(args, selected(&next, subject));
                if printed.is_err() {
                    return exit_code(printed);
                }
                last = next;
            }
            Err(error @ (ControlError::NotRunning { .. } | ControlError::Failed { .. })) => {
                if !is_away {
                    print_error_line(format!("{error}; waiting for it"));
                }
                is_away = true;
                pause(RETRY_INTERVAL);
            }
            Err(error) => return fail(&error, error.exit_code()),
        }
    }
}

fn find_subject(args: &EventsArgs) -> Result<Option<Subject>, ExitCode> {
    let Some(text) = &args.subject else {
        return Ok(None);
    };
    let show = ShowArgs {
        root: args.root.clone(),
        json: args.json,
        wide: true,
    };
    let (_, decisions) = super::fetch(&show, DECISIONS_PATH)?;
    let (_, names) = super::fetch(&show, NAMES_PATH)?;
    match Subject::find(text, &decisions, &names) {
        Ok(subject) => Ok(Some(subject)),
        Err(error) => Err(fail(&error, 1)),
    }
}

/// Asks for the events after a number; the answer may be held back for `wait_s` seconds.
fn request(args: &EventsArgs, after: u64, wait_s: u64) -> Result<EventsDocument, ControlError> {
    let socket = config::paths::Paths::new(&args.root).control();
    let path = format!("{EVENTS_PATH}?after={after}&wait_seconds={wait_s}");
    let body = control_client::get_within(&socket, &path, ANSWER_TIMEOUT)?;
    serde_json::from_str(&body).map_err(ControlError::InvalidDocument)
}

fn selected<'a>(
    document: &'a EventsDocument,
    subject: Option<&'a Subject>,
) -> impl Iterator<Item = &'a EventEntry> {
    document.events.iter().filter(move |entry| match subject {
        None => true,
        Some(Subject::Tunnel(tunnel)) => entry.tunnel.as_ref() == Some(tunnel),
        Some(Subject::Node(node, _)) => entry.node.as_ref() == Some(node),
    })
}

fn print<'a>(args: &EventsArgs, events: impl Iterator<Item = &'a EventEntry>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    for entry in events {
        if args.json {
            let line = serde_json::to_string(entry).map_err(io::Error::other)?;
            writeln!(stdout, "{line}")?;
        } else {
            writeln!(stdout, "{}", line(entry))?;
        }
    }
    stdout.flush()
}

fn exit_code(printed: io::Result<()>) -> ExitCode {
    match printed {
        // The reader of a pipe may stop early, as in `warren events | head`.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => fail(&error, 1),
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

/// One line for people: time, subject, sentence.
fn line(entry: &EventEntry) -> String {
    let time = utc_time(entry.at);
    let peer = entry.node.as_deref();
    let peer = peer.map(|peer| node(peer, entry.node_name.as_deref()));
    let subject = match (&entry.tunnel, peer) {
        (Some(tunnel), Some(peer)) => format!("{tunnel} to {peer}: "),
        (Some(tunnel), None) => format!("{tunnel}: "),
        (None, Some(peer)) => format!("{peer}: "),
        (None, None) => String::new(),
    };
    printable(&format!("{time}  {subject}{}", sentence(&entry.event)))
}

/// What happened, after the tunnel or node that it happened to.
fn sentence(event: &Event) -> String {
    match event {
        Event::DaemonStarted { software } => format!("warren {software} started"),
        Event::TunnelOpened => "opening a tunnel".to_owned(),
        Event::TunnelUp => "up".to_owned(),
        Event::TunnelReconnected { times } => format!("up again, time {times} for this tunnel"),
        Event::TunnelClosed(tunnel) => closed(tunnel),
        Event::DialsFailed(dials) => failed_dials(dials),
        Event::Decided(decision) => decided(decision),
        Event::NodesReached(ChangedNodes { count, reachable }) => {
            format!("{} reachable; {reachable} now", became(*count))
        }
        Event::NodesLost(ChangedNodes { count, reachable }) => {
            format!("{} unreachable; {reachable} left", became(*count))
        }
        Event::ExitGatewayChanged => "exit gateway from now on".to_owned(),
        Event::FalseRoutes { suspicion } => format!("announces false routes: {suspicion}"),
        Event::ProcessExited(process) => exited(process),
        Event::ActorRestarted { actor } => format!("part {actor} restarted after a panic"),
        Event::DocumentChanged {
            document,
            document_version,
        } => format!("document {document}: version {document_version} is in force"),
        Event::CertificateChanged { serial, expires_at } => {
            let expiry = utc_time(expires_at);
            format!("new certificate {serial}, which expires at {expiry}")
        }
        Event::LeaseObtained(port) => format!("the router maps {}", lease(port)),
        Event::LeaseLost(port) => format!("the router no longer maps {}", lease(port)),
        Event::FindingStarted(found) => {
            format!(
                "finding {} ({}): {}",
                found.finding, found.severity, found.seen
            )
        }
        Event::FindingEnded(ended) => {
            let lasted = time_span(ended.lasted_seconds);
            let (finding, severity) = (&ended.finding, &ended.severity);
            format!("finding {finding} ({severity}) ended after {lasted}")
        }
        Event::WaitOverdue { wait } => format!("waited too long ({wait}), and was ended"),
        Event::ConfigurationReloaded { pending_restart } => reloaded(pending_restart),
        Event::Unknown => "an event that this version of the command does not know".to_owned(),
    }
}

fn closed(tunnel: &ClosedTunnel) -> String {
    let reason = &tunnel.reason;
    let sentence = why::explanation("closed", reason, "");
    let sentence = sentence.unwrap_or_else(|| format!("closed: {reason}"));
    let age = time_span(tunnel.lived_seconds);
    let (received, sent) = (bytes(float(tunnel.rx_bytes)), bytes(float(tunnel.tx_bytes)));
    format!("{sentence}; it was up for {age}, received {received} and sent {sent}")
}

fn failed_dials(dials: &FailedDials) -> String {
    let (count, reason) = (dials.count, &dials.reason);
    if count == 1 {
        format!("the dial failed ({reason})")
    } else {
        let over = time_span(dials.over_seconds);
        format!("{count} dials failed within {over} ({reason})")
    }
}

fn decided(decision: &DecidedOrder) -> String {
    let DecidedOrder {
        order,
        reason,
        terms,
    } = decision;
    let sentence = why::explanation(order, reason, terms);
    let sentence = sentence.unwrap_or_else(|| format!("{order}, because: {reason}"));
    let (note, _) = split_numbers(terms);
    if note.is_empty() {
        format!("decided: {sentence}")
    } else {
        format!("decided: {sentence} ({note})")
    }
}

fn exited(process: &ExitedProcess) -> String {
    let cause = process.cause.as_deref().unwrap_or("the cause is not known");
    let (name, exit, starts) = (&process.process, &process.exit, process.starts);
    format!("process {name} exited ({exit}): {cause}; it was started {starts} times")
}

fn lease(port: &LeasedPort) -> String {
    let (external, internal) = (port.external, port.internal_port);
    format!("{} {external} to port {internal}", port.transport)
}

fn reloaded(pending_restart: &[String]) -> String {
    match pending_restart {
        [] => "configuration reloaded".to_owned(),
        keys => {
            let keys = keys.join(", ");
            format!("configuration reloaded; these keys need a restart: {keys}")
        }
    }
}

fn became(count: u64) -> String {
    if count == 1 {
        "1 node became".to_owned()
    } else {
        format!("{count} nodes became")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expected: &str) {
        let entry = format!(r#"{{"version":1,"number":7,"at":"2023-11-14T22:13:20.5Z",{json}}}"#);
        let entry: EventEntry = serde_json::from_str(&entry).unwrap();
        assert_eq!(line(&entry), format!("2023-11-14 22:13:20Z  {expected}"));
    }

    #[test]
    fn each_line_says_what_happened_to_whom() {
        check(
            r#""tunnel":"wrn0","node":"9/16","node_name":"printer","kind":"tunnel_up""#,
            "wrn0 to printer (9/16): up",
        );
        check(
            r#""tunnel":"wrn0","node":"9/16","node_name":null,"kind":"dials_failed","reason":"dial_failed","count":8,
            "over_seconds":100.0"#,
            "wrn0 to 9/16: 8 dials failed within 1m 40s (dial_failed)",
        );
        check(
            r#""tunnel":"wrn0","node":"9/16","node_name":null,"kind":"tunnel_closed","reason":"peer_dead",
            "lived_seconds":4000.0,"rx_bytes":1500,"tx_bytes":7"#,
            "wrn0 to 9/16: closed, because the peer does not answer any more; it was up for 1h 6m, received 1.5 kB and \
             sent 7 B",
        );
        check(
            r#""tunnel":null,"node":null,"node_name":null,"kind":"nodes_lost","count":3,"reachable":4"#,
            "3 nodes became unreachable; 4 left",
        );
    }

    #[test]
    fn texts_cannot_steer_the_terminal_and_an_unknown_kind_is_no_error() {
        check(
            r#""tunnel":null,"node":null,"node_name":null,"kind":"finding_started","finding":"registry_away",
            "severity":"degraded","seen":"no\u001b[31m route""#,
            "finding registry_away (degraded): no?[31m route",
        );
        check(
            r#""tunnel":null,"node":null,"node_name":null,"kind":"moon_landed""#,
            "an event that this version of the command does not know",
        );
    }
}
