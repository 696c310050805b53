//! Runs the real `warren` on bad input and compares with the table in `docs/BAD-INPUT.md`.
//!
//! The table says what comes out, `command` how each case is made; a case that only one of them knows
//! is a failure. Needs root, and works in a network namespace and folders of its own.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "all of this file is a test"
)]

#[path = "bad_input/of_registry.rs"]
mod of_registry;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{TcpListener, UdpSocket},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const TABLE: &str = include_str!("../../docs/BAD-INPUT.md");
const WARREN: &str = env!("CARGO_BIN_EXE_warren");
/// An ordinary user.
const NOBODY: u32 = 65_534;
/// No answer is worth waiting longer for.
const LIMIT: Duration = Duration::from_secs(20);

/// One row of the table.
#[derive(Debug)]
struct Row {
    case: String,
    code: i32,
    says: String,
}

fn rows() -> Vec<Row> {
    let cells = |line: &str| {
        line.split('|')
            .map(|cell| cell.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let table = TABLE
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(2)
        .map(cells);
    table
        .map(|cells| Row {
            case: cells[1].clone(),
            code: cells[3].parse().unwrap(),
            says: cells[4].trim_matches('`').to_owned(),
        })
        .collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test has no daemon's thread that spawns"
)]
fn program(name: &str) -> Command {
    Command::new(name)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the limit of a test is real time"
)]
fn now() -> Instant {
    Instant::now()
}

/// What a command left.
#[derive(Debug)]
struct Outcome {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs to the end; after [`LIMIT`] it is killed and has no code.
fn run(mut command: Command) -> Outcome {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    finish(child)
}

fn finish(mut child: Child) -> Outcome {
    let mut out = child.stdout.take().unwrap();
    let err = child.stderr.take();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (done, limit) = std::sync::mpsc::channel::<()>();
    let killer = std::thread::spawn(move || {
        if limit.recv_timeout(LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    });
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        // Read elsewhere where it is not here.
        err.map(|mut err| err.read_to_end(&mut text).unwrap());
        String::from_utf8_lossy(&text).into_owned()
    });
    let mut text = Vec::new();
    out.read_to_end(&mut text).unwrap();
    let status = child.wait().unwrap();
    drop(done);
    killer.join().unwrap();
    Outcome {
        code: status.code(),
        out: String::from_utf8_lossy(&text).into_owned(),
        err: errors.join().unwrap(),
    }
}

/// A network with a running registry, and one machine that has joined.
struct Network {
    folder: tempfile::TempDir,
    registry: Child,
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.registry.kill();
        let _ = self.registry.wait();
    }
}

fn warren(args: &[&str], root: &Path) -> Command {
    let mut command = program(WARREN);
    command.args(args).arg("--root").arg(root);
    command
}

fn must(command: Command) -> String {
    let outcome = run(command);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome.out
}

impl Network {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (home, other) = (folder.path().join("registry"), folder.path().join("other"));
        for root in [&home, &other] {
            must(warren(
                &["registry", "init", "--address", "127.0.0.1:9443"],
                root,
            ));
        }
        let mut command = warren(&["registry", "run", "--listen", "127.0.0.1:9443"], &home);
        let mut registry = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(registry.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let network = Self { folder, registry };
        assert!(line.contains("listens"), "{line}");
        must(network.join(&network.invitation(), "node"));
        network
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn invitation(&self) -> String {
        must(warren(&["registry", "invite"], &self.at("registry")))
            .trim()
            .to_owned()
    }

    fn join(&self, invitation: &str, root: &str) -> Command {
        let mut command = warren(
            &["join", invitation, "--child-uids", "60197,60198"],
            &self.at(root),
        );
        command.env("NO_COLOR", "1");
        command
    }

    /// A copy of the machine that has joined.
    fn node(&self, name: &str) -> PathBuf {
        let mut command = program("cp");
        command.arg("-a").arg(self.at("node")).arg(self.at(name));
        must(command);
        self.at(name)
    }
}

fn etc(root: &Path, file: &str) -> PathBuf {
    root.join("etc/warren").join(file)
}

/// `warren run` on a joined machine whose configuration is `text`.
fn with_config(root: &Path, text: impl AsRef<[u8]>) -> Command {
    fs::write(etc(root, "warren.yaml"), text).unwrap();
    warren(&["run"], root)
}

fn with_lines(root: &Path, lines: &str) -> Command {
    with_config(root, format!("registry: https://127.0.0.1:9443\n{lines}"))
}

/// `warren run` where `program` cannot be found, in a mount namespace of its own.
fn without(root: &Path, name: &str) -> Command {
    let mut command = program("unshare");
    let hide = "for f in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin; do \
        [ ! -e $f/$0 ] || mount --bind /dev/null $f/$0 || exit 99; done; exec \"$@\"";
    command
        .args(["--mount", "sh", "-c", hide, name, WARREN, "run", "--root"])
        .arg(root);
    command
}

/// The machine's certificate again, ended yesterday.
fn expire(network: &Network, root: &Path) {
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    let authority = network.at("registry").join("etc/warren-registry");
    let key = rcgen::KeyPair::from_pem(&read(authority.join("ca.key"))).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&read(authority.join("ca.crt")), key).unwrap();
    let own = rcgen::KeyPair::from_pem(&read(etc(root, "node.key"))).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "7/16");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let certificate = params.signed_by(&own, &issuer).unwrap();
    fs::write(etc(root, "node.crt"), certificate.pem()).unwrap();
}

/// What is held while the command runs.
type Held = Vec<Box<dyn std::any::Any>>;

/// How a case is made.
fn command(network: &Network, case: &str, root: &Path) -> (Command, Held) {
    let alone = |command| (command, Held::new());
    let good = || warren(&["run"], root);
    match case {
        "config missing" => alone(warren(&["run"], &network.at("nowhere"))),
        "config a folder" => {
            fs::remove_file(etc(root, "warren.yaml")).unwrap();
            fs::create_dir(etc(root, "warren.yaml")).unwrap();
            alone(good())
        }
        "config empty" => alone(with_config(root, "# nothing\n")),
        "config unreadable" => {
            fs::set_permissions(etc(root, "warren.yaml"), fs::Permissions::from_mode(0o600))
                .unwrap();
            let mut command = good();
            command.uid(NOBODY).gid(NOBODY);
            alone(command)
        }
        "config not text" => alone(with_config(root, b"log: \xff\n")),
        "config not yaml" => alone(with_lines(root, "listen: { udp: 1\nlog: info\n")),
        "config wrong value" => alone(with_lines(root, "listen: { udp: 70000 }\n")),
        "config wrong type" => alone(with_lines(root, "upnp: true\n")),
        "config unknown key" => alone(with_lines(root, "listn: {}\n")),
        "config doubled key" => alone(with_lines(root, "log: info\nlog: debug\n")),
        "config two faults" => alone(with_lines(root, "upnp: true\nlog:\n")),
        "config without registry" => alone(with_config(root, "log: info\n")),
        "config unknown user" => alone(with_lines(
            root,
            "child-users: { openvpn: nobody-of-that-name, babeld: 60198 }\n",
        )),
        "no root" => {
            let mut command = good();
            command.uid(NOBODY).gid(NOBODY);
            alone(command)
        }
        "no openvpn" => alone(without(root, "openvpn")),
        "no babeld" => alone(without(root, "babeld")),
        "port taken" => (
            good(),
            vec![Box::new(UdpSocket::bind("[::]:1194").unwrap())],
        ),
        "another babeld" => (
            good(),
            vec![Box::new(UdpSocket::bind("[::]:6696").unwrap())],
        ),
        _ => alone(identity(network, case, root).unwrap_or_else(|| joining(network, case, root))),
    }
}

fn identity(network: &Network, case: &str, root: &Path) -> Option<Command> {
    let read = |file: &str| fs::read_to_string(etc(root, file)).unwrap();
    match case {
        "certificate missing" => fs::remove_file(etc(root, "node.crt")).unwrap(),
        "certificate malformed" => fs::write(etc(root, "node.crt"), "letters\n").unwrap(),
        "certificate foreign" => {
            let foreign = network.at("other").join("etc/warren-registry/ca.crt");
            fs::copy(foreign, etc(root, "ca.crt")).unwrap();
        }
        "certificate with too much" => {
            let (node, ca) = (read("node.crt"), read("ca.crt"));
            fs::write(etc(root, "node.crt"), node + &ca).unwrap();
        }
        "certificate chain too long" => {
            fs::write(etc(root, "node.crt"), read("node.crt").repeat(3)).unwrap()
        }
        "certificate expired" => expire(network, root),
        "key missing" => fs::remove_file(etc(root, "node.key")).unwrap(),
        "network document altered" => {
            let text = fs::read_to_string(etc(root, "network.json")).unwrap();
            let (before, after) = text.split_once("\"payload\"").unwrap();
            let at = after.find(": \"").unwrap() + 30;
            let letter = if after[at..].starts_with('A') {
                "B"
            } else {
                "A"
            };
            let altered = format!(
                "{before}\"payload\"{}{letter}{}",
                &after[..at],
                &after[at + 1..]
            );
            fs::write(etc(root, "network.json"), altered).unwrap();
        }
        _ => return None,
    }
    Some(warren(&["run"], root))
}

fn joining(network: &Network, case: &str, root: &Path) -> Command {
    /// Puts another value after `name=`.
    fn other(invitation: &str, name: &str) -> String {
        let (before, after) = invitation.split_once(&format!("{name}=")).unwrap();
        // The last letter of a base64 group may have bits that must be zero; the first has none.
        let letter = if after.starts_with('A') { 'B' } else { 'A' };
        format!("{before}{name}={letter}{}", &after[1..])
    }
    match case {
        "invitation malformed" => network.join("nonsense", "newcomer"),
        "invitation unknown" => network.join(&other(&network.invitation(), "token"), "newcomer"),
        "invitation used" => {
            let invitation = network.invitation();
            must(network.join(&invitation, "first"));
            network.join(&invitation, "second")
        }
        "invitation of another registry" => {
            network.join(&other(&network.invitation(), "pin"), "newcomer")
        }
        "joined already" => network.join(
            &network.invitation(),
            root.file_name().unwrap().to_str().unwrap(),
        ),
        "join without a registry" => {
            let invitation = network
                .invitation()
                .replace("127.0.0.1:9443", "127.0.0.1:9");
            network.join(&invitation, "newcomer")
        }
        "start elsewhere" => warren(
            &["join", &network.invitation(), "--start"],
            &network.at("newcomer"),
        ),
        "request where joined" => warren(&["request"], root),
        "registry not running" => warren(&["registry", "list"], &network.at("newcomer")),
        "usage" => warren(&["run", "--nonsense"], root),
        _ => of_registry::command(network, case).unwrap_or_else(|| {
            panic!("the table has a case that nobody knows how to make: {case}")
        }),
    }
}

/// Runs the daemon until it has said `says` or [`LIMIT`] is over, then ends it.
fn until_said(root: &Path, says: &str) -> Outcome {
    let mut child = warren(&["run"], root)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (lines, heard) = std::sync::mpsc::channel();
    let err = BufReader::new(child.stderr.take().unwrap());
    let reader = std::thread::spawn(move || {
        err.lines()
            .map_while(Result::ok)
            .for_each(|line| drop(lines.send(line)));
    });
    let (began, mut said) = (now(), String::new());
    while !said.contains(says) {
        let left = LIMIT.saturating_sub(now().duration_since(began));
        let Ok(line) = heard.recv_timeout(left) else {
            break;
        };
        said.push_str(&line);
        said.push('\n');
    }
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = finish(child);
    reader.join().unwrap();
    said.extend(heard.iter().map(|line| line + "\n"));
    Outcome { err: said, ..ended }
}

#[track_caller]
fn check(row: &Row, root: &Path, outcome: &Outcome) {
    let says = row.says.replace("ROOT", root.to_str().unwrap());
    // Back quotes in a message cannot stand in a table's cell.
    let said = outcome.err.replace('`', "");
    assert!(
        said.lines().any(|line| line.contains(&says)),
        "{}: {says}: {outcome:?}",
        row.case
    );
    assert_eq!(outcome.code, Some(row.code), "{}: {outcome:?}", row.case);
    assert!(!said.contains("panicked"), "{}: {outcome:?}", row.case);
}

/// A network namespace for this thread and all that it starts.
fn own_namespace() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let mut command = program("ip");
    command.args(["link", "set", "lo", "up"]);
    must(command);
    // Nothing else is here: the ports are free.
    drop(TcpListener::bind("127.0.0.1:9443").unwrap());
}

#[test]
fn what_is_said_of_bad_input_is_what_the_table_says() {
    if !nix::unistd::geteuid().is_root() {
        let waived = std::env::var_os("WARREN_WITHOUT_ROOT").is_some();
        assert!(waived, "needs root (WARREN_WITHOUT_ROOT=1 leaves it out)");
        return;
    }
    own_namespace();
    let mut network = Network::new();
    let rows = rows();
    assert!(rows.len() > 25, "{rows:?}");
    for (index, row) in rows.iter().enumerate() {
        let root = network.node(&format!("case-{index}"));
        if row.case == "registry away" {
            network.registry.kill().unwrap();
            network.registry.wait().unwrap();
            let outcome = until_said(&root, &row.says);
            check(row, &root, &outcome);
            continue;
        }
        let (command, held) = command(&network, &row.case, &root);
        let outcome = run(command);
        drop(held);
        let root = if row.case == "config missing" {
            network.at("nowhere")
        } else {
            root
        };
        check(row, &root, &outcome);
    }
}
