//! Parses what OpenVPN 2.6 sends on its management socket, and writes commands to it.
//!
//! A [`Decoder`] takes bytes and returns [`Event`]s; it knows nothing of sockets, processes or
//! time. Formats: OpenVPN's `doc/management-notes.txt`, and recordings of a real pair
//! (`tests/data`).

pub use crate::{
    client_env::{ClientEnv, is_exit_notice, is_stopped_from_outside, leave_of_log},
    dial_failure::{DialFailure, reason_of_log},
};
use crate::{
    client_env::{EnvBlock, address},
    lines::{Line, Lines},
};
use policies::names::FIRST_VLAN;
use std::net::SocketAddr;

/// Longest line taken, bytes.
const MAX_LINE: usize = 8 * 1024;

/// A client of our server, numbered by OpenVPN in order of coming; never reused by one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// A key negotiation of a client; an answer names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u64);

/// A message from OpenVPN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It waits for `hold release`.
    Hold,
    /// Its connection has come to another state.
    State(State),
    /// A client wants in: answer by [`client_auth`] or [`client_deny`].
    ClientConnect {
        /// The number of the client.
        cid: ClientId,
        /// The key id, which the answer must repeat.
        kid: KeyId,
        /// The facts that are known of the client.
        env: ClientEnv,
    },
    /// A client negotiates new keys (hourly): answer as for a new one.
    ClientReauth {
        /// The number of the client.
        cid: ClientId,
        /// The key id, which the answer must repeat.
        kid: KeyId,
        /// The facts that are known of the client.
        env: ClientEnv,
    },
    /// Frames pass between us and the client.
    ClientEstablished {
        /// The number of the client.
        cid: ClientId,
        /// The facts that are known of the client.
        env: ClientEnv,
    },
    /// The client is gone.
    ClientDisconnect {
        /// The number of the client.
        cid: ClientId,
        /// The facts that are known of the client.
        env: ClientEnv,
    },
    /// `>NOTIFY:SEVERITY,KIND,TEXT`, such as `info,remote-exit,EXIT`.
    Notify {
        /// `info`, `warning` …
        severity: String,
        /// `remote-exit`, `server-pushed-halt` …
        kind: String,
        /// The text after the keyword.
        text: String,
    },
    /// A line of its log.
    Log {
        /// As OpenVPN flags it.
        level: LogLevel,
        /// The text; may quote the peer's own words.
        text: String,
    },
    /// A command succeeded.
    Success(String),
    /// A command failed.
    Error(String),
    /// The greeting, or another line that carries no event.
    Info(String),
    /// OpenVPN reports a fatal error and exits.
    Fatal(String),
    /// The server rejected us (its `client-deny`). OpenVPN exits with code 0 and does not repeat
    /// this.
    AuthFailed,
    /// Bytes of the connection since its start (client), as OpenVPN counts: not those of the link.
    ByteCount {
        /// Bytes received from the network.
        rx_bytes: u64,
        /// Bytes sent to the network.
        tx_bytes: u64,
    },
    /// Bytes of one client since its start (server).
    ClientByteCount {
        /// The client that the counters belong to.
        cid: ClientId,
        /// Bytes received from the network.
        rx_bytes: u64,
        /// Bytes sent to the network.
        tx_bytes: u64,
    },
    /// A line beyond 8 KiB was dropped.
    Oversize,
    /// Any other line: the body of an answer, or what we do not know.
    Other(String),
}

/// The content of a `>STATE:` message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The name of the state.
    pub name: StateName,
    /// The detail: `SUCCESS`, `tls-error`, `ping-exit`, `exit-with-notification` …; often empty.
    pub detail: String,
    /// The peer's address, if the state includes it.
    pub remote: Option<SocketAddr>,
}

/// States of an OpenVPN process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateName {
    /// OpenVPN starts to connect.
    Connecting,
    /// It looks a name up.
    Resolve,
    /// It opens a TCP connection.
    TcpConnect,
    /// It waits for the server's first answer.
    Wait,
    /// TLS and authentication.
    Auth,
    /// The server wants more of us.
    AuthPending,
    /// It asks for the server's options.
    GetConfig,
    /// It sets addresses.
    AssignIp,
    /// It sets routes.
    AddRoutes,
    /// Ready: a client's frames pass, a server listens.
    Connected,
    /// OpenVPN restarts, for the reason in the detail.
    Reconnecting,
    /// It ends, for the reason in the detail.
    Exiting,
    /// A state that this version does not have.
    Unknown,
}

/// The flag of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// A fatal error, `F`.
    Fatal,
    /// A non-fatal error, `N`.
    Error,
    /// A warning, `W`.
    Warning,
    /// An informational message, `I`.
    Info,
    /// `D`, or none.
    Debug,
}

/// A block of environment lines whose end has not come yet.
#[derive(Clone, Copy, Debug)]
enum Block {
    Connect(ClientId, KeyId),
    Reauth(ClientId, KeyId),
    Established(ClientId),
    Disconnect(ClientId),
}

impl Block {
    fn end(self, env: ClientEnv) -> Event {
        match self {
            Self::Connect(cid, kid) => Event::ClientConnect { cid, kid, env },
            Self::Reauth(cid, kid) => Event::ClientReauth { cid, kid, env },
            Self::Established(cid) => Event::ClientEstablished { cid, env },
            Self::Disconnect(cid) => Event::ClientDisconnect { cid, env },
        }
    }
}

/// Parses the bytes of one management connection into events.
#[derive(Clone, Debug)]
pub struct Decoder {
    lines: Lines,
    block: Option<(Block, EnvBlock)>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            lines: Lines::new(MAX_LINE),
            block: None,
        }
    }
}

impl Decoder {
    /// Takes the next bytes, however cut, and returns the events that they completed, in order.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let lines = self.lines.feed(bytes).into_iter();
        lines.filter_map(|line| self.line(line)).collect()
    }

    /// Returns whether all bytes so far belong to events that were returned.
    pub fn is_between_events(&self) -> bool {
        self.block.is_none() && self.lines.is_between_lines()
    }

    fn line(&mut self, line: Line) -> Option<Event> {
        let text = match line {
            Line::Text(text) => text,
            Line::Oversize => {
                if let Some((_, block)) = &mut self.block {
                    block.env.truncated = true;
                }
                return Some(Event::Oversize);
            }
        };
        match text.strip_prefix(">CLIENT:") {
            Some(client) => self.client(client).unwrap_or(Some(Event::Other(text))),
            None => Some(event(text)),
        }
    }

    /// `None`: not understood. `Some(None)`: part of a block.
    fn client(&mut self, text: &str) -> Option<Option<Event>> {
        let (kind, rest) = text.split_once(',')?;
        let mut ids = rest.split(',').map(|id| id.parse().ok());
        let mut id = || ids.next().flatten();
        let block = match kind {
            "ENV" => return self.env(rest),
            "CONNECT" => Block::Connect(ClientId(id()?), KeyId(id()?)),
            "REAUTH" => Block::Reauth(ClientId(id()?), KeyId(id()?)),
            "ESTABLISHED" => Block::Established(ClientId(id()?)),
            "DISCONNECT" => Block::Disconnect(ClientId(id()?)),
            _ => return None,
        };
        self.block = Some((block, EnvBlock::default()));
        Some(None)
    }

    fn env(&mut self, line: &str) -> Option<Option<Event>> {
        if line == "END" {
            let (block, env) = self.block.take()?;
            return Some(Some(block.end(env.end())));
        }
        self.block.as_mut()?.1.add(line);
        Some(None)
    }
}

/// A line outside the environment blocks.
fn event(text: String) -> Event {
    let parsed = match text.split_once(':') {
        Some((">STATE", rest)) => state(rest).map(Event::State),
        Some((">LOG", rest)) => log(rest),
        Some((">HOLD", _)) => Some(Event::Hold),
        Some((">NOTIFY", rest)) => notify(rest),
        Some((">INFO", rest)) => Some(Event::Info(rest.to_owned())),
        Some((">FATAL", rest)) => Some(Event::Fatal(rest.to_owned())),
        Some((">PASSWORD", rest)) if rest.starts_with("Verification Failed") => {
            Some(Event::AuthFailed)
        }
        Some((">BYTECOUNT", rest)) => {
            numbers(rest).map(|[rx_bytes, tx_bytes]| Event::ByteCount { rx_bytes, tx_bytes })
        }
        Some((">BYTECOUNT_CLI", rest)) => {
            numbers(rest).map(|[cid, rx_bytes, tx_bytes]| Event::ClientByteCount {
                cid: ClientId(cid),
                rx_bytes,
                tx_bytes,
            })
        }
        Some(("SUCCESS", rest)) => Some(Event::Success(rest.trim_start().to_owned())),
        Some(("ERROR", rest)) => Some(Event::Error(rest.trim_start().to_owned())),
        Some(_) | None => None,
    };
    parsed.unwrap_or(Event::Other(text))
}

fn numbers<const N: usize>(text: &str) -> Option<[u64; N]> {
    let numbers: Option<Vec<u64>> = text.split(',').map(|number| number.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// Parses the state line `TIME,NAME,DETAIL,LOCAL4,REMOTE,PORT,…`.
fn state(text: &str) -> Option<State> {
    let mut fields = text.split(',');
    let _time: u64 = fields.next()?.parse().ok()?;
    let name = match fields.next()? {
        "CONNECTING" => StateName::Connecting,
        "RESOLVE" => StateName::Resolve,
        "TCP_CONNECT" => StateName::TcpConnect,
        "WAIT" => StateName::Wait,
        "AUTH" => StateName::Auth,
        "AUTH_PENDING" => StateName::AuthPending,
        "GET_CONFIG" => StateName::GetConfig,
        "ASSIGN_IP" => StateName::AssignIp,
        "ADD_ROUTES" => StateName::AddRoutes,
        "CONNECTED" => StateName::Connected,
        "RECONNECTING" => StateName::Reconnecting,
        "EXITING" => StateName::Exiting,
        _ => StateName::Unknown,
    };
    let detail = fields.next().unwrap_or_default().to_owned();
    let remote = fields.nth(1).and_then(address);
    let port = fields.next().and_then(|port| port.parse().ok());
    let remote = remote.zip(port).map(|(ip, port)| SocketAddr::new(ip, port));
    Some(State {
        name,
        detail,
        remote,
    })
}

/// Parses the log line `TIME,FLAGS,TEXT`.
fn log(rest: &str) -> Option<Event> {
    let mut fields = rest.splitn(3, ',');
    let _time: u64 = fields.next()?.parse().ok()?;
    let flags = fields.next()?;
    let level = match flags.chars().find(|flag| "FNWI".contains(*flag)) {
        Some('F') => LogLevel::Fatal,
        Some('N') => LogLevel::Error,
        Some('W') => LogLevel::Warning,
        Some('I') => LogLevel::Info,
        Some(_) | None => LogLevel::Debug,
    };
    Some(Event::Log {
        level,
        text: fields.next()?.to_owned(),
    })
}

fn notify(rest: &str) -> Option<Event> {
    let mut fields = rest.splitn(3, ',').map(str::to_owned);
    let (severity, kind) = (fields.next()?, fields.next()?);
    Some(Event::Notify {
        severity,
        kind,
        text: fields.next().unwrap_or_default(),
    })
}

/// Asks for `>STATE:` lines from now on.
pub const STATE_ON: &str = "state on\n";
/// Asks for the pid, which any process that is not stuck answers at once.
pub const PID: &str = "pid\n";
/// Lets a held process begin.
pub const HOLD_RELEASE: &str = "hold release\n";

/// The highest VLAN there is; beyond it OpenVPN takes the number modulo 4096 without a word.
const LAST_VLAN: u16 = 4094;

/// Lets a client in, into VLAN `vlan`; `None` unless that is in 2..=4094.
pub fn client_auth(cid: ClientId, kid: KeyId, vlan: u16) -> Option<String> {
    let valid = (FIRST_VLAN..=LAST_VLAN).contains(&vlan);
    valid.then(|| format!("client-auth {} {}\nvlan-pvid {vlan}\nEND\n", cid.0, kid.0))
}

/// Time that [`client_pending_auth`] grants; the answer follows it at once.
const PENDING_AUTH_SECONDS: u16 = 10;

/// Makes OpenVPN look at the answer to a CONNECT at once: it is to be sent just before the answer. Without it
/// OpenVPN looks at the answer only when the client sends a packet or a timer of a second elapses.
///
/// The client is notified that its authentication is pending.
pub fn client_pending_auth(cid: ClientId, kid: KeyId) -> String {
    format!(
        "client-pending-auth {} {} wait {PENDING_AUTH_SECONDS}\n",
        cid.0, kid.0
    )
}

/// Refuses a client; the reason goes into our log, not to the client, and loses all but letters,
/// digits, spaces and `-./:_`, and what is beyond 120 characters.
pub fn client_deny(cid: ClientId, kid: KeyId, reason: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || " -./:_".contains(*c);
    let reason: String = reason.chars().filter(plain).take(120).collect();
    format!("client-deny {} {} \"{reason}\"\n", cid.0, kid.0)
}

/// Ends a client's session. Over UDP the client is notified at once, and its DISCONNECT follows
/// within 5 s.
pub fn client_kill(cid: ClientId) -> String {
    format!("client-kill {}\n", cid.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_env::MAX_ENV_LINES;
    use policies::names::Prefix;
    use proptest::prelude::*;

    const SERVER: &[u8] = include_bytes!("../tests/data/openvpn-2.6.14-server.txt");
    const CLIENT: &[u8] = include_bytes!("../tests/data/openvpn-2.6.14-client.txt");

    fn events(stream: &[u8]) -> Vec<Event> {
        Decoder::default().feed(stream)
    }

    #[track_caller]
    fn check(stream: &str, expected: &[Event]) {
        assert_eq!(events(stream.as_bytes()), expected);
    }

    fn state(name: StateName, detail: &str, remote: Option<&str>) -> Event {
        let remote = remote.map(|remote| remote.parse().unwrap());
        Event::State(State {
            name,
            detail: detail.to_owned(),
            remote,
        })
    }

    /// Stream that announces a client with these lines of environment.
    fn connect(env: &[&str]) -> Vec<Event> {
        let lines: String = env
            .iter()
            .map(|line| format!(">CLIENT:ENV,{line}\r\n"))
            .collect();
        events(format!(">CLIENT:CONNECT,0,1\r\n{lines}>CLIENT:ENV,END\r\n").as_bytes())
    }

    fn node_of(env: &[&str]) -> Option<Prefix> {
        match connect(env).as_slice() {
            [Event::ClientConnect { env, .. }] => env.node(),
            other => panic!("{other:?}"),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other events are of no client"
    )]
    fn client_event(event: Event) -> Option<(&'static str, u64, u64, ClientEnv)> {
        match event {
            Event::ClientConnect { cid, kid, env } => Some(("connect", cid.0, kid.0, env)),
            Event::ClientReauth { cid, kid, env } => Some(("reauth", cid.0, kid.0, env)),
            Event::ClientEstablished { cid, env } => Some(("established", cid.0, 0, env)),
            Event::ClientDisconnect { cid, env } => Some(("disconnect", cid.0, 0, env)),
            _ => None,
        }
    }

    #[test]
    fn a_real_server_reports_the_life_of_its_client() {
        let lives: Vec<_> = events(SERVER)
            .into_iter()
            .filter_map(client_event)
            .collect();
        let kinds: Vec<_> = lives
            .iter()
            .map(|(kind, cid, kid, _)| (*kind, *cid, *kid))
            .collect();
        assert_eq!(
            kinds,
            [
                ("connect", 0, 1),
                ("established", 0, 0),
                ("reauth", 0, 3),
                ("disconnect", 0, 0)
            ]
        );
        let env = &lives[0].3;
        assert_eq!(env.node(), Prefix::new(2, 16));
        assert_eq!(
            env.serial.as_deref(),
            Some("2acca5061371b064633f30b3720414a2ef811520")
        );
        assert_eq!(env.untrusted, Some("127.0.0.1:39684".parse().unwrap()));
        assert_eq!(env.trusted, None);
        assert_eq!(lives[2].3.trusted, Some("127.0.0.1:39684".parse().unwrap()));
        assert_eq!(lives[2].3.node(), Prefix::new(2, 16));
    }

    #[test]
    fn a_real_client_reports_its_states() {
        let states: Vec<_> = events(CLIENT)
            .into_iter()
            .filter(|event| matches!(event, Event::State(_)))
            .collect();
        let expected = [
            state(StateName::Wait, "", None),
            state(StateName::Auth, "", None),
            state(StateName::Connected, "SUCCESS", Some("127.0.0.1:1194")),
            state(StateName::Exiting, "exit-with-notification", None),
        ];
        assert_eq!(states, expected);
    }

    #[test]
    fn every_line_of_a_real_pair_is_known_but_the_answer_to_status() {
        let unknown = |stream| {
            events(stream).into_iter().filter_map(|event| {
                if let Event::Other(text) = event {
                    Some(text)
                } else {
                    None
                }
            })
        };
        assert_eq!(unknown(CLIENT).count(), 0);
        let status = [
            "TITLE",
            "TIME",
            "HEADER",
            "HEADER",
            "GLOBAL_STATS",
            "GLOBAL_STATS",
            "END",
        ];
        let firsts: Vec<_> = unknown(SERVER)
            .map(|text| text.split('\t').next().unwrap().to_owned())
            .collect();
        assert_eq!(firsts, status);
    }

    #[test]
    fn each_kind_of_line_has_its_event() {
        check(">HOLD:Waiting for hold release:1\r\n", &[Event::Hold]);
        check(
            ">PASSWORD:Verification Failed: 'Auth'\r\n",
            &[Event::AuthFailed],
        );
        check(
            ">FATAL:Cannot open TUN\r\n",
            &[Event::Fatal("Cannot open TUN".into())],
        );
        check("SUCCESS: pid=7\r\n", &[Event::Success("pid=7".into())]);
        check(
            "ERROR: unknown command\r\n",
            &[Event::Error("unknown command".into())],
        );
        check(
            ">BYTECOUNT:1,2\r\n",
            &[Event::ByteCount {
                rx_bytes: 1,
                tx_bytes: 2,
            }],
        );
        let count = Event::ClientByteCount {
            cid: ClientId(3),
            rx_bytes: 1,
            tx_bytes: 2,
        };
        check(">BYTECOUNT_CLI:3,1,2\r\n", &[count]);
        let notify = Event::Notify {
            severity: "info".into(),
            kind: "remote-exit".into(),
            text: "EXIT".into(),
        };
        check(">NOTIFY:info,remote-exit,EXIT\r\n", &[notify]);
        let log = Event::Log {
            level: LogLevel::Warning,
            text: "a, b".into(),
        };
        check(">LOG:1,W,a, b\r\n", &[log]);
        let v6 = state(StateName::Connected, "SUCCESS", Some("[2001:db8::1]:1194"));
        check(">STATE:1,CONNECTED,SUCCESS,,2001:db8::1,1194,,\r\n", &[v6]);
        check(
            ">STATE:1,NEW_ONE,,,,,,\r\n",
            &[state(StateName::Unknown, "", None)],
        );
    }

    #[test]
    fn lines_cut_short_or_with_bad_numbers_are_handed_on_as_they_are() {
        let lines = [
            ">STATE:",
            ">LOG:1",
            ">BYTECOUNT:1",
            ">BYTECOUNT_CLI:1,2,99999999999999999999",
            ">CLIENT:CONNECT,0",
            ">CLIENT:CONNECT,-1,2",
            ">CLIENT:ENV,END",
            ">CLIENT:ENV,a=b",
            ">NOTIFY:",
            "END",
            "",
        ];
        for line in lines {
            check(&format!("{line}\r\n"), &[Event::Other(line.to_owned())]);
        }
    }

    #[test]
    fn a_certificate_names_a_node_only_by_one_name_on_which_all_agree() {
        assert_eq!(
            node_of(&["common_name=7/16", "X509_0_CN=7/16"]),
            Prefix::new(7, 16)
        );
        assert_eq!(node_of(&["common_name=7/16", "X509_0_CN=8/16"]), None);
        assert_eq!(
            node_of(&["common_name=7/16", "X509_0_CN=7/16", "X509_0_CN_1=7/16"]),
            None
        );
        assert_eq!(node_of(&["common_name=07/16", "X509_0_CN=07/16"]), None);
        assert_eq!(node_of(&["common_name=7/16"]), None);
        assert_eq!(node_of(&["X509_0_CN=7/16"]), None);
        assert_eq!(node_of(&["UV_common_name=7/16"]), None);
    }

    #[test]
    fn an_environment_beyond_the_limits_names_nobody() {
        let many: Vec<_> = ["common_name=7/16", "X509_0_CN=7/16"]
            .into_iter()
            .chain(std::iter::repeat_n("IV_A=1", MAX_ENV_LINES))
            .collect();
        assert_eq!(node_of(&many), None);
        let long = format!("IV_A={}", "x".repeat(MAX_LINE - 100));
        let big: Vec<_> = ["common_name=7/16", "X509_0_CN=7/16"]
            .into_iter()
            .chain(std::iter::repeat_n(long.as_str(), 9))
            .collect();
        assert_eq!(node_of(&big), None);
    }

    #[test]
    fn an_over_long_line_inside_an_environment_marks_it() {
        let long = format!("X509_0_CN_1={}", "x".repeat(MAX_LINE));
        match connect(&["common_name=7/16", "X509_0_CN=7/16", &long]).as_slice() {
            [Event::Oversize, Event::ClientConnect { env, .. }] => assert_eq!(env.node(), None),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_mapped_address_is_an_ipv4_address() {
        let env = ["untrusted_ip6=::ffff:192.0.2.1", "untrusted_port=7"];
        match connect(&env).as_slice() {
            [Event::ClientConnect { env, .. }] => {
                assert_eq!(env.address(), Some("192.0.2.1:7".parse().unwrap()));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_client_is_let_in_only_into_a_vlan_that_exists() {
        let (cid, kid) = (ClientId(3), KeyId(1));
        let good = Some("client-auth 3 1\nvlan-pvid 2\nEND\n".to_owned());
        assert_eq!(client_auth(cid, kid, 2), good);
        for bad in [0, 1, 4095, 5000] {
            assert_eq!(client_auth(cid, kid, bad), None, "{bad}");
        }
    }

    #[test]
    fn the_wake_up_names_the_client_and_the_key_of_the_connect() {
        let text = client_pending_auth(ClientId(3), KeyId(1));
        assert_eq!(text, "client-pending-auth 3 1 wait 10\n");
    }

    #[test]
    fn a_reason_cannot_smuggle_a_second_command() {
        let text = client_deny(ClientId(3), KeyId(1), "full\" \r\nsignal SIGTERM\n");
        assert_eq!(text, "client-deny 3 1 \"full signal SIGTERM\"\n");
    }

    proptest! {
        #[test]
        fn the_events_do_not_depend_on_the_split(sizes in proptest::collection::vec(1..700usize, 1..60)) {
            let mut decoder = Decoder::default();
            let mut rest = SERVER;
            let mut split = Vec::new();
            for size in sizes {
                let (piece, left) = rest.split_at(size.min(rest.len()));
                split.extend(decoder.feed(piece));
                rest = left;
            }
            split.extend(decoder.feed(rest));
            prop_assert_eq!(split, events(SERVER));
        }

        #[test]
        fn hostile_lines_never_panic(lines in proptest::collection::vec(
            "(>CLIENT:|>STATE:|>LOG:|>BYTECOUNT:|SUCCESS:)?(CONNECT|ENV|ESTABLISHED|DISCONNECT)?,?[0-9,:=A-Z/_\\PC]{0,30}", 0..40)) {
            events(lines.join("\r\n").as_bytes());
        }
    }
}
