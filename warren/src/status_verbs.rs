//! `warren status`, `tunnels`, `peers`, `routes`, `hosts`, `why`, `events`, `ping` and `trace` show what the running daemon reports.
//!
//! Each verb fetches one document of `wire::control` and prints it for people; with `--json` the document is printed as it came.

mod events;
mod format;
mod hole_punching;
mod hosts;
mod lan;
mod layout;
mod path;
mod peers;
mod routes;
mod status;
mod subject;
mod tunnels;
mod why;

use crate::{
    control_client::{self, ControlError},
    output::fail,
};
use clap::Args;
pub(crate) use events::{EventsArgs, events};
pub(crate) use format::{
    milliseconds, node as node_label, percent, printable as printable_text, utc_time,
};
pub(crate) use path::{PingArgs, TraceArgs, ping, trace};
use policies::names::Slot;
use serde::de::DeserializeOwned;
use std::{
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};
use subject::Subject;
pub(crate) use why::sentence as sentence_of_decision;
use wire::control::{
    DECISIONS_PATH, DecisionsDocument, HEALTHY, NAMES_PATH, NamesDocument, PEERS_PATH,
    PeersDocument, ROUTES_PATH, RoutesDocument, STATUS_PATH, StatusDocument, TUNNELS_PATH,
    TunnelsDocument,
};
use wire::map::{MAP_DOCUMENT_PATH, MapDocument};

/// Exit code of `warren status` for a node that is degraded or not ready.
const NOT_HEALTHY: u8 = 1;

/// What each verb takes: which daemon to ask, and how to print its answer.
#[derive(Args, Clone, Debug)]
pub(crate) struct ShowArgs {
    /// The folder below which all files of the node lie
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Print the daemon's document as JSON
    #[arg(long)]
    json: bool,
    /// Show all columns, and break no line, however narrow the terminal is
    #[arg(long)]
    wide: bool,
}

impl ShowArgs {
    /// Returns the number of columns that the output may have; `None` for any number.
    fn width(&self) -> Option<usize> {
        layout::width(self.wide)
    }
}

/// The arguments of `warren why`.
#[derive(Args, Clone, Debug)]
pub(crate) struct WhyArgs {
    /// Show only this tunnel (wrn0) or peer (its name, or its prefix such as 7/16)
    #[arg(value_name = "TUNNEL|PEER")]
    subject: Option<String>,
    #[command(flatten)]
    show: ShowArgs,
}

/// The arguments of `warren hosts`.
#[derive(Args, Clone, Debug)]
pub(crate) struct HostsArgs {
    /// The domain of the names [default: the bits of the network's range, such as fd12-3456-789a.internal]
    #[arg(long, value_name = "DOMAIN", value_parser = hosts::domain)]
    domain: Option<String>,
    /// List all known nodes instead, with prefix, address and name
    #[arg(long, conflicts_with = "domain")]
    all: bool,
    #[command(flatten)]
    show: ShowArgs,
}

/// `warren status`: shows the state of the node.
pub(crate) fn status(args: &ShowArgs) -> ExitCode {
    show(args, STATUS_PATH, |document: &StatusDocument| {
        let is_healthy = document.health.state == HEALTHY;
        let code = if is_healthy { 0 } else { NOT_HEALTHY };
        (status::render(document, args.width()), code)
    })
}

/// `warren tunnels`: lists the tunnels.
pub(crate) fn tunnels(args: &ShowArgs) -> ExitCode {
    show(args, TUNNELS_PATH, |document: &TunnelsDocument| {
        (tunnels::render(document, args.width()), 0)
    })
}

/// `warren peers`: lists the peers that the node could dial.
pub(crate) fn peers(args: &ShowArgs) -> ExitCode {
    show(args, PEERS_PATH, |document: &PeersDocument| {
        (peers::render(document, args.width()), 0)
    })
}

/// `warren routes`: lists babeld's neighbours and routes.
pub(crate) fn routes(args: &ShowArgs) -> ExitCode {
    show(args, ROUTES_PATH, |document: &RoutesDocument| {
        (routes::render(document, args.width()), 0)
    })
}

/// `warren why`: explains the recent decisions and the present verdicts.
pub(crate) fn why(args: &WhyArgs) -> ExitCode {
    let (body, document) = match fetch::<DecisionsDocument>(&args.show, DECISIONS_PATH) {
        Ok(fetched) => fetched,
        Err(code) => return code,
    };
    let subject = match &args.subject {
        None => None,
        Some(text) => match fetch(&args.show, NAMES_PATH) {
            Ok((_, names)) => match Subject::find(text, &document, &names) {
                Ok(subject) => Some(subject),
                Err(error) => return fail(&error, 1),
            },
            Err(code) => return code,
        },
    };
    let text = why::render(&document, subject.as_ref());
    let text = layout::wrap(&text, args.show.width());
    print(&args.show, body, &text, 0)
}

/// `warren map`: draws the network as this node knows it, as SVG.
pub(crate) fn map(args: &ShowArgs) -> ExitCode {
    show(args, MAP_DOCUMENT_PATH, |document: &MapDocument| {
        (map::svg(document), 0)
    })
}

/// `warren hosts`: prints the names and addresses of nodes as lines for `/etc/hosts`.
pub(crate) fn hosts(args: &HostsArgs) -> ExitCode {
    show(&args.show, NAMES_PATH, |document: &NamesDocument| {
        let text = if args.all {
            hosts::render_all(document)
        } else {
            hosts::render(document, args.domain.as_deref())
        };
        (text, 0)
    })
}

/// Returns the slot, or the prefix of the node, that an argument means.
pub(crate) fn resolve_subject(socket: &Path, text: &str) -> Result<String, ExitCode> {
    if text.parse::<Slot>().is_ok() {
        return Ok(text.to_owned());
    }
    let names = control_client::get(socket, NAMES_PATH)
        .and_then(|body| serde_json::from_str(&body).map_err(ControlError::InvalidDocument));
    let names = names.map_err(|error| fail(&error, error.exit_code()))?;
    let found = subject::find_node(text, &names).map_err(|error| fail(&error, 1))?;
    Ok(found.prefix.clone())
}

/// Fetches a document; returns it as it came, too.
fn fetch<D: DeserializeOwned>(args: &ShowArgs, path: &str) -> Result<(String, D), ExitCode> {
    let socket = config::paths::Paths::new(&args.root).control();
    let fetched = control_client::get(&socket, path).and_then(|body| {
        let document = serde_json::from_str(&body).map_err(ControlError::InvalidDocument)?;
        Ok((body, document))
    });
    fetched.map_err(|error| fail(&error, error.exit_code()))
}

/// Fetches a document and prints it; `render` returns the text for people and the exit code.
fn show<D: DeserializeOwned>(
    args: &ShowArgs,
    path: &str,
    render: impl Fn(&D) -> (String, u8),
) -> ExitCode {
    match fetch(args, path) {
        Ok((body, document)) => {
            let (text, code) = render(&document);
            print(args, body, &text, code)
        }
        Err(code) => code,
    }
}

/// Prints a document: as it came with `--json`, else its text for people. Returns the exit code.
fn print(args: &ShowArgs, body: String, text: &str, code: u8) -> ExitCode {
    let text = if args.json {
        body
    } else {
        without_trailing_blanks(text)
    };
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => ExitCode::from(code),
        // The reader of a pipe may stop early, as in `warren why | head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::from(code),
        Err(error) => fail(&error, 1),
    }
}

/// Removes the blanks with which tables fill their last column.
fn without_trailing_blanks(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}
