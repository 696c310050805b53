//! `warren status`, `tunnels`, `peers`, `routes` and `why` show what the running daemon reports.
//!
//! Each verb fetches one document of `wire::control` and prints it for people; with `--json` the document is printed as it came.

mod format;
mod peers;
mod routes;
mod status;
mod tunnels;
mod why;

use crate::{
    control_client::{self, ControlError},
    output::fail,
};
use clap::Args;
use serde::de::DeserializeOwned;
use std::{
    io::{self, ErrorKind, Write},
    path::PathBuf,
    process::ExitCode,
};
use wire::control::{
    DECISIONS_PATH, DecisionsDocument, PEERS_PATH, PeersDocument, ROUTES_PATH, RoutesDocument,
    STATUS_PATH, StatusDocument, TUNNELS_PATH, TunnelsDocument,
};

/// Exit code of `warren status` for a node that is not ready.
const NOT_READY: u8 = 1;

/// What each verb takes: which daemon to ask, and how to print its answer.
#[derive(Args, Clone, Debug)]
pub(crate) struct ShowArgs {
    /// The folder below which all files of the node lie
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Print the daemon's document as JSON
    #[arg(long)]
    json: bool,
}

/// The arguments of `warren why`.
#[derive(Args, Clone, Debug)]
pub(crate) struct WhyArgs {
    /// Show only this tunnel (wrn0) or peer (7/16)
    #[arg(value_name = "TUNNEL|PEER")]
    name: Option<String>,
    #[command(flatten)]
    show: ShowArgs,
}

/// `warren status`: shows the state of the node.
pub(crate) fn status(args: &ShowArgs) -> ExitCode {
    show(args, STATUS_PATH, |document: &StatusDocument| {
        let code = if document.ready { 0 } else { NOT_READY };
        (status::render(document), code)
    })
}

/// `warren tunnels`: lists the tunnels.
pub(crate) fn tunnels(args: &ShowArgs) -> ExitCode {
    show(args, TUNNELS_PATH, |document: &TunnelsDocument| {
        (tunnels::render(document), 0)
    })
}

/// `warren peers`: lists the peers that the node could dial.
pub(crate) fn peers(args: &ShowArgs) -> ExitCode {
    show(args, PEERS_PATH, |document: &PeersDocument| {
        (peers::render(document), 0)
    })
}

/// `warren routes`: lists babeld's neighbours and routes.
pub(crate) fn routes(args: &ShowArgs) -> ExitCode {
    show(args, ROUTES_PATH, |document: &RoutesDocument| {
        (routes::render(document), 0)
    })
}

/// `warren why`: explains the recent decisions and the present verdicts.
pub(crate) fn why(args: &WhyArgs) -> ExitCode {
    show(
        &args.show,
        DECISIONS_PATH,
        |document: &DecisionsDocument| (why::render(document, args.name.as_deref()), 0),
    )
}

/// Fetches a document and prints it; `render` returns the text for people and the exit code.
fn show<D: DeserializeOwned>(
    args: &ShowArgs,
    path: &str,
    render: impl Fn(&D) -> (String, u8),
) -> ExitCode {
    let socket = config::paths::Paths::new(&args.root).control();
    let fetched = control_client::get(&socket, path).and_then(|body| {
        let document = serde_json::from_str(&body).map_err(ControlError::InvalidDocument)?;
        Ok((body, document))
    });
    let (body, document) = match fetched {
        Ok(fetched) => fetched,
        Err(error) => return fail(&error, error.exit_code()),
    };
    let (text, code) = render(&document);
    let text = if args.json {
        body
    } else {
        without_trailing_blanks(&text)
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
