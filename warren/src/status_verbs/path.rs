//! `warren ping` and `warren trace`: whether packets reach another node, over which nodes, and how long they take.
//!
//! The daemon sends the echo requests, one a call, and this command counts the answers.

use super::{
    ShowArgs, fetch,
    format::{milliseconds, node, or_dash, percent},
    layout::{self, Fit},
    subject::UnknownSubject,
};
use crate::{
    control_client::{self, ControlError},
    output::{fail, pause, print_line},
};
use clap::{Args, value_parser};
use serde::Serialize;
use std::{net::Ipv6Addr, process::ExitCode, time::Duration};
use wire::control::{
    ECHO_PATH, EchoDocument, EchoOutcome, HOP_PATH, NAMES_PATH, NamesDocument, NodeNameEntry,
    VERSION,
};
use wire::peer::NextHopDocument;

/// Exit code if the node did not answer at all.
const NOT_REACHED: u8 = 1;

/// Interval between two requests of `warren ping`.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// The hop limit of a request that shall reach the node.
const FULL_HOP_LIMIT: u8 = 64;

/// The number of hops in a row that may be silent before `warren trace` gives up.
const MAX_SILENT_HOPS: usize = 3;

/// The arguments that both verbs take.
#[derive(Args, Clone, Debug)]
struct PathArgs {
    /// The node: its name, or its prefix such as 7/16
    #[arg(value_name = "NODE")]
    node: String,
    /// How long to wait for each answer, in milliseconds
    #[arg(short = 'W', long, value_name = "TIME", default_value_t = 1000, value_parser = value_parser!(u64).range(10..=5000))]
    wait: u64,
    #[command(flatten)]
    show: ShowArgs,
}

/// The arguments of `warren ping`.
#[derive(Args, Clone, Debug)]
pub(crate) struct PingArgs {
    /// How many requests to send, one a second
    #[arg(short, long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=3600))]
    count: u32,
    #[command(flatten)]
    path: PathArgs,
}

/// The arguments of `warren trace`.
#[derive(Args, Clone, Debug)]
pub(crate) struct TraceArgs {
    /// How many requests to send to each hop; a node answers about six at once and then one a second
    #[arg(short, long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=20))]
    count: u32,
    /// How many hops to look at
    #[arg(short, long, value_name = "COUNT", default_value_t = 16, value_parser = value_parser!(u8).range(1..=64))]
    max_hops: u8,
    #[command(flatten)]
    path: PathArgs,
}

/// What came back of several requests with the same hop limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Answers {
    /// The slot by which the requests left this node.
    tunnel: Option<String>,
    /// The address that answered.
    address: Option<Ipv6Addr>,
    /// The node that answered, by its prefix.
    node: Option<String>,
    /// The name of that node.
    node_name: Option<String>,
    /// The number of requests.
    sent: u32,
    /// The number of answers.
    received: u32,
    /// Whether an answer said that there is no route.
    unreachable: bool,
    /// Share of the requests without an answer, 0 to 1.
    loss_ratio: f64,
    /// Shortest time between request and answer.
    rtt_min_seconds: Option<f64>,
    /// Mean time between request and answer.
    rtt_mean_seconds: Option<f64>,
    /// Longest time between request and answer.
    rtt_max_seconds: Option<f64>,
}

impl Answers {
    fn add(&mut self, echo: &EchoDocument) {
        self.sent += 1;
        self.tunnel = echo.tunnel.clone().or(self.tunnel.take());
        if let (Some(from), Some(rtt)) = (echo.from, echo.rtt_seconds) {
            self.address = Some(from);
            self.node = echo.from_node.clone();
            self.node_name = echo.from_name.clone();
            self.unreachable |= echo.outcome == EchoOutcome::Unreachable;
            let so_far = f64::from(self.received);
            self.received += 1;
            let sum = self.rtt_mean_seconds.unwrap_or(0.0) * so_far + rtt;
            self.rtt_mean_seconds = Some(sum / f64::from(self.received));
            self.rtt_min_seconds = Some(self.rtt_min_seconds.map_or(rtt, |min| min.min(rtt)));
            self.rtt_max_seconds = Some(self.rtt_max_seconds.map_or(rtt, |max| max.max(rtt)));
        }
        self.loss_ratio = f64::from(self.sent - self.received) / f64::from(self.sent);
    }
}

/// What `warren ping --json` prints.
#[derive(Clone, Debug, Serialize)]
struct PingReport {
    version: u32,
    target: NodeNameEntry,
    #[serde(flatten)]
    answers: Answers,
}

/// What `warren trace --json` prints.
#[derive(Clone, Debug, Serialize)]
struct TraceReport {
    version: u32,
    target: NodeNameEntry,
    reached: bool,
    /// The hops in the order of their hop limits, from 1.
    hops: Vec<TracedHop>,
}

/// One hop of a trace.
#[derive(Clone, Debug, Default, Serialize)]
struct TracedHop {
    #[serde(flatten)]
    answers: Answers,
    /// The tunnel by which the node before this one sends packets on, by its own account; `None` if it does not say.
    link: Option<NextHopDocument>,
}

/// `warren ping`: sends echo requests to a node; fails if none was answered.
pub(crate) fn ping(args: &PingArgs) -> ExitCode {
    finish(try_ping(args))
}

fn try_ping(args: &PingArgs) -> Result<bool, Failure> {
    let target = find_target(&args.path)?;
    let mut answers = Answers::default();
    for number in 1..=args.count {
        let echo = request(&args.path, &target, FULL_HOP_LIMIT)?;
        if !args.path.show.json {
            print_line(format!("{number}: {}", sentence(&echo)));
        }
        if echo.outcome == EchoOutcome::Reply {
            answers.add(&echo);
        } else {
            let lost = EchoDocument { from: None, ..echo };
            answers.add(&lost);
        }
        if number < args.count {
            pause(PING_INTERVAL);
        }
    }
    let is_reached = answers.received > 0;
    if args.path.show.json {
        print_json(&PingReport {
            version: VERSION,
            target,
            answers,
        });
    } else {
        print_line(summary(&answers));
    }
    Ok(is_reached)
}

/// `warren trace`: shows each node on the path to a node; fails if the last one does not answer.
pub(crate) fn trace(args: &TraceArgs) -> ExitCode {
    finish(try_trace(args))
}

fn try_trace(args: &TraceArgs) -> Result<bool, Failure> {
    let target = find_target(&args.path)?;
    let (mut hops, mut is_reached, mut silent) = (Vec::<TracedHop>::new(), false, 0);
    for hop_limit in 1..=args.max_hops {
        let before = hops.last().map(|hop| hop.answers.node.as_deref());
        let link = match before {
            None => next_hop(&args.path, None, &target),
            Some(before) => before.and_then(|node| next_hop(&args.path, Some(node), &target)),
        };
        let mut answers = Answers::default();
        for _ in 0..args.count {
            let echo = request(&args.path, &target, hop_limit)?;
            is_reached |= echo.outcome == EchoOutcome::Reply;
            answers.add(&echo);
        }
        silent = if answers.received == 0 { silent + 1 } else { 0 };
        let is_end = is_reached || answers.unreachable || silent == MAX_SILENT_HOPS;
        hops.push(TracedHop { answers, link });
        if is_end {
            break;
        }
    }
    if args.path.show.json {
        print_json(&TraceReport {
            version: VERSION,
            target,
            reached: is_reached,
            hops,
        });
    } else {
        print_line(render_trace(
            &target,
            &hops,
            is_reached,
            args.path.show.width(),
        ));
    }
    Ok(is_reached)
}

/// The reason why nothing could be measured.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The argument means no node.
    #[error(transparent)]
    Unknown(#[from] UnknownSubject),
    /// The daemon gave no usable answer.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The error is printed already.
    #[error("the daemon gave no answer")]
    Printed(ExitCode),
}

fn finish(reached: Result<bool, Failure>) -> ExitCode {
    match reached {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_REACHED),
        Err(Failure::Printed(code)) => code,
        Err(Failure::Control(error)) => fail(&error, error.exit_code()),
        Err(Failure::Unknown(error)) => fail(&error, 1),
    }
}

fn find_target(args: &PathArgs) -> Result<NodeNameEntry, Failure> {
    let (_, names) = fetch::<NamesDocument>(&args.show, NAMES_PATH).map_err(Failure::Printed)?;
    let found = super::subject::find_node(&args.node, &names)?;
    Ok(found.clone())
}

fn request(
    args: &PathArgs,
    target: &NodeNameEntry,
    hop_limit: u8,
) -> Result<EchoDocument, ControlError> {
    let socket = config::paths::Paths::new(&args.show.root).control();
    let (node, wait) = (&target.prefix, args.wait);
    let path = format!("{ECHO_PATH}?node={node}&hop_limit={hop_limit}&wait_milliseconds={wait}");
    let time = Duration::from_millis(wait) + Duration::from_secs(5);
    let body = control_client::post_within(&socket, &path, time)?;
    serde_json::from_str(&body).map_err(ControlError::InvalidDocument)
}

/// Asks by which tunnel a node sends packets to the target; this node if none is given. `None` if the node does not say.
fn next_hop(args: &PathArgs, at: Option<&str>, target: &NodeNameEntry) -> Option<NextHopDocument> {
    let socket = config::paths::Paths::new(&args.show.root).control();
    let at = at.map(|node| format!("at={node}&")).unwrap_or_default();
    let path = format!("{HOP_PATH}?{at}to={}", target.prefix);
    serde_json::from_str(&control_client::get(&socket, &path).ok()?).ok()
}

fn print_json(report: &impl Serialize) {
    // Serialisation cannot fail: the reports are plain structs with text keys.
    print_line(serde_json::to_string(report).unwrap_or_default());
}

/// One answer of `warren ping`, for people.
fn sentence(echo: &EchoDocument) -> String {
    let by = echo.tunnel.as_deref().map(|slot| format!(" by {slot}"));
    let by = by.unwrap_or_default();
    let from = echo.from_node.as_deref();
    let from = from.map(|prefix| node(prefix, echo.from_name.as_deref()));
    let from = or_dash(from);
    match (echo.outcome, echo.rtt_seconds) {
        (EchoOutcome::Reply, Some(rtt)) => {
            format!("answer from {from}{by} in {}", milliseconds(rtt))
        }
        (EchoOutcome::Unreachable, _) => format!("{from} has no route to it"),
        (EchoOutcome::TimeExceeded, _) => {
            format!(
                "{from} dropped the request: it had passed {FULL_HOP_LIMIT} nodes, so routes form a loop"
            )
        }
        (EchoOutcome::Reply | EchoOutcome::Lost, _) => format!("no answer{by} in time"),
    }
}

fn summary(answers: &Answers) -> String {
    let (sent, received) = (answers.sent, answers.received);
    let loss = percent(answers.loss_ratio);
    let times = [
        answers.rtt_min_seconds,
        answers.rtt_mean_seconds,
        answers.rtt_max_seconds,
    ];
    match times.map(|time| time.map(milliseconds)) {
        [Some(min), Some(mean), Some(max)] => format!(
            "{received} of {sent} answered, {loss} lost; shortest {min}, mean {mean}, longest {max}"
        ),
        _ => format!("{received} of {sent} answered, {loss} lost"),
    }
}

fn render_trace(
    target: &NodeNameEntry,
    hops: &[TracedHop],
    is_reached: bool,
    width: Option<usize>,
) -> String {
    const FIT: Fit = Fit {
        numbers: 3..8,
        drop_order: &[5, 3, 4, 2],
        elastic: 1,
    };
    let header = [
        "HOP",
        "NODE",
        "BY TUNNEL",
        "ITS LOSS",
        "ITS RTT",
        "LONGEST",
        "LOST",
        "RTT",
    ];
    let row = |(number, hop): (usize, &TracedHop)| {
        let TracedHop { answers, link } = hop;
        let by = answers.node.as_deref();
        let by = by.map(|prefix| node(prefix, answers.node_name.as_deref()));
        let by = by.or_else(|| answers.address.map(|address| address.to_string()));
        let link = link.as_ref();
        [
            number.to_string(),
            or_dash(by),
            or_dash(link.map(|link| link.tunnel.to_string())),
            or_dash(link.and_then(|link| link.loss_ratio).map(percent)),
            or_dash(link.and_then(|link| link.rtt_seconds).map(milliseconds)),
            or_dash(answers.rtt_max_seconds.map(milliseconds)),
            percent(answers.loss_ratio),
            or_dash(answers.rtt_mean_seconds.map(milliseconds)),
        ]
    };
    let rows = (1..).zip(hops).map(row).collect();
    let table = layout::table(header, rows, &FIT, width);
    let name = node(&target.prefix, target.name.as_deref());
    let lines: Vec<_> = table.lines().map(str::trim_end).collect();
    let end = if is_reached {
        format!("{name} answers after {} hops", hops.len())
    } else {
        format!("{name} does not answer")
    };
    format!("{}\n{end}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to a request with a hop limit of 1, or none.
    fn echo(outcome: &str, from_node: Option<&str>, rtt_seconds: Option<f64>) -> EchoDocument {
        let from = from_node.map(|_| "fd00::8:0:0:0:1");
        let document = serde_json::json!({
            "version": 1, "at": "2023-11-14T22:13:20Z", "node": "9/16", "node_name": "printer",
            "address": "fd00::9:0:0:0:1", "hop_limit": 1, "tunnel": "wrn0", "outcome": outcome, "from": from,
            "from_node": from_node, "from_name": null, "rtt_seconds": rtt_seconds,
        });
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn loss_and_round_trips_are_summed_up() {
        let mut answers = Answers::default();
        answers.add(&echo("reply", Some("9/16"), Some(0.010)));
        answers.add(&echo("reply", Some("9/16"), Some(0.030)));
        answers.add(&echo("lost", None, None));
        answers.add(&echo("lost", None, None));
        assert_eq!(
            summary(&answers),
            "2 of 4 answered, 50.0 % lost; shortest 10.0 ms, mean 20.0 ms, longest 30.0 ms"
        );
    }

    #[test]
    fn each_answer_is_a_sentence() {
        for (answer, expected) in [
            (
                echo("reply", Some("9/16"), Some(0.010)),
                "answer from 9/16 by wrn0 in 10.0 ms",
            ),
            (
                echo("unreachable", Some("8/16"), Some(0.010)),
                "8/16 has no route to it",
            ),
            (echo("lost", None, None), "no answer by wrn0 in time"),
        ] {
            assert_eq!(sentence(&answer), expected);
        }
    }

    #[test]
    fn a_trace_shows_each_hop_and_whether_the_node_answers() {
        let target = NodeNameEntry {
            prefix: "9/16".into(),
            name: Some("printer".into()),
            address: "fd00::9:0:0:0:1".parse().unwrap(),
        };
        let (mut first, mut second) = (Answers::default(), Answers::default());
        first.add(&echo("time_exceeded", Some("8/16"), Some(0.002)));
        second.add(&echo("lost", None, None));
        let link = NextHopDocument {
            version: VERSION,
            prefix: "8/16".parse().unwrap(),
            to: "9/16".parse().unwrap(),
            tunnel: "wrnu.2".parse().unwrap(),
            neighbour: "9/16".parse().unwrap(),
            rtt_seconds: Some(0.003),
            loss_ratio: Some(0.25),
        };
        let hops = [(first, None), (second, Some(link))];
        let hops = hops.map(|(answers, link)| TracedHop { answers, link });
        let text = render_trace(&target, &hops, false, None);
        let lines: Vec<Vec<_>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[1],
            [
                "1", "8/16", "-", "-", "-", "2.0", "ms", "0.0", "%", "2.0", "ms"
            ]
        );
        assert_eq!(
            lines[2],
            [
                "2", "-", "wrnu.2", "25.0", "%", "3.0", "ms", "-", "100.0", "%", "-"
            ]
        );
        assert!(text.ends_with("printer (9/16) does not answer"), "{text}");
    }
}
