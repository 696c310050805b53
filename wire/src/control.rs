//! The documents of the control socket: what `warren status`, `tunnels`, `peers`, `routes`, `why` and
//! `events` show, and what their `--json` prints.
//!
//! Each is one object with `"version": 1`. Names are in snake case; bytes, seconds and ratios in
//! base units; times in RFC 3339 UTC. Names of nodes and slots appear in their canonical spelling.
//! A field whose value is unknown is `null`, never left out. A version may gain fields; readers
//! skip fields that they do not know.

mod echo;
mod events;
mod health;
mod hole_punching;
mod lan;
mod names;
mod operator;
mod peers;
mod routes;

pub use echo::*;
pub use events::*;
pub use health::*;
pub use hole_punching::*;
pub use lan::*;
pub use names::*;
pub use operator::*;
pub use peers::*;
pub use routes::*;

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use time::OffsetDateTime;

/// The version that all documents of this file carry.
pub const VERSION: u32 = 1;

/// The path of [`StatusDocument`].
pub const STATUS_PATH: &str = "/v1/status";
/// The path of [`TunnelsDocument`].
pub const TUNNELS_PATH: &str = "/v1/tunnels";
/// The path of [`PeersDocument`].
pub const PEERS_PATH: &str = "/v1/peers";
/// The path of [`NamesDocument`].
pub const NAMES_PATH: &str = "/v1/names";
/// The path of [`RoutesDocument`].
pub const ROUTES_PATH: &str = "/v1/routes";
/// The path of [`DecisionsDocument`].
pub const DECISIONS_PATH: &str = "/v1/decisions";
/// The path of [`EventsDocument`], with an [`EventQuery`].
pub const EVENTS_PATH: &str = "/v1/events";
/// The path to which a `POST` with an [`EchoQuery`] sends an echo request; the answer is an [`EchoDocument`].
pub const ECHO_PATH: &str = "/v1/echo";
/// The path that says by which tunnel a node sends packets to another one: `GET` with a [`HopQuery`].
pub const HOP_PATH: &str = "/v1/next-hop";
/// The path to which a `POST` reloads the configuration; the answer is a [`ReloadDocument`].
pub const RELOAD_PATH: &str = "/v1/reload";
/// The path to which a `POST` restarts the daemon in place. There is no answer if that succeeds, since the connection
/// ends with the program.
pub const RESTART_PATH: &str = "/v1/restart";
/// Maximum time until the daemon has restarted or has refused to.
pub const MAX_RESTART_WAIT: std::time::Duration = std::time::Duration::from_secs(60);

/// How many past decisions are kept for `warren why`.
pub const DECISIONS_KEPT: usize = 256;

/// The state of the node in one document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusDocument {
    /// The version of the document: [`VERSION`].
    pub version: u32,
    /// The time at which the document was created.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Version of the daemon's software.
    pub software: String,
    /// This node: `7/16`.
    pub prefix: String,
    /// This node's name; `None` if it has none, or it is not known.
    #[serde(default)]
    pub name: Option<String>,
    /// This node's address in the network.
    pub address: IpAddr,
    /// Its IPv4 address there, where the network carries IPv4 and has room for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address4: Option<Ipv4Addr>,
    /// The network's range: `fd12:3456:789a::/48`.
    pub network: String,
    /// Pid of the daemon.
    pub pid: u32,
    /// The time for which the daemon has run.
    pub uptime_seconds: f64,
    /// Whether the policy's orders are logged and not carried out.
    #[serde(default)]
    pub dry_run: bool,
    /// Whether no finding is an error.
    pub ready: bool,
    /// Whether the node is healthy, and what was found.
    #[serde(default)]
    pub health: HealthReport,
    /// Tunnels that carry frames now (draining ones included), by role.
    pub tunnels_up: RoleCounts,
    /// Other nodes that babeld has a route to, installed or not.
    pub nodes_known: u64,
    /// Other nodes to which an installed route leads.
    #[serde(default)]
    pub nodes_reachable: u64,
    /// Routes that babeld installed and that lead somewhere.
    pub routes_installed: u64,
    /// Routes that babeld installed as unreachable.
    #[serde(default)]
    pub routes_unreachable: u64,
    /// The endpoints that the node announces, best first.
    #[serde(default)]
    pub endpoints: Vec<OwnEndpointEntry>,
    /// The number of Babel neighbours.
    pub neighbours: u64,
    /// The node by which packets leave the network, this one included; none where no gateway is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_gateway: Option<String>,
    /// The name of that node; `None` if it has none, or it is not known.
    #[serde(default)]
    pub exit_gateway_name: Option<String>,
    /// The registry, as last asked.
    pub registry: RegistryState,
    /// The search for other nodes on the LANs of the host.
    #[serde(default)]
    pub lan: LanState,
    /// The attempts to reach nodes behind NATs.
    #[serde(default)]
    pub hole_punching: HolePunchingState,
    /// Port mappings on gateways.
    pub leases: Vec<LeaseEntry>,
    /// Ports for which the firewall of the router is open for IPv6; `external` is the address of this host.
    #[serde(default)]
    pub pinholes: Vec<LeaseEntry>,
    /// Why one is not open; `None` if all are, or the router answers no request to open one.
    #[serde(default)]
    pub pinholes_missing: Option<String>,
    /// Supervised processes, sorted by name.
    pub processes: Vec<ProcessEntry>,
    /// The number of actors restarted after a panic since the start.
    pub actor_restarts: u64,
    /// The nodes that an operator has pinned; those of the configuration are not among them.
    #[serde(default)]
    pub pins: Vec<PinEntry>,
    /// The number of private endpoints of peers that are not dialled.
    #[serde(default)]
    pub unused_endpoints: u64,
    /// Why the first of them is not dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused_reason: Option<String>,
    /// The least release that the network asks for, where that is newer than `software`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_version: Option<String>,
}

impl StatusDocument {
    /// Returns when the daemon started, by its own clock.
    pub fn started_at(&self) -> OffsetDateTime {
        self.at - time::Duration::seconds_f64(self.uptime_seconds)
    }
}

/// A number for each end of tunnels that we can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleCounts {
    /// We are the client.
    pub dialled: u64,
    /// A client of our server.
    pub accepted: u64,
}

/// The outcome of the requests to the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryState {
    /// The time of the last request; `None` before the first.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_request_at: Option<OffsetDateTime>,
    /// The time of the last answer.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_answer_at: Option<OffsetDateTime>,
    /// Why the last asking failed; `None`: it answered, or was not asked yet.
    pub last_error: Option<String>,
    /// The number of nodes that have private endpoints only, which the registry does not show to this node.
    #[serde(default)]
    pub hidden_nodes: u32,
}

/// A port mapping on a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseEntry {
    /// `udp` or `tcp`.
    pub transport: String,
    /// The port on this host.
    pub internal_port: u16,
    /// Address and port on the gateway.
    pub external: SocketAddr,
    /// The time at which the mapping expires unless it is renewed.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// A supervised process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEntry {
    /// `babeld`, `server-udp`, `wrn0` …
    pub name: String,
    /// While it runs.
    pub pid: Option<u32>,
    /// Whether the process reported that it is ready.
    pub ready: bool,
    /// Starts since the daemon began, the first included.
    pub starts: u32,
}

/// The document of all tunnels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunnelsDocument {
    /// The version of the document: [`VERSION`].
    pub version: u32,
    /// The time at which the document was created.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Dialling slots first, then accepting ones, by number.
    pub tunnels: Vec<TunnelEntry>,
}

/// One tunnel. Bytes are frame bytes on its link, as the kernel counts them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunnelEntry {
    /// The link's name: `wrn0`, `wrnu.2`.
    pub slot: String,
    /// The node at the other end: `9/16`.
    pub peer: String,
    /// Its name; `None` if it has none, or it is not known.
    #[serde(default)]
    pub peer_name: Option<String>,
    /// `dialled` or `accepted`.
    pub role: String,
    /// `udp` or `tcp`; `None` until a dialled tunnel has its endpoint.
    pub transport: Option<String>,
    /// The endpoint that we dialled, or the address that the peer came from.
    pub endpoint: Option<SocketAddr>,
    /// `connecting`, `up`, `draining` or `closing`.
    pub phase: String,
    /// Why it drains, as the metrics' label `reason`; `None` unless its phase is `draining`.
    #[serde(default)]
    pub drain_reason: Option<String>,
    /// Since it came up; `None` while it connects.
    pub age_seconds: Option<f64>,
    /// Bytes received through this tunnel.
    pub rx_bytes: u64,
    /// Bytes sent through this tunnel.
    pub tx_bytes: u64,
    /// Mean rate of receiving over the last seconds.
    pub rx_bytes_per_second: f64,
    /// Mean rate of sending over the last seconds.
    pub tx_bytes_per_second: f64,
    /// Nodes that the installed routes reach through it.
    pub nodes_served: u64,
    /// All routes that babeld knows through it, installed or not.
    pub routes: u64,
    /// Smoothed round trip of our probes.
    pub rtt_seconds: Option<f64>,
    /// Share of our probes of the last minute that got no answer, 0 to 1; `None`: none was sent.
    pub loss_ratio: Option<f64>,
    /// Whether packets of full size pass: `carried`, `fragmented` (in fragments, since the path drops large packets), `lost`
    /// (small packets pass only), `unknown`.
    #[serde(default)]
    pub full_size_packets: String,
    /// Whether both ends are behind NATs, and opened the path by sending to each other at once.
    #[serde(default)]
    pub hole_punched: bool,
    /// The planner's opinion in one line; `None` before its first look.
    pub verdict: Option<String>,
}

/// What was decided lately, and what the planner thinks now: `warren why`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionsDocument {
    /// The version of the document: [`VERSION`].
    pub version: u32,
    /// The time at which the document was created.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Whether the policy's orders are logged and not carried out.
    #[serde(default)]
    pub dry_run: bool,
    /// The last [`DECISIONS_KEPT`], oldest first.
    pub decisions: Vec<DecisionEntry>,
    /// The planner's opinion of each tunnel at its last look.
    pub verdicts: Vec<VerdictEntry>,
}

/// One decision of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionEntry {
    /// Counts all decisions of this run from 1, so that a reader can go on where it stopped.
    pub number: u64,
    /// The time of the decision.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// `open`, `drain`, `undrain` or `close`; `closed` for a tunnel that has closed, `reconnected` for one that came up again.
    pub order: String,
    /// The slot that the order concerns.
    pub slot: String,
    /// The node at the other end; `None` if the slot held no known tunnel.
    pub peer: Option<String>,
    /// Its name; `None` if it has none, or it is not known.
    #[serde(default)]
    pub peer_name: Option<String>,
    /// The label of the reason, as in the metrics.
    pub reason: String,
    /// What it was decided by: `name=value unit`, for people.
    pub terms: String,
}

/// The planner's opinion of one tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictEntry {
    /// The slot of the tunnel.
    pub slot: String,
    /// The node at its other end, where known.
    pub peer: Option<String>,
    /// Its name; `None` if it has none, or it is not known.
    #[serde(default)]
    pub peer_name: Option<String>,
    /// One line: kept or closing, and by which rule.
    pub text: String,
}

/// The keys of the configuration that differ, after a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadDocument {
    /// The version of the document: [`VERSION`].
    pub version: u32,
    /// Changed keys that are in force now.
    pub applied: Vec<String>,
    /// Changed keys by which tunnels are drained and closed.
    pub draining: Vec<String>,
    /// Keys whose value in the file takes effect when the daemon is started again.
    pub restart: Vec<String>,
}

impl ReloadDocument {
    /// Returns the outcome for people, one text for each kind of key.
    pub fn lines(&self) -> Vec<String> {
        let kinds = [
            ("applied", &self.applied),
            ("applied, tunnels close one at a time", &self.draining),
            ("needs a restart", &self.restart),
        ];
        let changed = kinds.iter().filter(|(_, keys)| !keys.is_empty());
        let lines: Vec<_> = changed
            .map(|(kind, keys)| format!("{kind}: {}", keys.join(", ")))
            .collect();
        if lines.is_empty() {
            vec!["nothing changed".to_owned()]
        } else {
            lines
        }
    }
}

/// Why a request was not answered (RFC 9457, `application/problem+json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// One line for people.
    pub title: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: Serialize + for<'a> Deserialize<'a> + PartialEq + std::fmt::Debug>(
        document: &T,
        part: &str,
    ) {
        let text = serde_json::to_string(document).unwrap();
        assert!(text.contains(part), "{text}");
        assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), document);
    }

    #[test]
    fn times_are_rfc_3339_and_unknown_ones_are_null() {
        let at = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        check(
            &RegistryState {
                last_request_at: Some(at),
                last_answer_at: None,
                last_error: Some("no route".into()),
                hidden_nodes: 0,
            },
            r#"{"last_request_at":"2023-11-14T22:13:20Z","last_answer_at":null,"last_error":"no route""#,
        );
    }

    #[test]
    fn a_decision_names_its_order_reason_and_terms() {
        let at = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        let decision = DecisionEntry {
            number: 1,
            at,
            order: "drain".into(),
            slot: "wrn0".into(),
            peer: Some("9/16".into()),
            peer_name: None,
            reason: "unused".into(),
            terms: "usage=3 B/s".into(),
        };
        check(
            &DecisionsDocument {
                version: VERSION,
                at,
                dry_run: false,
                decisions: vec![decision],
                verdicts: vec![],
            },
            r#""order":"drain","slot":"wrn0","peer":"9/16","peer_name":null,"reason":"unused","terms":"usage=3 B/s""#,
        );
    }

    #[test]
    fn a_reader_skips_what_it_does_not_know() {
        let text = r#"{"dialled":2,"accepted":1,"relayed":5}"#;
        let counts: RoleCounts = serde_json::from_str(text).unwrap();
        assert_eq!(
            counts,
            RoleCounts {
                dialled: 2,
                accepted: 1
            }
        );
    }
}
