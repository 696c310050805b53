//! `warren status`, `tunnels`, `peers`, `routes`, `why`: ask a running daemon and print what it says.
//!
//! Talks HTTP over the control socket and knows the documents of `wire::control`, nothing else. With
//! `--json` the document is printed as it came.

mod tables;

use clap::Args;
use serde::de::DeserializeOwned;
use std::{
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use wire::control::{
    DECISIONS_PATH, DecisionsDocument, PEERS_PATH, PeersDocument, Problem, ROUTES_PATH,
    RoutesDocument, STATUS_PATH, StatusDocument, TUNNELS_PATH, TunnelsDocument,
};

/// Which daemon, and how its answer is printed.
#[derive(Args, Clone, Debug)]
pub(crate) struct AskArgs {
    /// The folder below which all of the daemon's files lie
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
    /// Print the daemon's document (JSON, `"version": 1`)
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `warren why` is asked.
#[derive(Args, Clone, Debug)]
pub(crate) struct WhyArgs {
    /// Only this tunnel (wrn0) or peer (7/16)
    pub(crate) name: Option<String>,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// `warren status`: the node at a glance; exits 1 when it is not ready.
pub(crate) fn status(args: &AskArgs) -> ExitCode {
    show(args, STATUS_PATH, |document: &StatusDocument| {
        (
            tables::status(document),
            if document.ready { 0 } else { NO },
        )
    })
}

/// `warren tunnels`: one line a tunnel.
pub(crate) fn tunnels(args: &AskArgs) -> ExitCode {
    show(args, TUNNELS_PATH, |document: &TunnelsDocument| {
        (tables::tunnels(document), 0)
    })
}

/// `warren peers`: whom the node could dial.
pub(crate) fn peers(args: &AskArgs) -> ExitCode {
    show(args, PEERS_PATH, |document: &PeersDocument| {
        (tables::peers(document), 0)
    })
}

/// `warren routes`: babeld's neighbours and routes.
pub(crate) fn routes(args: &AskArgs) -> ExitCode {
    show(args, ROUTES_PATH, |document: &RoutesDocument| {
        (tables::routes(document), 0)
    })
}

/// `warren why`: what was decided lately, and what the planner thinks now.
pub(crate) fn why(args: &WhyArgs) -> ExitCode {
    show(&args.ask, DECISIONS_PATH, |document: &DecisionsDocument| {
        (tables::decisions(document, args.name.as_deref()), 0)
    })
}

/// Exit code: the answer is no.
const NO: u8 = 1;

/// Longest answer that is read; 256 decisions are some 100 kB.
const LONGEST: u64 = 16 << 20;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no answer; each has its exit code.
#[derive(Debug)]
enum Trouble {
    /// 3: nobody listens.
    NotRunning(PathBuf),
    /// 4: the socket or the daemon refuses us.
    NotAllowed(PathBuf),
    /// 5: no answer in time.
    TimeOut,
    /// 1: anything else.
    Failed(String),
}

impl Trouble {
    fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => NO,
            Self::NotRunning(_) => 3,
            Self::NotAllowed(_) => 4,
            Self::TimeOut => 5,
        }
    }

    /// One line, with what to do where it is known.
    fn line(&self) -> String {
        match self {
            Self::NotRunning(path) => {
                format!(
                    "no daemon answers at {}; is warren running? (systemctl status warren)",
                    path.display()
                )
            }
            Self::NotAllowed(path) => {
                format!(
                    "not allowed to ask at {}; be root or a member of the group warren",
                    path.display()
                )
            }
            Self::TimeOut => format!("the daemon did not answer within {} s", PATIENCE.as_secs()),
            Self::Failed(text) => text.clone(),
        }
    }

    fn of(error: &io::Error, path: &Path) -> Self {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Self::NotRunning(path.to_owned()),
            ErrorKind::PermissionDenied => Self::NotAllowed(path.to_owned()),
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::TimeOut,
            other => Self::Failed(format!(
                "cannot ask the daemon at {}: {error} ({other})",
                path.display()
            )),
        }
    }
}

/// Asks and prints; `render` gives the text for people and the exit code.
fn show<D: DeserializeOwned>(
    args: &AskArgs,
    path: &str,
    render: impl Fn(&D) -> (String, u8),
) -> ExitCode {
    let socket = config::paths::Paths::new(&args.root).control();
    match ask(&socket, path).and_then(|body| print(args, &body, render)) {
        Ok(code) => ExitCode::from(code),
        Err(trouble) => {
            // Nobody is left to tell where standard error is closed.
            let _ = writeln!(io::stderr(), "warren: {}", trouble.line());
            ExitCode::from(trouble.code())
        }
    }
}

fn print<D: DeserializeOwned>(
    args: &AskArgs,
    body: &str,
    render: impl Fn(&D) -> (String, u8),
) -> Result<u8, Trouble> {
    let document: D = serde_json::from_str(body).map_err(|error| {
        Trouble::Failed(format!("the daemon's answer is not understood: {error}"))
    })?;
    let (text, code) = render(&document);
    // Tables fill their last column with blanks.
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    let shown = if args.json {
        body.to_owned()
    } else {
        lines.join("\n")
    };
    match writeln!(io::stdout(), "{shown}") {
        // As `warren why | head` does.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(code),
        Err(error) => Err(Trouble::Failed(format!("cannot print: {error}"))),
        Ok(()) => Ok(code),
    }
}

/// One `GET` over the socket.
fn ask(socket: &Path, path: &str) -> Result<String, Trouble> {
    let failed = |error: io::Error| Trouble::of(&error, socket);
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: warren\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream
        .take(LONGEST)
        .read_to_string(&mut answer)
        .map_err(failed)?;
    body(&answer, socket)
}

/// The body of an answer with its length told; a status other than 200 is trouble.
fn body(answer: &str, socket: &Path) -> Result<String, Trouble> {
    let broken = || Trouble::Failed("the daemon's answer breaks off".to_owned());
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .ok_or_else(broken)?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    if length.is_some_and(|length| length != body.len()) {
        return Err(broken());
    }
    match status {
        "200" => Ok(body.to_owned()),
        "403" => Err(Trouble::NotAllowed(socket.to_owned())),
        other => {
            let title = serde_json::from_str(body)
                .map(|problem: Problem| problem.title)
                .unwrap_or_default();
            Err(Trouble::Failed(format!(
                "the daemon answers {other}: {title}"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(answer: &str, expected: Result<&str, u8>) {
        let seen =
            body(answer, Path::new("/run/warren/control.sock")).map_err(|trouble| trouble.code());
        assert_eq!(seen.as_deref().map_err(|code| *code), expected);
    }

    #[test]
    fn an_answer_is_its_body_and_half_an_answer_is_none() {
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", Ok("{}"));
        check("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}", Err(1));
        check("HTTP/1.1 200", Err(1));
        check("", Err(1));
    }

    #[test]
    fn a_refusal_has_the_code_for_no_permission_and_a_problem_the_general_one() {
        check(
            "HTTP/1.1 403 Forbidden\r\n\r\n{\"status\":403,\"title\":\"no\"}",
            Err(4),
        );
        check("HTTP/1.1 404 Not Found\r\n\r\nnot json", Err(1));
    }

    #[test]
    fn a_socket_nobody_made_means_that_the_daemon_does_not_run() {
        let trouble = ask(Path::new("/nonexistent/control.sock"), STATUS_PATH).unwrap_err();
        assert_eq!(trouble.code(), 3);
        assert!(trouble.line().contains("is warren running?"));
    }

    #[test]
    fn each_kind_of_failure_has_its_exit_code() {
        for (kind, code) in [
            (ErrorKind::ConnectionRefused, 3),
            (ErrorKind::PermissionDenied, 4),
            (ErrorKind::WouldBlock, 5),
            (ErrorKind::TimedOut, 5),
            (ErrorKind::BrokenPipe, 1),
        ] {
            assert_eq!(
                Trouble::of(&io::Error::from(kind), Path::new("/x")).code(),
                code,
                "{kind}"
            );
        }
    }
}
