//! `warren dial`, `close`, `pin` and `unpin`: orders of an operator to the running daemon.

use crate::{
    control_client::{self, ControlError},
    output::{fail, print_line},
    status_verbs::{node_label, resolve_subject},
};
use clap::Args;
use config::paths::Paths;
use std::{path::PathBuf, process::ExitCode};
use wire::control::{CLOSE_PATH, DIAL_PATH, OperatorDocument, PIN_PATH, UNPIN_PATH};

/// The arguments of all orders.
#[derive(Args, Clone, Debug)]
pub(crate) struct OrderArgs {
    /// A node by its name or prefix (7/16), or a tunnel (wrn0)
    #[arg(value_name = "TUNNEL|NODE")]
    subject: String,
    /// The folder below which all files of the node lie
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Print the daemon's document as JSON
    #[arg(long)]
    json: bool,
}

/// `warren dial`: opens a tunnel to a node now.
pub(crate) fn dial(args: &OrderArgs) -> ExitCode {
    order(args, DIAL_PATH)
}

/// `warren close`: closes a tunnel that this node dialled.
pub(crate) fn close(args: &OrderArgs) -> ExitCode {
    order(args, CLOSE_PATH)
}

/// `warren pin`: keeps the tunnels to a node.
pub(crate) fn pin(args: &OrderArgs) -> ExitCode {
    order(args, PIN_PATH)
}

/// `warren unpin`: lets the policy close tunnels to a node again.
pub(crate) fn unpin(args: &OrderArgs) -> ExitCode {
    order(args, UNPIN_PATH)
}

fn order(args: &OrderArgs, path: &str) -> ExitCode {
    let socket = Paths::new(&args.root).control();
    let subject = match resolve_subject(&socket, &args.subject) {
        Ok(subject) => subject,
        Err(code) => return code,
    };
    let answered = control_client::post(&socket, &format!("{path}?subject={subject}"));
    let answered = answered.and_then(|body| {
        let document: OperatorDocument =
            serde_json::from_str(&body).map_err(ControlError::InvalidDocument)?;
        Ok((body, document))
    });
    match answered {
        Ok((body, _)) if args.json => print_line(body),
        Ok((_, document)) => print_line(sentence(&document)),
        Err(error) => return fail(&error, error.exit_code()),
    }
    ExitCode::SUCCESS
}

fn sentence(document: &OperatorDocument) -> String {
    let node = node_label(&document.node, document.node_name.as_deref());
    let tunnel = document.tunnel.as_deref().unwrap_or("the tunnel");
    match document.order.as_str() {
        "dial" => format!("dialling {node}; warren events -f shows what comes of it"),
        "close" => format!(
            "{tunnel} to {node}: traffic moves away, then it closes; it stays if it turns out to be the only route to some node \
             (warren events -f shows it)"
        ),
        "pin" => format!(
            "{node} is pinned: the policy closes no tunnel to it, and dials it if there is none; until warren unpin, or a restart"
        ),
        _ => format!("{node} is not pinned any more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_order_is_confirmed_by_what_follows() {
        let document = |order: &str| OperatorDocument {
            version: wire::control::VERSION,
            order: order.into(),
            tunnel: Some("wrn2".into()),
            node: "9/16".into(),
            node_name: Some("printer".into()),
        };
        for (order, expected) in [
            ("dial", "dialling printer (9/16);"),
            ("close", "wrn2 to printer (9/16): traffic moves away"),
            ("pin", "printer (9/16) is pinned"),
            ("unpin", "printer (9/16) is not pinned any more"),
        ] {
            assert!(sentence(&document(order)).starts_with(expected), "{order}");
        }
    }
}
